"""What a benchmark file may say of its corpus: which reader, where the files are, and how to read them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Self, get_type_hints

from pydantic import Field, model_validator

from pipelines.section import Section, checked_arguments
from recsys.datasets.readers import SEARCH, reader


class ShopConfig(Section):
    """A made-up shop in place of a corpus' own files, written as its owner publishes it.

    Attributes:
        users, items: how many are made up, before anything is filtered.
        seed: of the world behind them.
        signal: which share of what shoppers do follows its habits; the rest is by chance.
    """

    users: int = Field(2000, ge=10)
    items: int = Field(1000, ge=100)
    seed: int = 0
    signal: float = Field(1.0, ge=0, le=1)


class DataConfig(Section):
    """The corpus: the files of a folder, or a made-up shop.

    All other keys are the reader's own: its files, by their names in the folder, and its options.

    Attributes:
        reader: a name of :data:`recsys.datasets.readers.READERS`.
        raw: the folder that holds the files.
        shop: in place of files.
        files: parameter of the reader → name of the file.
        options: all others of its parameters.
    """

    reader: str
    raw: Path | None = None
    shop: ShopConfig | None = None
    files: dict[str, str] = Field({})
    options: dict[str, Any] = Field({})

    @model_validator(mode="before")
    @classmethod
    def _sorted_by_the_reader(cls, values: Any) -> Any:
        """Everything flat, as it stands in the file → files and options."""
        if not isinstance(values, dict) or not isinstance(values.get("reader"), str):
            return values
        read = reader(values["reader"])
        own = {key: value for key, value in values.items() if key not in ("reader", "raw", "shop")}
        what = f"reader {values['reader']!r}"
        checked = checked_arguments(what, read, own)
        names = _file_parameters(read)
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(read).parameters.items()
            if name not in names and parameter.default is not parameter.empty
        }
        return {
            **{key: values[key] for key in ("reader", "raw", "shop") if key in values},
            "files": {name: str(checked[name]) for name in names if checked.get(name)},
            "options": {**defaults, **{key: checked[key] for key in checked if key not in names}},
        }

    @model_validator(mode="after")
    def _has_files_or_a_shop(self) -> Self:
        if (self.raw is None) == (self.shop is None):
            raise ValueError("give either raw, the folder of the files, or shop, for a made-up one")
        if self.shop and self.files:
            raise ValueError(f"a made-up shop has files of its own; leave out {', '.join(self.files)}")
        parameters = _file_parameters(reader(self.reader))
        lacking = [name for name, needed in parameters.items() if needed and name not in self.files]
        if self.raw and lacking:
            raise ValueError(
                f"reader {self.reader!r} needs the name of its file {lacking[0]!r} in {self.raw}"
            )
        return self

    @property
    def is_search(self) -> bool:
        """Whether queries are to be answered; else the next item is asked for."""
        return self.reader in SEARCH


def _file_parameters(read: Any) -> dict[str, bool]:
    """Those of a reader that take a file, and whether it must be given."""
    hints = get_type_hints(read)
    return {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(read).parameters.items()
        if hints[name] in (Path, Path | None)
    }
