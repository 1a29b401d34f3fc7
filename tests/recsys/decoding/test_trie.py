from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.decoding.trie import Trie
from semantic_ids.ids import SemanticIds


@st.composite
def catalogues(draw: st.DrawFn) -> SemanticIds:
    sizes = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    code = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return SemanticIds(np.array(draw(st.lists(code, min_size=1, max_size=40))), sizes)


@settings(deadline=None)
@given(catalogues())
def test_children_are_those_of_a_dictionary_of_prefixes(ids: SemanticIds) -> None:
    trie = Trie.build(ids.leaves, ids.codebook_sizes)
    paths = {tuple(codes) for codes in ids.codes.tolist()}
    prefixes = [sorted({path[:length] for path in paths}) for length in range(ids.num_levels + 1)]
    for level in range(ids.num_levels):
        parents = torch.arange(len(prefixes[level]))
        children = trie.children(level, parents)
        codes = trie.codes(level, children)
        assert len(trie.last_codes[level]) == len(prefixes[level + 1])
        most = 0
        for parent, prefix in enumerate(prefixes[level]):
            expected = [p for p in prefixes[level + 1] if p[:level] == prefix]
            most = max(most, len(expected))
            found = children[parent][children[parent] >= 0].tolist()
            assert [prefixes[level + 1][node] for node in found] == expected
            assert codes[parent, : len(found)].tolist() == [p[level] for p in expected]
            assert children[parent, len(found) :].tolist() == [-1] * (trie.fan_outs[level] - len(found))
        assert trie.fan_outs[level] == most


@settings(deadline=None)
@given(catalogues())
def test_admits_exactly_the_catalogue(ids: SemanticIds) -> None:
    trie = Trie.build(ids.leaves, ids.codebook_sizes)
    paths = torch.tensor(list(product(*map(range, ids.codebook_sizes))))
    nodes = torch.zeros(len(paths), dtype=torch.int64)
    for level in range(ids.num_levels):
        children = trie.children(level, nodes)
        matches = (trie.codes(level, children) == paths[:, level, None]) & (children >= 0)
        nodes = torch.where(matches, children, -1).max(dim=1).values
    admitted = {tuple(path.tolist()): int(node) for path, node in zip(paths, nodes, strict=True) if node >= 0}
    # The last node of a path is its row among the leaves, by which scores find their items.
    assert admitted == {tuple(leaf): row for row, leaf in enumerate(ids.leaves.tolist())}


@settings(deadline=None)
@given(catalogues())
def test_allowed_codes_are_those_of_a_dictionary_of_prefixes(ids: SemanticIds) -> None:
    trie, leaves = Trie.build(ids.leaves, ids.codebook_sizes), ids.leaves.tolist()
    allowed = trie.allowed(torch.arange(len(leaves)), ids.codebook_sizes)
    for level, size in enumerate(ids.codebook_sizes):
        goes_on: dict[tuple[int, ...], set[int]] = {}
        for leaf in leaves:
            goes_on.setdefault(tuple(leaf[:level]), set()).add(leaf[level])
        expected = [[code in goes_on[tuple(leaf[:level])] for code in range(size)] for leaf in leaves]
        assert allowed[level].tolist() == expected


def test_children_of_a_block_of_nodes() -> None:
    trie = Trie.build(np.array([[0, 1], [2, 0], [2, 3]]), (3, 4))
    assert trie.children(0, torch.zeros(1, 1, dtype=torch.int64)).tolist() == [[[0, 1]]]  # codes 0 and 2
    assert trie.children(1, torch.tensor([[1, 0], [0, 0]])).tolist() == [
        [[1, 2], [0, -1]],
        [[0, -1], [0, -1]],
    ]
    assert trie.codes(1, torch.tensor([0, 1, 2])).tolist() == [1, 0, 3]


def test_one_level_of_many_codes() -> None:
    trie = Trie.build(np.arange(5000)[:, None], (5000,))
    assert trie.children(0, torch.zeros(2, 1, dtype=torch.int64)).tolist() == [[list(range(5000))]] * 2


def test_a_node_that_is_missing_has_no_children() -> None:
    trie = Trie.build(np.array([[0, 1], [2, 0], [2, 3]]), (3, 4))
    assert trie.children(1, torch.tensor([-1, 1])).tolist() == [[-1, -1], [1, 2]]


@pytest.mark.parametrize(
    ("size", "kind"), [(256, torch.uint8), (257, torch.int16), (40_000, torch.int32), (2**40, torch.int64)]
)
def test_codes_of_any_size_are_kept_small(size: int, kind: torch.dtype) -> None:
    """Also where the number of possible paths is beyond any integer."""
    last = size - 1
    leaves = np.array([[0, 0, last], [0, last, 0], [last, 0, 0], [last, last, 0], [last, last, last]])
    trie = Trie.build(leaves, (size,) * 3)
    assert [codes.dtype for codes in trie.last_codes] == [kind] * 3
    assert trie.codes(0, torch.tensor([0, 1])).tolist() == [0, last]
    assert trie.children(1, torch.tensor([0, 1])).tolist() == [[0, 1], [2, 3]]
    children = trie.children(2, torch.tensor([0, 1, 2, 3]))
    assert children.tolist() == [[0, -1], [1, -1], [2, -1], [3, 4]]
    assert trie.codes(2, children[children >= 0]).tolist() == [last, 0, 0, 0, last]


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ([[0, 1], [2, 3], [2, 0]], "lexicographic order"),
        ([[2, 0], [0, 1]], "lexicographic order"),
        ([[0, 1], [0, 1], [2, 0]], "distinct"),
        ([[0, 1], [2, 4]], "level 2 holds codes outside 0 … 3"),
        ([[-1, 1], [2, 3]], "level 1 holds codes outside 0 … 2"),
        ([[0, 256]], "level 2 holds codes outside 0 … 3"),
        ([[0, 1, 2]], "do not fit 2 codebook sizes"),
        (np.zeros((0, 2), dtype=np.int64), "do not fit"),
    ],
)
def test_leaves_that_make_no_trie_are_refused(leaves: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trie.build(np.array(leaves), (3, 4))
