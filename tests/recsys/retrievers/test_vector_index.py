from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.retrievers.vector_index import build_index


def normal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_flat_index_equals_a_full_sort() -> None:
    queries, vectors = normal(40, 8, 0), normal(70, 8, 1)
    rows, scores = build_index(vectors)(queries, 9)
    expected = (queries.double() @ vectors.double().T).sort(dim=1, descending=True)
    np.testing.assert_array_equal(rows, expected.indices[:, :9].numpy())
    np.testing.assert_allclose(scores, expected.values[:, :9].numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["IVF", "HNSW"])
def test_approximate_indexes_find_nearly_all_and_score_exactly(name: str) -> None:
    centres = normal(40, 16, 0)
    vectors = torch.nn.functional.normalize(centres.repeat(100, 1) + 0.3 * normal(4000, 16, 1), dim=1)
    queries = torch.nn.functional.normalize(centres + 0.3 * normal(40, 16, 2), dim=1)
    rows, scores = build_index(vectors, name)(queries, 10)
    exact, _ = build_index(vectors)(queries, 10)
    found = np.mean([len(set(a) & set(b)) for a, b in zip(rows, exact, strict=True)]) / 10
    assert found > 0.9
    products = (queries[:, None] * vectors[torch.from_numpy(rows)]).sum(dim=2)
    np.testing.assert_allclose(scores, products.numpy(), rtol=1e-4)


@pytest.mark.parametrize("name", ["Flat", "IVF", "HNSW"])
def test_few_vectors_are_all_found(name: str) -> None:
    rows, _ = build_index(normal(5, 4, 0), name)(normal(3, 4, 1), 5)
    assert [sorted(row) for row in rows.tolist()] == [[0, 1, 2, 3, 4]] * 3


def test_an_unknown_index_is_said() -> None:
    with pytest.raises(ValueError, match="one of Flat, IVF, HNSW, not 'PQ'"):
        build_index(normal(5, 4, 0), "PQ")
