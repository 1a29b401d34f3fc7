"""The made-up shop: its habits and its size, and that without signal there is nothing to learn."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2_contingency, chisquare

from recsys.datasets.interactions import interactions_of
from recsys.datasets.synthetic import CORPORA, LEAVES, write_shop
from recsys.datasets.synthetic.queries import NONE, Queries, ask_for
from recsys.datasets.synthetic.shoppers import Shop
from recsys.datasets.synthetic.words import FEATURES, PHRASES, SYLLABLES, names
from recsys.datasets.synthetic.world import ANY, World, make_world

EVERY_WRITER = [
    (corpus, dict(zip(known, values, strict=True)))
    for corpus, (_, known) in CORPORA.items()
    for values in itertools.product(*known.values())
]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(1000, np.random.default_rng(0))


def events_of(world: World, *, signal: float = 1.0, users: int = 2000) -> pl.DataFrame:
    return pl.concat(Shop(world, users, seed=0, signal=signal).events())


def steps(events: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the item of each event except every user's last, and the item after it."""
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    same = user[1:] == user[:-1]
    return item[:-1][same], item[1:][same]


@pytest.mark.parametrize(("corpus", "options"), EVERY_WRITER)
def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, corpus: str, options: dict) -> None:
    def content(name: str, seed: int) -> dict[str, bytes]:
        files = write_shop(tmp_path / name, corpus, users=50, items=100, seed=seed, **options)
        assert sorted((tmp_path / name).iterdir()) == sorted(files.values())  # and nothing unfinished
        return {parameter: path.read_bytes() for parameter, path in files.items()}

    one = content("one", 3)
    assert one == content("two", 3)
    assert all(one[parameter] != other for parameter, other in content("three", 4).items())


def test_options_have_defaults(tmp_path: Path) -> None:
    default = write_shop(tmp_path / "default", "movielens", users=50, items=100)
    explicit = write_shop(tmp_path / "explicit", "movielens", users=50, items=100, release="25m")
    assert {name: path.read_bytes() for name, path in default.items()} == {
        name: path.read_bytes() for name, path in explicit.items()
    }


def test_every_user_takes_five_items_at_least_and_none_twice(world: World) -> None:
    events = events_of(world)
    lengths = events.group_by("user").len()["len"]
    assert len(lengths) == 2000
    assert lengths.min() == 5
    assert lengths.max() <= 40
    assert lengths.mean() == pytest.approx(9, abs=0.3)
    assert not events.select("user", "item").is_duplicated().any()
    assert (events["time"].diff() > 0).filter(events["user"].diff() == 0).all()
    assert (events["time"] % 86_400 == 0).all()


def test_users_do_not_depend_on_their_number(world: World) -> None:
    first, second = itertools.islice(Shop(world, 10**8, seed=0, signal=1.0).events(), 2)
    assert (first["user"].min(), first["user"].max()) == (0, 9_999)
    assert (second["user"].min(), second["user"].max()) == (10_000, 19_999)
    whole_block = events_of(world, users=10_000)
    assert first.equals(whole_block)


def test_a_five_core_keeps_most(world: World) -> None:
    events = events_of(world).select(
        pl.col("user", "item").cast(pl.String).name.suffix("_id"), timestamp="time"
    )
    core = interactions_of(events, k_core=5)
    for kept, before in zip(core[:, :2].iter_columns(), events[:, :2].iter_columns(), strict=True):
        assert kept.n_unique() > 0.9 * before.n_unique()
    assert len(core) > 0.9 * len(events)


def test_popularity_is_skewed(world: World) -> None:
    counts = np.sort(np.bincount(events_of(world)["item"], minlength=1000))[::-1]
    assert counts[:100].sum() > 2 * counts.sum() / 10  # a tenth of the items, over twice its share


def test_habits_tell_the_next_item(world: World) -> None:
    last, following = steps(events_of(world))
    leaf, brand = world.leaf, world.brand
    same_leaf = leaf[last] == leaf[following]
    # 0.35 by habit, 0.15 by brand (a fifth of a brand's items are of the leaf), and some by favourites
    assert same_leaf.mean() == pytest.approx(0.35 + 0.15 / 5 + 0.02, abs=0.03)
    goes_with = leaf[following] == world.follow_up[leaf[last]]
    assert goes_with.mean() == pytest.approx(0.25 + 0.02, abs=0.03)
    same_brand = brand[last] == brand[following]
    assert same_brand[~same_leaf].mean() * (1 - same_leaf.mean()) == pytest.approx(0.15 * 4 / 5, abs=0.04)
    assert sorted(world.follow_up) == list(range(len(LEAVES)))  # each leaf follows one


def test_half_a_signal_is_half_the_habits(world: World) -> None:
    def goes_with(signal: float) -> float:
        last, following = steps(events_of(world, signal=signal))
        return float((world.leaf[following] == world.follow_up[world.leaf[last]]).mean())

    assert goes_with(0.5) == pytest.approx((goes_with(0) + goes_with(1)) / 2, abs=0.015)


