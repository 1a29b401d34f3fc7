"""The targets of fuzzing: every reader, with small valid files of every release and format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from recsys.datasets.formats.lines import open_unpacked
from recsys.datasets.published_codes import read_codes
from recsys.datasets.readers import READERS
from recsys.datasets.synthetic import CORPORA, write_shop

Files = dict[str, Path]

ITEMS = ("a", "b", "c")
"""Items whose codes are read."""


@dataclass(frozen=True)
class Target:
    """A reader and valid files of one format.

    Attributes:
        name: Name of the format, and of the folder of its files.
        reader: Name of the reader for users.
        read: The reader, called with the files and one set of options.
        files: Valid files, not compressed, by parameter.
        options: Sets of options, of which each round draws one.
    """

    name: str
    reader: str
    read: Callable[..., Any]
    files: Files
    options: tuple[Mapping[str, Any], ...]


def make_targets(folder: Path) -> list[Target]:
    """Write the files of all targets, with the same bytes in every call."""
    targets = [target for corpus in CORPORA for target in _shops(folder, corpus)]
    by_name = {target.name: target for target in targets}
    return [
        *targets,
        *(_ratings(folder, by_name[f"amazon-{release}"]) for release in (2014, 2018, 2023)),
        _esci_csv(folder, by_name["esci"]),
        *(_table(folder, by_name["table"], ending) for ending in ("csv", "tsv", "jsonl")),
        *(_codes(folder, ending) for ending in ("parquet", "csv", "json", "jsonl")),
    ]


def _shops(folder: Path, corpus: str) -> list[Target]:
    """Return a target for each format of a corpus, with files of the made-up shop."""
    choices = [{name: value} for name, values in CORPORA[corpus][1].items() for value in values] or [{}]
    targets = []
    for choice in choices:
        name = "-".join([corpus, *map(str, choice.values())])
        files = write_shop(folder / name, corpus, users=60 if corpus == "esci" else 30, items=100, **choice)
        options = tuple(options | (choice if corpus == "amazon" else {}) for options in OPTIONS[corpus])
        files = {parameter: _unpacked(path) for parameter, path in files.items()}
        targets.append(Target(name, corpus, READERS.load(corpus), files, options))
    return targets


SKIP = ({"skip_bad_lines": True}, {"skip_bad_lines": False})
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "amazon": tuple({"k_core": 1} | skip for skip in SKIP),
    "esci": ({}, {"catalogue": "locale", "version": "large"}),
    "jdsearch": (*SKIP, {"catalogue": "described", "skip_bad_lines": True}),
    "movielens": tuple({"k_core": 1} | skip for skip in SKIP),
    "sequences": SKIP,
    "table": ({"k_core": 1},),
}


def _unpacked(path: Path) -> Path:
    """Replace a gzip file by its content, and return the new path."""
    if path.suffix != ".gz":
        return path
    with open_unpacked(path) as content:
        path.with_suffix("").write_bytes(content.read())
    path.unlink()
    return path.with_suffix("")


def _ratings(folder: Path, target: Target) -> Target:
    """Return the target of the CSV file with ratings only, of the same Amazon release."""
    release = target.options[0]["release"]
    columns = {
        2014: ["reviewerID", "asin", "overall", "unixReviewTime"],
        2018: ["asin", "reviewerID", "overall", "unixReviewTime"],
        2023: ["user_id", "parent_asin", "rating", "timestamp"],
    }[release]
    path = _new(folder, f"amazon-{release}-ratings") / "ratings.csv"
    pl.read_ndjson(target.files["reviews"]).select(columns).write_csv(path, include_header=release == 2023)
    return Target(path.parent.name, "amazon", target.read, target.files | {"reviews": path}, target.options)


def _esci_csv(folder: Path, target: Target) -> Target:
    path = _new(folder, "esci-csv") / "examples.csv"
    pl.read_parquet(target.files["examples"]).write_csv(path)
    return Target(path.parent.name, "esci", target.read, target.files | {"examples": path}, target.options)


def _table(folder: Path, target: Target, ending: str) -> Target:
    name = f"table-{ending}"
    files = {parameter: _new(folder, name) / f"{parameter}.{ending}" for parameter in target.files}
    for parameter, path in files.items():
        frame = pl.read_parquet(target.files[parameter])
        if ending == "jsonl":
            frame.write_ndjson(path)
        else:
            lists = pl.col(pl.List(pl.String)).list.join("|")
            frame.with_columns(lists).write_csv(path, separator="," if ending == "csv" else "\t")
    return Target(name, "table", target.read, files, target.options)


def _codes(folder: Path, ending: str) -> Target:
    path = _new(folder, f"codes-{ending}") / f"codes.{ending}"
    codes = {
        item: [index, 2, 0] for index, item in enumerate([*ITEMS, *(f"i{other}" for other in range(30))])
    }
    frame = pl.DataFrame({"item_id": list(codes), "codes": list(codes.values())})
    options: tuple[dict[str, Any], ...] = ({}, {"levels": 2}, {"codebook_size": 100})
    if ending == "parquet":
        frame.write_parquet(path)
    elif ending == "csv":
        frame.select("item_id", codes=pl.col("codes").list.first()).write_csv(path)
        options = ({},)
    elif ending == "json":
        path.write_text(json.dumps(codes, indent=1))
    else:
        path.write_text("".join(json.dumps({item: own}) + "\n" for item, own in codes.items()))
    return Target(path.parent.name, "codes", partial(read_codes, item_ids=ITEMS), {"path": path}, options)


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    return folder / name
