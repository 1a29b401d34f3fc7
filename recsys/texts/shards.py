"""Keep finished parts of a long embedding run, so that an interrupted one resumes."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semantic_ids.files import atomic_write
from semantic_ids.types import Floats, Ints

_DIGEST_SIZE = hashlib.sha256().digest_size

_ABANDONED = 3600.0
"""Age in seconds from which on an unfinished file is one that a killed process left."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Texts that are embedded one after the other.

    Attributes:
        rows: ``(S,)`` their rows among all vectors.
        numbers: ``(S,)`` their places among all texts of their kind.
        texts: The S texts.
        are_queries: Whether they are texts of queries, not of items.
    """

    rows: Ints
    numbers: Ints
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
        numbers = order[start : start + size]
        yield Shard(first_row + numbers, numbers, [texts[number] for number in numbers], are_queries)


@dataclass(frozen=True)
class ShardFolder:
    """Files of finished shards, each named by a digest of everything that determines its vectors.

    A file ends in a digest of its own content, so that damage is noticed. Several processes may use one
    folder; at worst they do the same work.

    Attributes:
        folder: Where the files are.
        encoder: Digest of the encoder and its batch size.
    """

    folder: Path
    encoder: str

    def read(self, shard: Shard) -> Floats | None:
        """Return the vectors ``(S, D)`` of a finished shard; None if there are none, or if they are damaged.

        A damaged file is removed, with a warning.
        """
        path = self._path(shard)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        array, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
        if hashlib.sha256(array).digest() == digest:
            vectors: Floats = np.load(io.BytesIO(array), allow_pickle=False)
            return vectors
        logger.warning("%s is damaged; its %d texts are embedded again", path, len(shard.texts))
        path.unlink(missing_ok=True)
        return None

    def write(self, shard: Shard, vectors: Floats) -> None:
        """Keep the vectors of a finished shard."""
        file = io.BytesIO()
        np.save(file, vectors, allow_pickle=False)
        array = file.getvalue()
        with atomic_write(self._path(shard)) as partial:
            partial.write_bytes(array + hashlib.sha256(array).digest())

    def remove(self) -> None:
        """Remove all shards and what killed processes left of some, and the folder if it is empty then.

        Files that another process may be writing stay.
        """
        for path in self.folder.glob("shard-*.npy"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("shard-*.partial"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()
        with suppress(OSError):  # another process has removed it or has a file there
            self.folder.rmdir()

    def _path(self, shard: Shard) -> Path:
        """Return where the vectors of a shard are kept."""
        identity = json.dumps([self.encoder, shard.are_queries, shard.texts])
        return self.folder / f"shard-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
