"""Semantic IDs of a catalogue against plain Python."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic_ids.ids import SemanticIds


def ids(*codes: tuple[int, ...], sizes: tuple[int, ...] = (4, 4)) -> SemanticIds:
    return SemanticIds(np.array(codes), sizes)


SHOP = ids((1, 2), (0, 3), (1, 2), (1, 0), (1, 2))


@st.composite
def catalogues(draw: st.DrawFn) -> SemanticIds:
    levels = draw(st.integers(1, 3))
    code = st.tuples(*[st.integers(0, 2)] * levels)
    return SemanticIds(np.array(draw(st.lists(code, min_size=1, max_size=30))), (3,) * levels)


def test_counts() -> None:
    assert (SHOP.num_items, SHOP.num_levels) == (5, 2)


def test_leaves_are_distinct_codes_in_order() -> None:
    assert SHOP.leaves.tolist() == [[0, 3], [1, 0], [1, 2]]
    assert SHOP.leaf_of_item.tolist() == [2, 0, 2, 1, 2]
    assert SHOP.leaf_sizes.tolist() == [1, 1, 3]


def test_leaves_do_not_depend_on_the_size_of_codebooks() -> None:
    codes = np.random.default_rng(0).integers(0, 3, (50, 3))
    small, huge = SemanticIds(codes, (3, 3, 3)), SemanticIds(codes, (2**30, 2**30, 2**30))
    expected = sorted(set(map(tuple, codes.tolist())))
    assert [*map(tuple, small.leaves.tolist())] == [*map(tuple, huge.leaves.tolist())] == expected
    np.testing.assert_array_equal(small.leaf_of_item, huge.leaf_of_item)
    np.testing.assert_array_equal(small.leaves[small.leaf_of_item], codes)


def test_digits_count_from_zero_within_a_leaf() -> None:
    assert SHOP.collision_digits[[1, 3]].tolist() == [0, 0]
    assert sorted(SHOP.collision_digits[[0, 2, 4]].tolist()) == [0, 1, 2]


def test_full_codes_carry_the_digit() -> None:
    assert SHOP.full_codes[:, :2].tolist() == SHOP.codes.tolist()
    assert SHOP.full_codes[:, 2].tolist() == SHOP.collision_digits.tolist()
    assert ids((1, 2), (0, 3)).full_codes.tolist() == [[1, 2, 0], [0, 3, 0]]


@given(catalogues())
def test_full_codes_are_one_to_one(catalogue: SemanticIds) -> None:
    assert len({tuple(code) for code in catalogue.full_codes.tolist()}) == catalogue.num_items
    leaf_then_digit = sorted(
        range(catalogue.num_items),
        key=lambda item: (catalogue.leaf_of_item[item], catalogue.collision_digits[item]),
    )
    assert catalogue.items_by_leaf.tolist() == leaf_then_digit


def test_digits_say_nothing_about_the_order_of_the_file() -> None:
    crowded = SemanticIds(np.zeros((2000, 1), dtype=np.int64), (1,))
    assert sorted(crowded.collision_digits.tolist()) == list(range(2000))
    correlation = np.corrcoef(crowded.collision_digits, np.arange(2000))[0, 1]
    assert abs(correlation) < 0.08  # 3.6 standard errors of independent orders
    pairs = SemanticIds(np.repeat(np.arange(1000), 2)[:, None], (1000,))
    assert 0.44 < pairs.collision_digits[::2].mean() < 0.56  # the earlier item is first in half the leaves


def test_digits_are_the_same_every_time() -> None:
    again = ids((1, 2), (0, 3), (1, 2), (1, 0), (1, 2))
    assert again.collision_digits.tolist() == SHOP.collision_digits.tolist()


def test_digits_are_those_of_a_generator_that_numpy_keeps() -> None:
    # What np.random.RandomState(0).permutation(4) and (1).permutation(3) have always given.
    assert SemanticIds(np.zeros((4, 1), dtype=np.int64), (1,)).items_by_leaf.tolist() == [2, 3, 1, 0]
    grown = SemanticIds(np.zeros((7, 1), dtype=np.int64), (1,), (4, 3))
    assert grown.items_by_leaf.tolist() == [2, 3, 1, 0, 4, 6, 5]


@st.composite
def growths(draw: st.DrawFn) -> list[npt.NDArray[np.int64]]:
    levels = draw(st.integers(1, 2))
    code = st.tuples(*[st.integers(0, 2)] * levels)
    first = draw(st.lists(code, min_size=1, max_size=15))
    more = draw(st.lists(st.lists(code, max_size=8), max_size=5))
    return [np.array(part, dtype=np.int64).reshape(-1, levels) for part in (first, *more)]


@given(growths())
@settings(deadline=None)
def test_growing_changes_no_row_code_or_digit(parts: list[npt.NDArray[np.int64]]) -> None:
    catalogue = SemanticIds(parts[0], (3,) * parts[0].shape[1])
    for part in parts[1:]:
        grown = catalogue.extended(part)
        before = catalogue.num_items
        assert grown.codes.tolist() == catalogue.codes.tolist() + part.tolist()
        assert grown.full_codes[:before].tolist() == catalogue.full_codes.tolist()
        assert len(np.unique(grown.full_codes, axis=0)) == grown.num_items
        for leaf in catalogue.leaves:
            items = catalogue.items_of(tuple(leaf))
            assert grown.items_of(tuple(leaf))[: len(items)] == items
        catalogue = grown
    assert catalogue.generations == tuple(len(part) for part in parts)


def test_new_items_stand_in_no_order_of_age_among_themselves() -> None:
    crowded = np.zeros((1000, 1), dtype=np.int64)
    digits = SemanticIds(crowded, (1,)).extended(crowded).collision_digits[1000:]
    assert sorted(digits) == list(range(1000, 2000))
    assert abs(np.corrcoef(digits, np.arange(1000))[0, 1]) < 0.12  # 3.8 standard errors
    again = SemanticIds(crowded, (1,)).extended(crowded).collision_digits
    assert (again[:1000] != again[1000:] - 1000).any()  # generations are shuffled apart from each other


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 1, 2]], "new codes of shape (1, 3) do not have 2 levels"),
        ([0, 1], "new codes of shape (2,) do not have 2 levels"),
        ([[0, 4]], "level 2 holds codes 0 … 4, outside 0 … 3"),
    ],
)
def test_new_codes_that_do_not_fit_are_refused(codes: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SHOP.extended(np.array(codes))


@pytest.mark.parametrize("generations", [(4,), (3, 3), (6, -1)])
def test_generations_must_be_those_of_the_items(generations: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are not those of 5 items"):
        SemanticIds(SHOP.codes, SHOP.codebook_sizes, generations)


def test_items_of_a_code() -> None:
    assert sorted(SHOP.items_of((1, 2))) == [0, 2, 4]
    assert [SHOP.collision_digits[item] for item in SHOP.items_of((1, 2))] == [0, 1, 2]
    assert SHOP.items_of((0, 3)) == [1]
    assert SHOP.items_of((3, 3)) == []


def test_rankings_of_leaves_become_rankings_of_items() -> None:
    third = SHOP.items_of((1, 2))
    items, scores = SHOP.expand(
        np.array([[2, 0, 1], [1, -1, -1]]), np.array([[0.9, 0.5, 0.1], [0.7, -np.inf, -np.inf]]), 4
    )
    assert items.tolist() == [[*third, 1], [3, -1, -1, -1]]
    np.testing.assert_array_equal(
        scores, np.array([[0.9, 0.9, 0.9, 0.5], [0.7, -np.inf, -np.inf, -np.inf]], dtype=np.float32)
    )
    assert items.dtype == np.int64
    assert scores.dtype == np.float32


def naive(
    catalogue: SemanticIds, leaves: list[int], scores: list[float], width: int
) -> list[tuple[int, float]]:
    pairs = [
        (item, score)
        for leaf, score in zip(leaves, scores, strict=True)
        if leaf >= 0
        for item in catalogue.items_of(tuple(catalogue.leaves[leaf]))
    ]
    return (pairs + [(-1, -np.inf)] * width)[:width]


@given(catalogues(), st.data())
def test_expanding_equals_a_loop(catalogue: SemanticIds, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 6))
    leaf = st.integers(-1, len(catalogue.leaves) - 1)  # padding in the middle too
    rankings = data.draw(st.lists(st.lists(leaf, min_size=k, max_size=k), max_size=4))
    width = data.draw(st.integers(1, 12))
    leaves = np.array(rankings, dtype=np.int64).reshape(-1, k)
    scores = -np.arange(leaves.size, dtype=np.float32).reshape(leaves.shape)
    items, found = catalogue.expand(leaves, scores, width)
    assert items.shape == found.shape == (len(rankings), width)
    for row in range(len(rankings)):
        expected = naive(catalogue, rankings[row], scores[row].tolist(), width)
        assert list(zip(items[row].tolist(), found[row].tolist(), strict=True)) == expected


def test_saved_ids_are_the_same(tmp_path: Path) -> None:
    SHOP.save(tmp_path / "deep" / "folder")
    loaded = SemanticIds.load(tmp_path / "deep" / "folder")
    assert loaded.codebook_sizes == SHOP.codebook_sizes
    assert loaded.codes.dtype == np.int64
    np.testing.assert_array_equal(loaded.full_codes, SHOP.full_codes)


def test_a_grown_catalogue_is_saved_with_its_digits(tmp_path: Path) -> None:
    grown = SHOP.extended(np.array([[1, 2], [0, 3], [1, 2]]))
    grown.save(tmp_path)
    grown.extended(np.array([[1, 2]])).save(tmp_path)  # over what is there
    loaded = SemanticIds.load(tmp_path)
    assert loaded.generations == (5, 3, 1)
    assert loaded.full_codes[:8].tolist() == grown.full_codes.tolist()
    assert {path.name for path in tmp_path.iterdir()} == {"semantic_ids.safetensors", "semantic_ids.json"}


def test_ids_saved_before_there_were_generations_are_one(tmp_path: Path) -> None:
    SHOP.save(tmp_path)
    (tmp_path / "semantic_ids.json").write_text('{"codebook_sizes": [4, 4]}')
    loaded = SemanticIds.load(tmp_path)
    assert loaded.generations == (5,)
    assert loaded.full_codes.tolist() == SHOP.full_codes.tolist()


def test_ids_that_are_a_view_are_saved_in_their_own_order(tmp_path: Path) -> None:
    codes = np.arange(6).reshape(3, 2).T
    SemanticIds(codes, (6, 6, 6)).save(tmp_path)
    np.testing.assert_array_equal(SemanticIds.load(tmp_path).codes, codes)


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 1]], (2,), "codes of shape (1, 2) do not fit 1 codebook sizes"),
        ([0, 1], (2, 2), "codes of shape (2,) do not fit 2 codebook sizes"),
        (np.empty((0, 2), dtype=np.int64), (2, 2), "a catalogue needs at least one item"),
        ([[0, 1], [1, 2]], (2, 2), "level 2 holds codes 1 … 2, outside 0 … 1"),
        ([[-1, 1], [1, 1]], (2, 2), "level 1 holds codes -1 … 1, outside 0 … 1"),
    ],
)
def test_codes_that_cannot_be_are_refused(codes: object, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SemanticIds(np.array(codes), sizes)


@pytest.mark.parametrize("name", ["semantic_ids.json", "semantic_ids.safetensors"])
def test_a_flipped_bit_and_a_cut_file_are_noticed(tmp_path: Path, name: str) -> None:
    SHOP.save(tmp_path)
    file, draws = tmp_path / name, random.Random(0)  # noqa: S311 — no secret
    content = file.read_bytes()
    for _ in range(400):
        changed = bytearray(content)
        changed[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"semantic_ids\.(json|safetensors)"):
            SemanticIds.load(tmp_path)
    for size in range(0, len(content) - 1, 7):
        file.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"semantic_ids\.(json|safetensors)"):
            SemanticIds.load(tmp_path)
