from pathlib import Path

import polars as pl

from recsys.datasets.corpus import ITEMS
from recsys.texts.item_texts import NO_TEXT, item_texts, read_texts, write_texts


def test_item_texts_join_what_is_known() -> None:
    items = pl.DataFrame(
        [
            ("a", "Soap", "Dove", ["Beauty", "Bath"], ""),
            ("b", "Rope", "", [], "Holds 100 kg; 5 m."),
            ("c", "", "", ["Sports"], ""),
            ("d", "", "", [], "Red."),
            ("e", "Tent", "Vango", ["Sports", "Camping"], "For two."),
            ("f", "", "", [], ""),
        ],
        schema=ITEMS,
        orient="row",
    )
    assert item_texts(items) == [
        "Title: Soap; Brand: Dove; Categories: Beauty > Bath",
        "Title: Rope; Description: Holds 100 kg; 5 m.",
        "Categories: Sports",
        "Description: Red.",
        "Title: Tent; Brand: Vango; Categories: Sports > Camping; Description: For two.",
        NO_TEXT,
    ]


def test_texts_come_back_as_they_were_written(tmp_path: Path) -> None:
    texts = ["soap", "", "two\nlines", "größer", "7\x188"]
    write_texts(texts, tmp_path / "texts.parquet")
    assert read_texts(tmp_path / "texts.parquet") == texts
