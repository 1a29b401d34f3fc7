from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.texts.embedding import embed_texts

TEXTS, QUERIES = ["one", "two", "three"], ["un", "deux"]

PLUG_IN = """
from recsys.texts.encoder import TextEncoder


class Returns(TextEncoder):
    def __init__(self, *, items, of_queries=None):
        self.items, self.of_queries = items, of_queries

    def encode(self, texts):
        return self.items

    def encode_queries(self, texts):
        return self.of_queries


class ItemsAlone(Returns):
    def embed(self, texts, queries, shards, on_progress):
        return self.items
"""

GOOD = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
UNIT = np.array([[0.6, 0.8], [0.0, 1.0], [0.0, 0.0]], dtype=np.float32)

Embed = Callable[..., tuple[Any, Any]]


@pytest.fixture
def embed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embed:
    """Embed the texts, and the queries if asked, by a plug-in that returns what it is given."""
    (tmp_path / "returning_encoder.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)

    def embed(items: Any, of_queries: Any = None, kind: str = "Returns") -> tuple[Any, Any]:
        asked = [] if of_queries is None else QUERIES
        name = f"returning_encoder:{kind}"
        return embed_texts(TEXTS, name, queries=asked, items=items, of_queries=of_queries)

    return embed


@pytest.mark.parametrize(
    "vectors",
    [
        *(
            GOOD,
            GOOD.tolist(),
            GOOD.astype(int),
            GOOD.astype(np.float32) * 1e30,
            GOOD.astype(np.float32) * 1e-30,
        ),
        *((GOOD * 500).astype(np.float16), GOOD * 1e300, GOOD * 1e-300, np.broadcast_to(GOOD, GOOD.shape)),
    ],
)
def test_vectors_of_any_numbers_are_scaled(embed: Embed, vectors: Any) -> None:
    items, queries = embed(vectors, GOOD[:2])
    np.testing.assert_allclose(items, UNIT, atol=1e-3)
    np.testing.assert_allclose(queries, UNIT[:2], atol=1e-6)
    assert items.dtype == queries.dtype == np.float32


WRONG = [
    (GOOD[:2], r"an array of shape \(2, 2\) and type float64 for 3 texts of items"),
    (GOOD[0], r"an array of shape \(2,\) and type float64 for 3 texts of items"),
    (GOOD[:, :0], r"an array of shape \(3, 0\)"),
    (GOOD.astype(str), r"an array of shape \(3, 2\) and type <U"),
    (None, r"an array of shape \(\) and type object"),
    ([[1.0], [1.0, 2.0], [1.0]], "no NumPy array for the items"),
    (np.where(GOOD == 2, np.nan, GOOD), "NaN or infinite numbers for 1 texts of items, .* number 1, .*'two'"),
    (np.where(GOOD > 2, np.inf, GOOD), "NaN or infinite numbers for 1 texts of items, .* number 0, .*'one'"),
]


@pytest.mark.parametrize(("vectors", "complaint"), WRONG)
def test_an_encoder_that_returns_something_else_is_named(embed: Embed, vectors: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"text encoder 'returning_encoder:Returns' returned {complaint}"):
        embed(vectors)


def test_vectors_of_queries_are_checked_too(embed: Embed) -> None:
    with pytest.raises(
        ValueError, match=r"NaN or infinite numbers for 1 texts of queries, .* number 1, .*'deux'"
    ):
        embed(GOOD, np.array([[1.0, 2.0], [np.nan, 1.0]]))
    with pytest.raises(
        ValueError, match=r"an array of shape \(3, 2\) and type float64 for 2 texts of queries"
    ):
        embed(GOOD, GOOD)
    with pytest.raises(ValueError, match="gives items 2 numbers and queries 1"):
        embed(GOOD, GOOD[:2, :1])


def test_an_encoder_whose_embed_returns_items_alone_is_named(embed: Embed) -> None:
    with pytest.raises(ValueError, match=r"'returning_encoder:ItemsAlone' must return .* not a ndarray"):
        embed(GOOD[:2], kind="ItemsAlone")


@pytest.mark.parametrize(
    ("encoder", "params", "complaint"),
    [
        ("lsa", {"dimensions": 0}, "dimensions must be a whole number from 1 to 65536, not 0"),
        ("lsa", {"seed": -1}, "seed must be a whole number from 0 to 4294967295, not -1"),
        ("any/model", {"batch_size": 0}, "batch_size must be a whole number from 1 to .*, not 0"),
        ("any/model", {"truncate_dim": -5}, "truncate_dim must be a whole number from 1 to .*, not -5"),
    ],
)
def test_arguments_out_of_range_are_named(encoder: str, params: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        embed_texts(TEXTS, encoder, **params)
