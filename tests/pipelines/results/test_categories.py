from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from pipelines.config.data import DataConfig
from pipelines.results.categories import CodeCategories, read_categories
from pipelines.run import stages
from recsys.datasets.corpus import EVENTS, ITEMS, Corpus
from recsys.datasets.interactions import interactions_of
from recsys.datasets.synthetic import DEPARTMENTS


def test_an_item_s_category_is_that_below_the_root() -> None:
    paths = [["Beauty", "Makeup", "Lips"], ["Beauty"], [], ["Beauty", ""], ["Beauty", "Hair"]]
    items = pl.DataFrame(
        [(f"B{number}", "", "", path, "") for number, path in enumerate(paths)], schema=ITEMS, orient="row"
    )
    nobody = interactions_of(pl.DataFrame(schema=EVENTS), item_ids=items["item_id"])
    assert Corpus(items, nobody, category_level=1).top_categories() == ["Makeup", None, None, None, "Hair"]
    broadest = ["Beauty", "Beauty", None, "Beauty", "Beauty"]
    assert Corpus(items, nobody, category_level=0).top_categories() == broadest


def test_the_shop_s_categories_are_its_departments(tmp_path: Path) -> None:
    data = DataConfig.model_validate({"reader": "amazon", "k_core": 1, "shop": {"users": 50, "items": 100}})
    stages.ingest(Path(), data.model_dump(), {}, tmp_path)
    names, of_item = read_categories(tmp_path)
    items = pl.read_parquet(tmp_path / "items.parquet")
    assert set(names) == set(DEPARTMENTS)
    assert [names[place] for place in of_item] == [path[1] for path in items["categories"]]
    counts = np.bincount(of_item)
    assert (np.diff(counts) <= 0).all()  # that of the most items first


def test_items_without_a_category_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "categories.json").write_text(json.dumps(["b", None, "c", "b", "a"]))
    names, of_item = read_categories(tmp_path)
    assert names == ["b", "a", "c"]
    assert of_item.tolist() == [0, -1, 2, 0, 1]
    (tmp_path / "categories.json").write_text(json.dumps([None, None]))
    assert read_categories(tmp_path)[0] == []
    assert read_categories(tmp_path)[1].tolist() == [-1, -1]


def test_categories_are_counted_for_each_code_of_several_items(tmp_path: Path) -> None:
    codes = np.array([7, 7, 3, 3, 3, 5, 3, 9])
    categories = np.array([0, 1, 0, 0, 1, 0, -1, -1])
    found = CodeCategories.of(codes, categories, ["Tea", "Cake"])
    assert found == CodeCategories(["Tea", "Cake"], codes=[3, 7], counts=[[2, 1], [1, 1]])
    found.write(tmp_path / "found.json")
    assert CodeCategories.read(tmp_path / "found.json") == found


def test_the_codes_of_the_most_items_are_kept() -> None:
    codes = np.repeat(np.arange(300), np.arange(300))  # code c has c items
    found = CodeCategories.of(codes, np.zeros(len(codes), dtype=np.int64), ["Tea"])
    assert found.codes == list(range(299, 43, -1))
    assert found.counts == [[code] for code in found.codes]
