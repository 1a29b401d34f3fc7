from __future__ import annotations

from itertools import product

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.trie import Trie
from semantic_ids.ids import SemanticIds


@st.composite
def catalogues(draw: st.DrawFn) -> SemanticIds:
    sizes = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    code = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return SemanticIds(np.array(draw(st.lists(code, min_size=1, max_size=40))), sizes)


@given(catalogues())
def test_children_are_those_of_a_dictionary_of_prefixes(ids: SemanticIds) -> None:
    trie = Trie.build(ids.codes, ids.codebook_sizes)
    paths = {tuple(codes) for codes in ids.codes.tolist()}
    prefixes = [sorted({path[:length] for path in paths}) for length in range(ids.num_levels + 1)]
    for level in range(ids.num_levels):
        parents = torch.arange(len(prefixes[level]))
        children = trie.children(level, parents)
        codes = trie.codes(level, children)
        assert len(trie.keys[level]) == len(prefixes[level + 1])
        most = 0
        for parent, prefix in enumerate(prefixes[level]):
            expected = [p for p in prefixes[level + 1] if p[:level] == prefix]
            most = max(most, len(expected))
            found = children[parent][children[parent] >= 0].tolist()
            assert [prefixes[level + 1][node] for node in found] == expected
            assert codes[parent, : len(found)].tolist() == [p[level] for p in expected]
            assert children[parent, len(found) :].tolist() == [-1] * (trie.fan_outs[level] - len(found))
        assert trie.fan_outs[level] == most


@given(catalogues())
def test_admits_exactly_the_catalogue(ids: SemanticIds) -> None:
    trie = Trie.build(ids.codes, ids.codebook_sizes)
    admitted = {}
    for path in product(*map(range, ids.codebook_sizes)):
        node = torch.tensor(0)
        for level, code in enumerate(path):
            children = trie.children(level, node)
            there = (trie.codes(level, children) == code) & (children >= 0)
            if not there.any():
                break
            node = children[there].squeeze()
        else:
            admitted[path] = int(node)
    # The last node of a path is its row among the leaves, by which scores find their items.
    assert admitted == {tuple(leaf): row for row, leaf in enumerate(ids.leaves.tolist())}


def test_children_of_a_block_of_nodes() -> None:
    trie = Trie.build(np.array([[2, 0], [0, 1], [2, 3], [0, 1]]), (3, 4))
    assert trie.children(0, torch.zeros(1, 1, dtype=torch.int64)).tolist() == [[[0, 1]]]  # codes 0 and 2
    assert trie.children(1, torch.tensor([[1, 0], [0, 0]])).tolist() == [
        [[1, 2], [0, -1]],
        [[0, -1], [0, -1]],
    ]
    assert trie.codes(1, torch.tensor([0, 1, 2])).tolist() == [1, 0, 3]


def test_one_level_of_many_codes() -> None:
    trie = Trie.build(np.arange(5000)[::-1, None], (5000,))
    assert trie.children(0, torch.zeros(2, 1, dtype=torch.int64)).tolist() == [[list(range(5000))]] * 2
