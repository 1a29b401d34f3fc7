"""Quality figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semantic_ids.ids import SemanticIds
from semantic_ids.quality import perplexity, quality

EMBEDDINGS = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], dtype=np.float32)


@pytest.mark.parametrize("size", [1, 2, 7, 256])
def test_perplexity_of_even_use_is_the_number_of_codes(size: int) -> None:
    assert perplexity(np.full(size, 3)) == pytest.approx(size)
    assert perplexity(np.concatenate([np.full(size, 3), np.zeros(5, dtype=int)])) == pytest.approx(size)


def test_perplexity_of_uneven_use() -> None:
    # shares ½, ¼, ¼: entropy 1.5 bits
    assert perplexity(np.array([2, 1, 0, 1])) == pytest.approx(2**1.5)
    assert perplexity(np.array([0, 9, 0])) == 1.0


def test_levels() -> None:
    ids = SemanticIds(np.array([[0, 2], [1, 2], [0, 2], [3, 2]]), (5, 3))
    first, second = quality(ids, EMBEDDINGS).levels
    assert (first.utilization, first.dead_codes) == (3 / 5, 2)
    assert first.perplexity == pytest.approx(math.exp(-0.5 * math.log(0.5) - 0.5 * math.log(0.25)))
    assert (second.utilization, second.dead_codes, second.perplexity) == (1 / 3, 2, 1.0)


def test_collisions() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [1, 1], [2, 0], [2, 0], [3, 3]])
    figures = quality(SemanticIds(codes, (4, 4)), np.zeros((8, 2), dtype=np.float32))
    assert figures.collision_rate == 5 / 8
    assert figures.unique_id_rate == 5 / 8  # 00, 10, 11, 20, 33
    assert figures.largest_leaf == 3


def test_without_collisions() -> None:
    figures = quality(SemanticIds(np.array([[0], [1], [2], [3]]), (4,)), EMBEDDINGS)
    assert (figures.collision_rate, figures.unique_id_rate, figures.largest_leaf) == (0.0, 1.0, 1)


def test_reconstruction_is_the_share_of_variance_lost() -> None:
    ids = SemanticIds(np.array([[0], [1], [2], [3]]), (4,))
    mean = np.ones((4, 2), dtype=np.float32)
    assert quality(ids, EMBEDDINGS, mean).reconstruction_error == 1.0
    assert quality(ids, EMBEDDINGS, EMBEDDINGS).reconstruction_error == 0.0
    # each of the 8 numbers is 1 from its mean: 8 in all; one is missed by 2, squared 4
    off = EMBEDDINGS + np.array([[2, 0], [0, 0], [0, 0], [0, 0]], dtype=np.float32)
    assert quality(ids, EMBEDDINGS, off).reconstruction_error == 0.5


def test_metrics_are_flat() -> None:
    ids = SemanticIds(np.array([[0, 1], [0, 1], [1, 0], [1, 1]]), (2, 2))
    metrics = quality(ids, EMBEDDINGS).as_metrics()
    assert metrics == {
        "collision_rate": 0.5,
        "unique_id_rate": 0.75,
        "largest_leaf": 2.0,
        "utilization_1": 1.0,
        "dead_codes_1": 0.0,
        "perplexity_1": pytest.approx(2.0),
        "utilization_2": 1.0,
        "dead_codes_2": 0.0,
        "perplexity_2": pytest.approx(math.exp(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))),
    }
    assert quality(ids, EMBEDDINGS, EMBEDDINGS).as_metrics() == {**metrics, "reconstruction_error": 0.0}
