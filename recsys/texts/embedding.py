"""Embed the texts of a catalogue and of its queries with any text encoder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recsys.texts.encoder import TEXT_ENCODERS, OnProgress, TextEncoder
from semantic_ids.types import Floats


def find_encoder(name: str) -> Callable[..., TextEncoder]:
    """Return what constructs the encoder called ``name``.

    Args:
        name: ``lsa``, ``minilm``, the name of an installed plug-in, ``module:Class``, or for
            sentence-transformers a local folder or a name on the Hugging Face hub.

    Raises:
        ValueError: If a plug-in cannot be imported or is no :class:`~recsys.texts.encoder.TextEncoder`.
    """
    is_plug_in = re.fullmatch(r"[\w.]+:[\w.]+", name) and not Path(name).exists()
    if is_plug_in or name in TEXT_ENCODERS.names():
        return TEXT_ENCODERS.load(name)
    from recsys.texts.sentence_encoder import SentenceEncoder  # noqa: PLC0415 — imports torch

    return partial(SentenceEncoder, name)


def embed_texts(
    texts: Sequence[str],
    encoder: str,
    *,
    queries: Sequence[str] = (),
    term_ids: bool = False,
    shards: Path | None = None,
    on_progress: OnProgress = lambda done, total: None,
    **params: Any,
) -> tuple[Floats, Floats]:
    """Embed items and queries in one space.

    The result is the same on every call on one machine.

    Args:
        texts: Texts of N items, at least one.
        encoder: Name of the encoder, see :func:`find_encoder`.
        queries: Texts of T queries.
        term_ids: Whether the texts are numbers that stand for terms; only encoders that
            :attr:`~recsys.texts.encoder.TextEncoder.reads_term_ids` can use them.
        shards: Folder for finished parts, from which an interrupted call resumes. Used by one process at a
            time, and removed at the end if nothing else is in it.
        on_progress: Called while texts are being encoded.
        **params: Constructor arguments of the encoder, such as ``dimensions`` of ``lsa``.

    Returns:
        Vectors ``(N, D)`` and ``(T, D)``, float32, rows of length 1. (``lsa`` gives zeros for a text
        without any known word.)

    Raises:
        ValueError: If there are no texts, if the encoder cannot be loaded or cannot read these texts, or if
            it returns something other than finite vectors of one width. The message says what to do.
        ModuleNotFoundError: If ``minilm`` is not installed.

    Example:
        >>> items, _ = embed_texts(["red soap", "red tent", "blue tent"], "lsa", dimensions=2)
        >>> items.shape
        (3, 2)
    """
    if not texts:
        raise ValueError("there are no texts to embed")
    chosen = find_encoder(encoder)(**params)
    if term_ids and not chosen.reads_term_ids:
        raise ValueError(
            f"the texts are term ids: numbers, not words, and the encoder {encoder!r} has never seen what "
            "they stand for; use the encoder lsa (text.encoder=lsa), which learns from these very texts"
        )
    items, asked = chosen.embed(texts, queries, shards, on_progress)
    _check(encoder, items, len(texts), "items")
    _check(encoder, asked, len(queries), "queries")
    if queries and items.shape[1] != asked.shape[1]:
        raise ValueError(
            f"text encoder {encoder!r} gives items {items.shape[1]} numbers and queries {asked.shape[1]}"
        )
    return _unit(items), _unit(asked)


def _check(encoder: str, vectors: Floats, count: int, what: str) -> None:
    """Refuse vectors that are not one finite row per text."""
    shape = np.shape(vectors)
    if len(shape) != 2 or shape[0] != count:
        raise ValueError(
            f"text encoder {encoder!r} returned an array of shape {shape} for {count} texts of {what}"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"text encoder {encoder!r} returned NaN or infinite numbers for {len(bad)} texts of {what}, "
            f"the first of them number {bad[0]}, counted from 0"
        )


def _unit(vectors: Floats) -> Floats:
    """Scale every row to length 1; rows of zeros stay."""
    from sklearn.preprocessing import normalize  # noqa: PLC0415 — imports slowly

    unit: Floats = normalize(vectors, copy=False).astype(np.float32, copy=False) if len(vectors) else vectors
    return unit
