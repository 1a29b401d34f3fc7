"""Embed the texts of a catalogue and of its queries with any text encoder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recsys.texts.encoder import TEXT_ENCODERS, OnProgress, TextEncoder, check_vectors
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
    pair = chosen.embed(texts, queries, shards, on_progress)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(
            f"text encoder {encoder!r} must return the vectors of items and of queries from embed, "
            f"not a {type(pair).__name__}"
        )
    items = _unit_vectors(encoder, pair[0], texts, "items")
    if not queries:
        return items, items[:0]
    query_vectors = _unit_vectors(encoder, pair[1], queries, "queries")
    if items.shape[1] != query_vectors.shape[1]:
        raise ValueError(
            f"text encoder {encoder!r} gives items {items.shape[1]} numbers and queries "
            f"{query_vectors.shape[1]}"
        )
    return items, query_vectors


def _unit_vectors(encoder: str, vectors: Any, texts: Sequence[str], what: str) -> Floats:
    """Check what an encoder returned, and scale every row to length 1, float32; rows of zeros stay."""
    checked = check_vectors(encoder, vectors, texts, what)
    kind = np.float64 if checked.dtype.kind in "iu" else np.promote_types(checked.dtype, np.float32)
    rows = checked.astype(kind, copy=not checked.flags.writeable)
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    extreme = (largest > 1e6) | ((largest > 0) & (largest < 1e-6))  # their squares may be infinite or 0
    rows[extreme] /= largest[extreme, None]
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= np.where(lengths > 0, lengths, 1)[:, None]
    unit: Floats = rows.astype(np.float32, copy=False)
    return unit
