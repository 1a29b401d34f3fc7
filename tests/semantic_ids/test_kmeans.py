"""k-means against hand-made cases and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from torch import Tensor

from semantic_ids.kmeans import kmeans


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assigned(points: Tensor, centres: Tensor) -> tuple[np.ndarray, float]:
    """Each point's centre and the sum of squared distances, in float64."""
    squares = (points.double()[:, None] - centres.double()[None]).square().sum(dim=2)
    least = squares.min(dim=1)
    return least.indices.numpy(), float(least.values.sum())


@pytest.mark.parametrize("seed", range(5))
def test_two_pairs_of_points(seed: int) -> None:
    centres = kmeans(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), 2, generator=seeded(seed))
    assert sorted(centres.flatten().tolist()) == [0.5, 10.5]


@pytest.mark.parametrize(("clusters", "spread"), [(8, 0.5), (20, 2.0)])
def test_inertia_is_that_of_scikit_learn(clusters: int, spread: float) -> None:
    x, _ = make_blobs(1500, n_features=8, centers=clusters, cluster_std=spread, random_state=3)
    points = torch.from_numpy(x).float()
    ours = [assigned(points, kmeans(points, clusters, generator=seeded(s)))[1] for s in range(9)]
    theirs = [KMeans(clusters, n_init=1, max_iter=20, random_state=s).fit(x).inertia_ for s in range(9)]
    assert np.median(ours) < 1.2 * np.median(theirs)  # scikit-learn takes the best of several seeds


@pytest.mark.parametrize("iterations", [1, 4, 20])
def test_from_the_same_seeds_it_is_scikit_learns(iterations: int) -> None:
    points = torch.randn(600, 6, generator=seeded(1)) + 5
    seeds = kmeans(points, 10, generator=seeded(2), iterations=0)
    theirs = KMeans(10, init=seeds.numpy(), n_init=1, max_iter=iterations, tol=0).fit(points.numpy())
    ours = kmeans(points, 10, generator=seeded(2), iterations=iterations)
    np.testing.assert_allclose(ours.numpy(), theirs.cluster_centers_, rtol=1e-4)


def test_seeds_are_distinct_points() -> None:
    points = torch.arange(6.0)[:, None].repeat(5, 2)
    seeds = kmeans(points, 6, generator=seeded(3), iterations=0)
    assert sorted(seeds.tolist()) == [[float(i)] * 2 for i in range(6)]


def test_at_the_end_each_centre_is_its_points_mean() -> None:
    points = torch.randn(400, 3, generator=seeded(1))
    centres = kmeans(points, 12, generator=seeded(2), iterations=500)
    owner, _ = assigned(points, centres)
    means = torch.stack([points[owner == k].mean(dim=0) for k in range(12)])
    torch.testing.assert_close(centres, means)


def test_more_iterations_serve_the_points_better() -> None:
    points = torch.randn(500, 4, generator=seeded(1))
    inertia = [
        assigned(points, kmeans(points, 16, generator=seeded(2), iterations=i))[1] for i in (0, 1, 3, 10)
    ]
    assert inertia == sorted(inertia, reverse=True)
    assert inertia[-1] < 0.9 * inertia[0]


rows = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=40)


@given(rows, st.integers(0, 1000), st.data())
@settings(deadline=None)
def test_no_cluster_is_empty_where_there_are_points_enough(
    pairs: list[tuple[int, int]], seed: int, data: st.DataObject
) -> None:
    points = torch.tensor(pairs, dtype=torch.float32)
    k = data.draw(st.integers(1, len(set(pairs))))
    centres = kmeans(points, k, generator=seeded(seed), iterations=50)
    assert centres.shape == (k, 2)
    assert set(assigned(points, centres)[0].tolist()) == set(range(k))


@pytest.mark.parametrize("seed", [4088, 11263])
def test_a_cluster_that_empties_takes_the_point_worst_served(seed: int) -> None:
    points = torch.randint(0, 12, (12, 2), generator=seeded(seed)).float()
    # With these seeds one of six clusters has lost all its points after the first iteration.
    centres = kmeans(points, 6, generator=seeded(seed))
    assert set(assigned(points, centres)[0].tolist()) == set(range(6))


@given(rows, st.integers(1, 10), st.integers(0, 1000))
@settings(deadline=None)
def test_with_centres_enough_every_point_is_one(
    pairs: list[tuple[int, int]], surplus: int, seed: int
) -> None:
    points = torch.tensor(pairs, dtype=torch.float32)
    distinct = set(pairs)
    centres = kmeans(points, len(distinct) + surplus, generator=seeded(seed))
    assert {tuple(int(v) for v in row) for row in centres.tolist()} == distinct
    assert torch.isfinite(centres).all()


def test_equal_points() -> None:
    centres = kmeans(torch.full((7, 2), 3.0), 4, generator=seeded())
    assert centres.tolist() == [[3.0, 3.0]] * 4


def test_an_outlier_gets_a_centre() -> None:
    points = torch.cat([torch.zeros(500, 1), torch.tensor([[1000.0], [-1000.0]])])
    centres = kmeans(points, 3, generator=seeded(4))
    assert sorted(centres.flatten().tolist()) == [-1000.0, 0.0, 1000.0]


def test_far_from_the_origin() -> None:
    points = torch.tensor([[1e4], [1e4 + 1], [1e4 + 10], [1e4 + 11]])
    centres = kmeans(points, 2, generator=seeded())
    assert sorted(centres.flatten().tolist()) == [1e4 + 0.5, 1e4 + 10.5]


def test_the_generator_alone_decides() -> None:
    points = torch.randn(300, 5, generator=seeded(1))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = kmeans(points, 16, generator=seeded(7))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(kmeans(points, 16, generator=seeded(7)), first)
    assert not torch.equal(kmeans(points, 16, generator=seeded(8)), first)


def test_points_are_left_alone() -> None:
    points = torch.randn(50, 3, generator=seeded(1))
    before = points.clone()
    kmeans(points, 50, generator=seeded()).zero_()
    assert torch.equal(points, before)
