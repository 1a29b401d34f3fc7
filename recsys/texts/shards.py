"""Keep finished parts of a long embedding run, so that an interrupted one resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semantic_ids.files import atomic_write
from semantic_ids.types import Floats, Ints


@dataclass(frozen=True)
class Shard:
    """Texts that are embedded one after the other.

    Attributes:
        rows: ``(S,)`` their rows among all vectors.
        texts: The S texts.
        are_queries: Whether they are texts of queries, not of items.
    """

    rows: Ints
    texts: list[str]
    are_queries: bool


def split_into_shards(
    texts: Sequence[str], size: int, *, first_row: int, are_queries: bool
) -> Iterator[Shard]:
    """Yield texts in shards of ``size``, longest first.

    Texts of similar length share a batch and need little padding. The longest come first, so that a lack
    of memory shows at the start.
    """
    order = np.argsort([-len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), size):
        rows = order[start : start + size]
        yield Shard(first_row + rows, [texts[row] for row in rows], are_queries)


@dataclass(frozen=True)
class ShardFolder:
    """Files of finished shards, each named by a digest of everything that determines its vectors.

    Attributes:
        folder: Where the files are.
        encoder: Digest of the encoder and its batch size.
    """

    folder: Path
    encoder: str

    def has(self, shard: Shard) -> bool:
        """Return whether the shard is finished."""
        return self._path(shard).exists()

    def read(self, shard: Shard) -> Floats:
        """Return the vectors of a finished shard.

        Raises:
            ValueError: If the file is damaged. The message says to remove it.
        """
        path = self._path(shard)
        try:
            vectors: Floats = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); remove it, and its texts are embedded again"
            ) from error
        return vectors

    def write(self, shard: Shard, vectors: Floats) -> None:
        """Keep the vectors of a finished shard."""
        with atomic_write(self._path(shard)) as partial, partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)

    def remove(self) -> None:
        """Remove all shards, and the folder if nothing else is in it."""
        for path in self.folder.glob("shard-*.npy*"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, shard: Shard) -> Path:
        """Return where the vectors of a shard are kept."""
        identity = json.dumps([self.encoder, shard.are_queries, shard.texts])
        return self.folder / f"shard-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
