"""What a benchmark file may say of its corpus: which reader, where the files are, and how to read them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from pipelines.config.base import Section, checked_arguments, parameter_types
from recsys.datasets.readers import READERS, SEARCH, reader


class ShopConfig(Section):
    """A made-up shop in place of a corpus' own files, written as its owner publishes it.

    Attributes:
        users, items: how many are made up, before anything is filtered.
        seed: of the world behind them.
        signal: which share of what shoppers do follows its habits; the rest is by chance.
    """

    users: int = Field(2000, ge=10)
    items: int = Field(1000, ge=100)
    seed: int = Field(0, ge=0)
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
        if not isinstance(values, dict):
            return values
        if not isinstance(values.get("reader"), str):
            raise ValueError(f"give a reader: {', '.join(READERS)}, or module:function of your own")
        read = reader(values["reader"])
        own = {key: value for key, value in values.items() if key not in ("reader", "raw", "shop")}
        checked = checked_arguments(f"reader {values['reader']!r}", read, own)
        files = _file_parameters(values["reader"], read)
        parameters = inspect.signature(read).parameters
        known = {
            name: checked.get(name, parameter.default)
            for name, parameter in parameters.items()
            if name in checked or parameter.default is not parameter.empty
        }
        return {
            **{key: values[key] for key in ("reader", "raw", "shop") if key in values},
            "files": {name: str(value) for name, value in known.items() if name in files and value},
            "options": {name: value for name, value in known.items() if name not in files},
        }

    @model_validator(mode="after")
    def _has_files_or_a_shop(self) -> Self:
        if self.raw is None and self.shop is None:
            raise ValueError("give raw, the folder of the files, or shop, for a made-up one")
        if self.raw and self.shop:
            whole = f"--set 'data={{reader: {self.reader}, shop: {{}}}}'"
            raise ValueError(f"give either raw or shop, not both; {whole} makes a shop of it")
        if self.shop and self.reader not in READERS:
            raise ValueError(f"no shop can be made up for reader {self.reader!r}; give raw")
        if self.shop and self.files:
            raise ValueError(f"a made-up shop has files of its own; leave out {', '.join(self.files)}")
        needed = _file_parameters(self.reader, reader(self.reader))
        lacking = [name for name in needed if needed[name] and name not in self.files]
        if self.raw and lacking:
            raise ValueError(
                f"reader {self.reader!r} needs the name of its file {lacking[0]!r} in {self.raw}"
            )
        return self

    @property
    def is_search(self) -> bool:
        """Whether queries are to be answered; else the next item is asked for."""
        return self.reader in SEARCH


def _file_parameters(name: str, read: Callable[..., Any]) -> dict[str, bool]:
    """Those of a reader that take a file, and whether it must be given.

    Raises:
        ValueError: a parameter is of a kind that a benchmark file cannot give.
    """
    kinds = parameter_types(read)
    files = {}
    for parameter in inspect.signature(read).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"reader {name!r} must name its parameters: it has {parameter}")
        kind = kinds.get(parameter.name)
        if kind in (Path, Path | None):
            files[parameter.name] = parameter.default is parameter.empty
        elif "Path" in str(kind):
            raise ValueError(
                f"reader {name!r} must take its files as Path or Path | None, each by itself: "
                f"{parameter.name} is {kind}"
            )
    return files
