"""Exact nearest codewords against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semantic_ids.nearest import in_equal_batches, nearest, squared_distances


def distances(points: Tensor, codewords: Tensor) -> np.ndarray:
    """``(n, K)`` squared distances in float64."""
    x, c = points.double().numpy(), codewords.double().numpy()
    return np.stack([np.square(x - row).sum(axis=1) for row in c], axis=1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize(("n", "size", "dim"), [(2000, 256, 32), (300, 37, 1), (50, 1, 8), (1, 500, 64)])
def test_equals_brute_force_far_from_the_origin_too(n: int, size: int, dim: int, offset: float) -> None:
    points, codewords = normal(0, n, dim) + offset, normal(1, size, dim) + offset
    assert nearest(points, codewords).tolist() == distances(points, codewords).argmin(axis=1).tolist()


grid = st.integers(-8, 8)


@given(st.data(), st.sampled_from([1, 2, 4, 8]), st.integers(1, 4))
@settings(deadline=None)
def test_of_codewords_equally_near_the_first_is_taken(data: st.DataObject, size: int, dim: int) -> None:
    row = st.lists(grid, min_size=dim, max_size=dim)
    # Small integers and a power of two of codewords: all arithmetic is exact, so ties are ties.
    codewords = torch.tensor(data.draw(st.lists(row, min_size=size, max_size=size)), dtype=torch.float32)
    points = torch.tensor(data.draw(st.lists(row, min_size=1, max_size=12)), dtype=torch.float32)
    assert nearest(points, codewords).tolist() == distances(points, codewords).argmin(axis=1).tolist()


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(0, 10**6), st.floats(-500, 500)
)
@settings(deadline=None)
def test_no_codeword_is_nearer(n: int, size: int, dim: int, seed: int, offset: float) -> None:
    points, codewords = normal(seed, n, dim) + offset, normal(seed + 1, size, dim) + offset
    found = nearest(points, codewords)
    assert found.dtype == torch.int64
    truth = distances(points, codewords)
    chosen = np.take_along_axis(truth, found.numpy()[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, truth.min(axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [150, 160, 512])
def test_of_equal_codewords_the_first_is_taken(size: int) -> None:
    half = normal(3, size, 24)
    assert int(nearest(normal(4, 400, 24), torch.cat([half, half])).max()) < size


@pytest.mark.parametrize("size", [256, 512])
def test_among_many_codewords_too(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    points, codewords = (torch.randint(-3, 4, (n, 2), generator=generator).float() for n in (300, size))
    assert nearest(points, codewords).tolist() == distances(points, codewords).argmin(axis=1).tolist()


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2049])
def test_blocks_join_without_a_seam(n: int) -> None:
    points, codewords = normal(0, n, 6), normal(1, 700, 6)  # blocks of 1024 points
    assert nearest(points, codewords).tolist() == distances(points, codewords).argmin(axis=1).tolist()


def test_more_codewords_than_scores_fit_into_a_block() -> None:
    codewords = normal(1, (1 << 20) + 1, 2) * 100
    points = codewords[[1 << 20, 5, 77]] + 1e-3
    found = nearest(points, codewords)
    truth = (points.double()[:, None] - codewords.double()[None]).square().sum(dim=2)
    assert truth[[0, 1, 2], found].sqrt().max() < 0.02


def test_no_points() -> None:
    found = nearest(torch.empty(0, 3), normal(0, 4, 3))
    assert found.shape == (0,)
    assert found.dtype == torch.int64


def test_autocast_does_not_coarsen_the_choice() -> None:
    points, codewords = normal(0, 2000, 32), normal(1, 256, 32)
    truth = distances(points, codewords).argmin(axis=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = (points @ codewords.T - 0.5 * codewords.square().sum(dim=1)).argmax(dim=1)
        found = nearest(points, codewords)
    assert (coarse.numpy() != truth).any()
    assert found.tolist() == truth.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_compared_in_float32_or_better(dtype: torch.dtype) -> None:
    points, codewords = normal(0, 500, 16).to(dtype), normal(1, 64, 16).to(dtype)
    assert nearest(points, codewords).tolist() == distances(points, codewords).argmin(axis=1).tolist()


def test_float64_keeps_its_digits() -> None:
    codewords = torch.tensor([[1.0], [1.0 + 1e-12]], dtype=torch.float64)
    assert nearest(codewords, codewords).tolist() == [0, 1]


def test_gradients_are_left_out() -> None:
    points = normal(0, 5, 2).requires_grad_()
    assert not nearest(points, normal(1, 3, 2).requires_grad_()).requires_grad


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_squared_distances_keep_the_digits_of_float64(offset: float) -> None:
    points, codewords = normal(0, 50, 8) + offset, normal(1, 40, 8) + offset
    found = squared_distances(points.requires_grad_(), codewords)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    np.testing.assert_allclose(found.numpy(), distances(points.detach(), codewords), rtol=1e-13)


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 3000])
def test_every_batch_has_the_same_shape(n: int) -> None:
    shapes = set()

    def double(rows: Tensor) -> Tensor:
        shapes.add(tuple(rows.shape))
        return rows[:, 0] * 2

    rows = torch.arange(2 * n).reshape(n, 2)
    assert in_equal_batches(double, rows, torch.device("cpu")).tolist() == [4 * i for i in range(n)]
    assert shapes == {(1024, 2)}


def test_blocks_inside_equal_batches_are_equal_too() -> None:
    codewords, points = normal(1, 3000, 4), normal(0, 1500, 4)
    with torch.profiler.profile(record_shapes=True) as profile:
        in_equal_batches(lambda rows: nearest(rows, codewords), points, torch.device("cpu"))
    shapes = [event.input_shapes for event in profile.events() if event.name == "aten::addmm"]
    assert len(shapes) > 2
    assert all(shape == shapes[0] for shape in shapes)
