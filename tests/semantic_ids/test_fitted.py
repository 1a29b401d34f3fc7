"""Tokenizers without gradient training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from semantic_ids.fitted import DenseIds, RandomHyperplanes, RandomIds, ResidualKMeans
from semantic_ids.tokenizer import Tokenizer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_level_of_residual_kmeans_is_kmeans_of_what_is_left() -> None:
    x = normal(500, 6)
    fitted = ResidualKMeans(levels=3, codebook_size=12, iterations=300).fit(x, seed=1)
    codes, residual = fitted.encode(x).numpy(), x.numpy()
    for level in range(3):
        centres = fitted.codebooks[level].numpy()
        # scikit-learn, started from these centres, finds nothing left to do.
        lloyd = KMeans(12, init=centres, n_init=1, max_iter=50, tol=0).fit(residual)
        np.testing.assert_allclose(lloyd.cluster_centers_, centres, atol=1e-4)
        assert lloyd.predict(residual).tolist() == codes[:, level].tolist()
        residual = residual - centres[codes[:, level]]


def test_each_level_of_residual_kmeans_reconstructs_better() -> None:
    x = normal(400, 5) + 10
    errors = []
    for levels in (1, 2, 3, 4):
        fitted = ResidualKMeans(levels=levels, codebook_size=8).fit(x)
        errors.append(float((x - fitted.decode(fitted.encode(x))).square().sum()))
    assert errors[0] < 0.7 * float((x - x.mean(dim=0)).square().sum())
    assert all(after < 0.75 * before for before, after in pairwise(errors))


def test_residual_kmeans_reports_the_variance_lost() -> None:
    x, calls = normal(400, 5) + 10, []
    fitted = ResidualKMeans(levels=3, codebook_size=8).fit(x, on_step=lambda *call: calls.append(call))
    assert [step for step, _ in calls] == [1, 2, 3]
    lost = (x - fitted.decode(fitted.encode(x))).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert calls[-1][1]["reconstruction"] == pytest.approx(float(lost), rel=1e-4)


def test_residual_kmeans_decodes_to_the_sum_of_centres() -> None:
    fitted = ResidualKMeans(levels=2, codebook_size=2)
    fitted.fitted_width = 2
    fitted.codebooks = torch.tensor([[[0.0, 10.0], [100.0, 0.0]], [[1.0, 1.0], [0.0, -1.0]]])
    assert fitted.decode(torch.tensor([[1, 0], [0, 1]])).tolist() == [[101.0, 1.0], [0.0, 9.0]]
    assert fitted.encode(torch.tensor([[101.0, 1.2], [0.0, 9.0]])).tolist() == [[1, 0], [0, 1]]


def test_residual_kmeans_with_fewer_items_than_codes() -> None:
    x = normal(3, 4)
    fitted = ResidualKMeans(levels=2, codebook_size=8).fit(x)
    codes = fitted.encode(x)
    assert len(set(codes[:, 0].tolist())) == 3
    torch.testing.assert_close(fitted.decode(codes), x)


def test_lsh_reads_the_sides_of_hyperplanes_as_numbers() -> None:
    lsh = RandomHyperplanes(levels=2, codebook_size=4)
    lsh.fitted_width = 2
    lsh.normals = torch.tensor([[1.0, 0.0, -1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
    lsh.offsets = torch.tensor([0.0, 2.0, 0.0, 0.0])
    points = torch.tensor([[1.0, 3.0], [-1.0, 0.0], [1.0, 2.0], [-1.0, 3.0]])
    # sides: x > 0, y > 2 | −x > 0, x + y > 0; within a level the first side is the lowest bit
    assert lsh.encode(points).tolist() == [[3, 2], [0, 1], [1, 2], [2, 3]]


def test_each_lsh_bit_parts_the_items_in_halves() -> None:
    x = normal(1000, 16) * torch.arange(1.0, 17) + 100
    codes = RandomHyperplanes(levels=3, codebook_size=16).fit(x, seed=2).encode(x)
    assert codes.shape == (1000, 3)
    for level in range(3):
        for bit in range(4):
            # 500 above the lower median; the item on it may round to either side
            assert abs(int((codes[:, level] >> bit & 1).sum()) - 500) <= 1


def test_near_items_share_more_lsh_bits() -> None:
    x = normal(200, 16)
    lsh = RandomHyperplanes(levels=16, codebook_size=2).fit(x)
    codes = lsh.encode(x)
    near = (lsh.encode(x + 0.1 * normal(200, 16, seed=1)) == codes).float().mean()
    far = (codes.roll(1, dims=0) == codes).float().mean()
    assert near > 0.9
    assert 0.4 < far < 0.6


@pytest.mark.parametrize("size", [3, 6, 100])
def test_lsh_needs_a_power_of_two(size: int) -> None:
    with pytest.raises(ValueError, match=f"power of two for LSH, not {size}"):
        RandomHyperplanes(codebook_size=size)


points = st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=20)


@given(points)
@settings(deadline=None)
def test_dense_ids_number_the_distinct_embeddings(rows: list[tuple[int, int]]) -> None:
    x = torch.tensor(rows, dtype=torch.float32)
    dense = DenseIds().fit(x)
    codes = dense.encode(x)
    assert dense.codebook_sizes == (len(set(rows)),)
    pairs = set(zip(rows, codes[:, 0].tolist(), strict=True))
    assert len(pairs) == len(set(rows))
    assert {code for _, code in pairs} == set(range(len(set(rows))))
    assert torch.equal(dense.decode(codes), x)


def test_an_unseen_embedding_gets_the_nearest_ones_dense_id() -> None:
    x = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    dense = DenseIds().fit(x)
    new = torch.tensor([[9.0, 1.0], [0.0, 10.0], [1.0, 6.0], [-0.0, 0.0]])
    assert torch.equal(dense.decode(dense.encode(new)), x[[1, 2, 2, 0]])


@pytest.mark.parametrize(
    "tokenizer", [ResidualKMeans(2, 8), RandomHyperplanes(2, 8), DenseIds()], ids=lambda t: type(t).__name__
)
class TestAll:
    def test_no_items_to_encode(self, tokenizer: Tokenizer) -> None:
        codes = tokenizer.fit(normal(30, 4)).encode(torch.empty(0, 4))
        assert codes.shape == (0, len(tokenizer.codebook_sizes))
        assert codes.dtype == torch.int64

    def test_codes_do_not_depend_on_company(self, tokenizer: Tokenizer) -> None:
        x = normal(1100, 4)
        whole = tokenizer.fit(x).encode(x)
        order = torch.randperm(1100, generator=torch.Generator().manual_seed(1))
        parts = [tokenizer.encode(x[part]) for part in order.tensor_split([1, 20, 600])]
        assert torch.equal(torch.cat(parts), whole[order])

    def test_codes_lie_within_their_codebooks(self, tokenizer: Tokenizer) -> None:
        codes = tokenizer.fit(normal(50, 4)).encode(normal(300, 4, seed=1) * 5)
        assert codes.dtype == torch.int64
        assert codes.min() >= 0
        assert (codes < torch.tensor(tokenizer.codebook_sizes)).all()

    def test_the_seed_alone_decides(self, tokenizer: Tokenizer) -> None:
        x = normal(200, 4)
        torch.manual_seed(1)
        state = torch.random.get_rng_state()
        first = tokenizer.fit(x, seed=3).encode(x)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(tokenizer.fit(x, seed=3).encode(x), first)
        different = not torch.equal(tokenizer.fit(x, seed=4).encode(x), first)
        assert different is not isinstance(tokenizer, DenseIds)

    def test_after_loading_everything_is_the_same(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        x = normal(100, 4)
        codes = tokenizer.fit(x).encode(x)
        tokenizer.save(tmp_path)
        loaded = Tokenizer.load(tmp_path)
        assert type(loaded) is type(tokenizer)
        assert loaded.codebook_sizes == tokenizer.codebook_sizes
        assert torch.equal(loaded.encode(x), codes)

    def test_what_is_no_number_is_refused(self, tokenizer: Tokenizer) -> None:
        x = normal(5, 4)
        x[2, 1] = float("nan")
        with pytest.raises(ValueError, match=r"in 1 rows, first \[2\]"):
            tokenizer.fit(x)
        with pytest.raises(ValueError, match="0 embeddings are too few"):
            tokenizer.fit(torch.empty(0, 4))


def test_lsh_cannot_reconstruct() -> None:
    with pytest.raises(NotImplementedError, match="RandomHyperplanes cannot reconstruct"):
        RandomHyperplanes().decode(torch.zeros(1, 4, dtype=torch.int64))


def test_random_ids_say_nothing_of_an_embedding_but_are_those_of_its_twin() -> None:
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    x[3999] = x[0]
    codes = RandomIds(levels=2, codebook_size=16).fit(x, seed=1).encode(x)
    assert torch.equal(codes[3999], codes[0])
    assert torch.equal(RandomIds(levels=2, codebook_size=16).fit(x, seed=1).encode(x[5:9]), codes[5:9])
    other = RandomIds(levels=2, codebook_size=16).fit(x, seed=2).encode(x)
    assert (other == codes).all(dim=1).float().mean() < 0.02
    # All 256 pairs are equally likely: chi-square with 255 degrees of freedom, .001 and .999 quantiles.
    counts = torch.bincount(codes[:, 0] * 16 + codes[:, 1], minlength=256).float()
    assert 190 < float(((counts - 4000 / 256) ** 2 / (4000 / 256)).sum()) < 330
    # Sorted by a coordinate, codes stay as mixed as they were.
    in_order = codes[x[:, 0].argsort(), 0]
    assert abs(float((in_order[1:] == in_order[:-1]).float().mean()) - 1 / 16) < 0.015
