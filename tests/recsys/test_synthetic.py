import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from recsys.datasets.amazon import read_amazon2014
from recsys.datasets.corpus import Corpus
from recsys.datasets.synthetic import LEAVES, write_shop
from recsys.splits import leave_one_out, sequences_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def corpus(files: tuple[Path, Path]) -> Corpus:
    return read_amazon2014(*files, k_core=1)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> list[bytes]:
        return [path.read_bytes() for path in write_shop(tmp_path / name, users=50, items=100, seed=seed)]

    assert content("one", 3) == content("two", 3)
    assert all(a != b for a, b in zip(content("one", 3), content("three", 4), strict=True))
    assert sorted(file.name for file in (tmp_path / "one").iterdir()) == [
        "meta_Shop.json.gz",
        "reviews_Shop_5.json.gz",
    ]


def test_reviews_have_the_fields_of_the_release(files: tuple[Path, Path]) -> None:
    with gzip.open(files[0], "rt") as lines:
        review = json.loads(next(lines))
    assert list(review) == [
        "reviewerID",
        "asin",
        "reviewerName",
        "helpful",
        "reviewText",
        "overall",
        "summary",
        "unixReviewTime",
        "reviewTime",
    ]
    assert review["unixReviewTime"] % 86400 == 0  # days, in UTC


def test_every_user_has_five_items_at_least(corpus: Corpus) -> None:
    lengths = sequences_of(corpus).items.lengths
    assert len(lengths) == 2000
    assert lengths.min() == 5
    assert lengths.max() <= 40


def test_no_user_takes_an_item_twice(files: tuple[Path, Path], corpus: Corpus) -> None:
    with gzip.open(files[0], "rt") as lines:
        assert len(list(lines)) == len(corpus.interactions)  # the reader drops repeats


def test_a_five_core_keeps_most(files: tuple[Path, Path], corpus: Corpus) -> None:
    core = read_amazon2014(*files)
    for count in ("users", "items", "interactions"):
        assert core.statistics()[count] > 0.9 * corpus.statistics()[count]


def test_items_are_described_and_popularity_is_skewed(corpus: Corpus) -> None:
    assert corpus.items.filter((corpus.items["title"] == "") | (corpus.items["brand"] == "")).is_empty()
    assert corpus.items["title"].n_unique() == len(corpus.items)
    assert {tuple(path[1:]) for path in corpus.items["categories"]} == set(LEAVES)
    counts = np.sort(corpus.interactions["item_id"].value_counts()["count"].to_numpy())[::-1]
    assert counts[:100].sum() > 2 * counts.sum() / 10  # a tenth of the items, over twice its share


def test_order_and_content_tell_the_next_item(corpus: Corpus) -> None:
    train = leave_one_out(sequences_of(corpus)).train
    leaf = np.array([path[-1] for path in corpus.items["categories"]])
    brand = corpus.items["brand"].to_numpy()
    target = train.targets.flat()
    last, first = train.history.last(1).flat(), train.history.values[train.history.starts]
    long = train.history.lengths > 1
    shares_leaf = leaf[last] == leaf[target]
    chance = np.mean(leaf[np.random.default_rng(0).permutation(last)] == leaf[target])
    assert shares_leaf.mean() > 5 * chance
    assert shares_leaf[long].mean() > 1.5 * (leaf[first] == leaf[target])[long].mean()
    by_chance = np.mean(brand[np.random.default_rng(0).permutation(last)] == brand[target])
    assert (brand[last] == brand[target])[~shares_leaf].mean() > 3 * by_chance


def test_each_leaf_has_one_leaf_that_goes_with_it(corpus: Corpus) -> None:
    train = leave_one_out(sequences_of(corpus)).train
    names, leaf = np.unique([path[-1] for path in corpus.items["categories"]], return_inverse=True)
    steps = np.zeros((len(names), len(names)))
    np.add.at(steps, (leaf[train.history.last(1).flat()], leaf[train.targets.flat()]), 1)
    np.fill_diagonal(steps, 0)
    follow_up = steps.argmax(axis=1)
    assert sorted(follow_up) == list(range(len(names)))  # one ring: each leaf follows one
    assert (steps.max(axis=1) > 0.25 * steps.sum(axis=1)).all()


@pytest.mark.parametrize(("users", "items"), [(0, 1000), (10, 99)])
def test_a_shop_too_small_is_refused(tmp_path: Path, users: int, items: int) -> None:
    with pytest.raises(ValueError, match="a shop needs"):
        write_shop(tmp_path, users=users, items=items)


def test_the_smallest_shop_can_be_written(tmp_path: Path) -> None:
    corpus = read_amazon2014(*write_shop(tmp_path, users=1, items=100), k_core=1)
    assert corpus.statistics()["users"] == 1