@pytest.mark.parametrize(("signal", "learnable"), [(0.0, False), (0.1, True)])
def test_without_signal_there_is_neither_popularity_nor_order(
    world: World, signal: float, learnable: bool
) -> None:
    events = events_of(world, signal=signal, users=10_000)
    last, following = steps(events)
    leaves, halves = np.zeros((40, 40)), np.zeros((2, 40))
    np.add.at(leaves, (world.leaf[last], world.leaf[following]), 1)
    is_late = (events["time"] > events["time"].median()).to_numpy()
    np.add.at(halves, (is_late.astype(int), world.leaf[events["item"]]), 1)
    popularity = chisquare(np.bincount(events["item"], minlength=1000)).pvalue
    order = chi2_contingency(leaves).pvalue
    assert (popularity < 1e-6, order < 1e-6) == (learnable, learnable)
    if not learnable:
        assert min(popularity, order, chi2_contingency(halves).pvalue) > 0.01


def test_shelves_hold_what_they_say(world: World) -> None:
    rng = np.random.default_rng(0)
    assert (world.leaf[world.draw(np.repeat(np.arange(40), 50), rng)] == np.repeat(np.arange(40), 50)).all()
    items = np.arange(1000)
    assert (world.brand[world.draw(world.brand_shelf(items), rng)] == world.brand).all()
    alike = np.bincount(world.draw(np.full(10**5, ANY), rng), minlength=1000)
    popular = np.bincount(world.draw(np.full(10**5, world.whole_shop), rng), minlength=1000)
    assert alike.max() < 150  # 100 on average
    # Zipf's law with exponent 0.7: the most popular item has this share of 1000
    assert popular.max() / 10**5 == pytest.approx(1 / (np.arange(1.0, 1001) ** -0.7).sum(), rel=0.1)


def test_titles_tell_brand_features_and_leaf(world: World) -> None:
    described = world.describe(np.arange(1000))
    assert described["title"].n_unique() == 1000
    for row in described.iter_rows(named=True):
        assert row["title"] == f"{row['brand']} {row['model']} {row['first']} {row['second']} {row['leaf']}"
        assert (row["department"], row["leaf"]) in LEAVES
        assert row["first"] != row["second"]
    assert set(described["leaf"]) == {leaf for _, leaf in LEAVES}
    place = {feature: number // 6 for number, feature in enumerate(FEATURES)}
    assert [place[first] for first in described["first"]] == world.department.tolist()
    assert described["brand"].n_unique() == len(np.unique(world.brand))


def test_names_are_words_of_their_own() -> None:
    assert len(SYLLABLES) == 17
    # digits in base 17, the lowest first, at least two
    assert names(np.array([0, 5, 17, 17**2 + 2])).to_list() == ["Baba", "Haba", "Bace", "Dibace"]
    assert names(np.arange(20_000)).n_unique() == 20_000


def test_queries_are_words_of_an_item_that_matches(world: World) -> None:
    items = np.arange(1000)
    queries = ask_for(world, items, np.random.default_rng(0))
    assert queries.matched_by(world, items[:, None]).all()
    for text, title in zip(
        queries.texts(pl.Series(PHRASES), names), world.describe(items)["title"], strict=True
    ):
        assert set(text.split()) <= set(title.split())
    assert (queries.feature != NONE).mean() == pytest.approx(0.4, abs=0.05)
    assert (queries.brand != NONE).mean() == pytest.approx(0.4, abs=0.05)


def test_a_query_is_spelt_and_matched_word_by_word(world: World) -> None:
    teapots = np.flatnonzero(world.leaf == 0)
    enamel, brand = 0, int(world.brand[teapots[0]])
    queries = Queries(np.array([0, 0, 0]), np.array([NONE, enamel, NONE]), np.array([NONE, NONE, brand]))
    lora = names(np.array([brand]))[0]
    assert queries.texts(pl.Series(PHRASES), names).to_list() == ["Teapot", "Enamel Teapot", f"Teapot {lora}"]
    matches = queries.matched_by(world, np.tile(np.arange(1000), (3, 1)))
    assert np.flatnonzero(matches[0]).tolist() == teapots.tolist()
    titles = world.describe(np.arange(1000))["title"].to_list()
    assert [titles[item] for item in np.flatnonzero(matches[1])] == [
        title for title in titles if title.endswith("Teapot") and "Enamel" in title
    ]
    assert [titles[item] for item in np.flatnonzero(matches[2])] == [
        title for title in titles if title.endswith("Teapot") and title.startswith(lora)
    ]


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_smallest_shop_can_be_written(tmp_path: Path, corpus: str) -> None:
    files = write_shop(tmp_path, corpus, users=1, items=100, signal=0)
    assert all(path.stat().st_size for path in files.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corpus": "netflix"}, "unknown corpus: 'netflix'; there is amazon, esci, jdsearch, movielens"),
        ({"corpus": "amazon", "relase": 2014}, "unknown option of amazon: 'relase'; there is release"),
        ({"corpus": "esci", "release": 2014}, "unknown option of esci: 'release'; there is none"),
        (
            {"corpus": "amazon", "release": 2015},
            "release of amazon must be one of 2014, 2018, 2023, not 2015",
        ),
        ({"corpus": "table", "users": 0}, "a shop needs at least 1 user and 100 items, not 0 and 1000"),
        ({"corpus": "table", "items": 99}, "a shop needs at least 1 user and 100 items, not 2000 and 99"),
        ({"corpus": "table", "signal": 1.5}, "signal must be from 0 to 1, not 1.5"),
        ({"corpus": "table", "signal": float("nan")}, "signal must be from 0 to 1, not nan"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_shop(tmp_path / "shop", **arguments)
    assert not (tmp_path / "shop").exists()
