"""Product k-means and OPQ against scikit-learn, scipy and brute force in float64."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.cluster import KMeans
from torch import Tensor

from semantic_ids.product import ProductKMeans, balanced_pca, procrustes
from semantic_ids.tokenizer import Tokenizer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(normal(width, width, seed=9)).Q


def rotated_blocks(n: int, *, blocks: int = 3, width: int = 4, clusters: int = 6) -> Tensor:
    """Points of a few clusters in each block of features, seen from another angle ``(n, blocks·width)``."""
    centres = 3 * normal(blocks, clusters, width)
    own = torch.randint(clusters, (n, blocks), generator=torch.Generator().manual_seed(1))
    x = torch.cat([centres[block][own[:, block]] for block in range(blocks)], dim=1)
    return (x + 0.1 * normal(n, blocks * width, seed=2)) @ rotation(blocks * width) + 5


def lost(fitted: ProductKMeans, x: Tensor) -> float:
    """The share of the variance that codes lose."""
    error = (x - fitted.decode(fitted.encode(x))).square().sum()
    return float(error / (x - x.mean(dim=0)).square().sum())


@pytest.mark.parametrize("rotate", [False, True])
def test_codes_are_those_of_the_nearest_centre_in_each_block(rotate: bool) -> None:
    x = normal(600, 8) * torch.arange(1.0, 9) + 20
    fitted = ProductKMeans(levels=3, codebook_size=16, rotate=rotate, rounds=5).fit(x)
    z = (x - x.mean(dim=0)).double().numpy() @ fitted.rotation.double().numpy()
    books = np.split(fitted.codebooks.double().numpy(), [3, 6], axis=1)  # 8 = 3 + 3 + 2
    codes, quantized = [], []
    for block, book in zip(np.split(z, [3, 6], axis=1), books, strict=True):
        codes.append(np.square(block[:, None] - book).sum(axis=2).argmin(axis=1))
        quantized.append(book[codes[-1]])
    found = fitted.encode(x)
    assert found.tolist() == np.stack(codes, axis=1).tolist()
    decoded = np.concatenate(quantized, axis=1) @ fitted.rotation.double().numpy().T
    np.testing.assert_allclose(fitted.decode(found), decoded + x.mean(dim=0).double().numpy(), rtol=1e-5)


def test_each_block_is_kmeans() -> None:
    x = normal(500, 6)
    fitted = ProductKMeans(levels=2, codebook_size=12, iterations=300).fit(x, seed=1)
    codes, mean = fitted.encode(x).numpy(), x.mean(dim=0).numpy()
    for level, features in enumerate([slice(0, 3), slice(3, 6)]):
        centres = (fitted.codebooks.numpy() + mean)[:, features]
        block = x.numpy()[:, features]
        # scikit-learn, started from these centres, finds nothing left to do.
        lloyd = KMeans(12, init=centres, n_init=1, max_iter=50, tol=0).fit(block)
        np.testing.assert_allclose(lloyd.cluster_centers_, centres, atol=1e-4)
        assert lloyd.predict(block).tolist() == codes[:, level].tolist()


def test_decodes_to_the_centres_side_by_side_rotated_back() -> None:
    fitted = ProductKMeans(levels=2, codebook_size=2).fit(normal(5, 3))
    fitted.mean = torch.tensor([100.0, 0.0, 0.0])
    # (x, y, z) is coded as (z, x, y): the first level has two features, the second one.
    fitted.rotation = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    fitted.codebooks = torch.tensor([[1.0, 2.0, 3.0], [-4.0, -5.0, -6.0]])
    assert fitted.decode(torch.tensor([[0, 1], [1, 0]])).tolist() == [[102.0, -6.0, 1.0], [95.0, 3.0, -4.0]]
    assert fitted.encode(torch.tensor([[102.1, -6.0, 1.0], [95.0, 3.0, -4.2]])).tolist() == [[0, 1], [1, 0]]


def test_distances_are_those_of_the_last_block() -> None:
    fitted = ProductKMeans(levels=2, codebook_size=2).fit(normal(5, 3))
    fitted.mean = torch.tensor([100.0, 0.0, 0.0])
    fitted.rotation = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    fitted.codebooks = torch.tensor([[1.0, 2.0, 3.0], [-4.0, -5.0, -6.0]])
    distances = fitted.last_level_distances(torch.tensor([[102.0, -6.5, 1.0], [95.0, 3.0, 9.0]]))
    assert distances.dtype == torch.float64
    assert distances.tolist() == [[9.5**2, 0.25], [0.0, 81.0]]


def test_a_learned_rotation_finds_the_blocks() -> None:
    x = rotated_blocks(1500)
    plain = ProductKMeans(levels=3, codebook_size=6).fit(x)
    opq = ProductKMeans(levels=3, codebook_size=6, rotate=True, rounds=50).fit(x)
    assert torch.equal(plain.rotation, torch.eye(12))
    torch.testing.assert_close(opq.rotation @ opq.rotation.T, torch.eye(12), atol=1e-5, rtol=0)
    assert lost(opq, x) < 0.6 * lost(plain, x)


def test_no_round_makes_the_reconstruction_worse() -> None:
    x, calls = rotated_blocks(800), []
    fitted = ProductKMeans(levels=3, codebook_size=6, iterations=3, rotate=True, rounds=12)
    fitted.fit(x, on_step=lambda *call: calls.append(call))
    assert [step for step, _ in calls] == list(range(1, 14))
    losses = [metrics["reconstruction"] for _, metrics in calls]
    assert all(after <= before + 1e-6 for before, after in pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]
    assert losses[-1] == pytest.approx(lost(fitted, x), rel=1e-4)
    start = ProductKMeans(levels=3, codebook_size=6, iterations=3, rotate=True, rounds=0).fit(x)
    assert losses[0] == pytest.approx(lost(start, x), rel=1e-4)


def test_without_rotation_the_variance_lost_is_reported_once() -> None:
    x, calls = normal(300, 6) + 10, []
    fitted = ProductKMeans(levels=3, codebook_size=8).fit(x, on_step=lambda *call: calls.append(call))
    assert calls == [(1, {"reconstruction": pytest.approx(lost(fitted, x), rel=1e-4)})]


def test_procrustes_is_that_of_scipy() -> None:
    x, y = normal(50, 6), normal(50, 6, seed=1)
    np.testing.assert_allclose(procrustes(x, y), orthogonal_procrustes(x.double(), y.double())[0], atol=1e-5)
    torch.testing.assert_close(procrustes(x, x @ rotation(6)), rotation(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize(
    ("variances", "dealt"),
    [
        # The largest to the first block, the next to the other until its product is larger.
        ([1.0, 8.0, 2.0, 4.0], [8.0, 1.0, 4.0, 2.0]),
        ([16.0, 1.0, 64.0, 2.0, 4.0], [64.0, 2.0, 1.0, 16.0, 4.0]),
    ],
)
def test_axes_are_dealt_out_to_blocks_of_equal_products(
    variances: list[float], dealt: list[float], scale: float
) -> None:
    width = len(variances)
    uncorrelated = torch.linalg.qr(normal(100, width).double()).Q
    x = uncorrelated * (torch.tensor(variances) * scale).sqrt() @ rotation(width).double()
    axes = balanced_pca(x, blocks=2)
    torch.testing.assert_close(axes.T @ axes, torch.eye(width).double())
    y = x @ axes
    by_hand = scale * torch.diag(torch.tensor(dealt).double())
    torch.testing.assert_close(y.T @ y, by_hand, rtol=1e-5, atol=1e-5 * scale)


def test_levels_cannot_be_more_than_features() -> None:
    with pytest.raises(ValueError, match="4 levels cannot share embeddings of 3 features"):
        ProductKMeans(levels=4).fit(normal(10, 3))


@pytest.mark.parametrize("rotate", [False, True])
class TestBoth:
    def tokenizer(self, rotate: bool) -> ProductKMeans:
        return ProductKMeans(levels=2, codebook_size=8, rotate=rotate, rounds=4)

    def test_with_no_more_items_than_codes_nothing_is_lost(self, rotate: bool) -> None:
        x = normal(6, 5)
        fitted = self.tokenizer(rotate).fit(x)
        torch.testing.assert_close(fitted.decode(fitted.encode(x)), x)

    def test_items_all_alike_are_reconstructed(self, rotate: bool) -> None:
        x = torch.full((20, 5), 3.0)
        fitted = self.tokenizer(rotate).fit(x)
        torch.testing.assert_close(fitted.decode(fitted.encode(x)), x)

    def test_codes_do_not_depend_on_company(self, rotate: bool) -> None:
        fitted = self.tokenizer(rotate).fit(normal(500, 64))
        # Half-way between two centres the last bit of a distance decides.
        pairs = torch.randint(8, (2, 1100, 2), generator=torch.Generator().manual_seed(0))
        x = (fitted.decode(pairs[0]) + fitted.decode(pairs[1])) / 2
        whole = fitted.encode(x)
        order = torch.randperm(1100, generator=torch.Generator().manual_seed(1))
        parts = [fitted.encode(x[part]) for part in order.tensor_split([0, 1, 20, 600])]
        assert torch.equal(torch.cat(parts), whole[order])

    def test_the_last_code_is_the_one_at_the_smallest_distance(self, rotate: bool) -> None:
        x = normal(300, 5) + 10
        fitted = self.tokenizer(rotate).fit(x)
        distances = fitted.last_level_distances(x)
        assert distances.shape == (300, 8)
        assert torch.equal(distances.argmin(dim=1), fitted.encode(x)[:, -1])

    def test_the_seed_alone_decides(self, rotate: bool) -> None:
        x = normal(200, 5)
        torch.manual_seed(1)
        state = torch.random.get_rng_state()
        first = self.tokenizer(rotate).fit(x, seed=3)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(2)
        again = self.tokenizer(rotate).fit(x, seed=3)
        assert torch.equal(again.codebooks, first.codebooks)
        assert torch.equal(again.rotation, first.rotation)
        assert not torch.equal(self.tokenizer(rotate).fit(x, seed=4).codebooks, first.codebooks)

    def test_after_loading_everything_is_the_same(self, rotate: bool, tmp_path: Path) -> None:
        x = normal(100, 5)
        fitted = self.tokenizer(rotate).fit(x)
        fitted.save(tmp_path)
        loaded = Tokenizer.load(tmp_path)
        assert isinstance(loaded, ProductKMeans)
        assert loaded.codebook_sizes == (8, 8)
        codes = fitted.encode(x)
        assert torch.equal(loaded.encode(x), codes)
        assert torch.equal(loaded.decode(codes), fitted.decode(codes))
