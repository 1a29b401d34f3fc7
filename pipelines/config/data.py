"""The section ``data`` of a benchmark file: which reader, which files, and how to read them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from pipelines.config.base import Section, checked_arguments, parameter_types
from pipelines.config.fields import UserPath
from pipelines.paths import user_path
from recsys.cuts import SplitKind, SplitRule
from recsys.datasets.readers import READERS, is_search

Ties = Literal["file", "shuffle", "last_together"]
"""What may become of events of a user at the same time."""


class ShopConfig(Section):
    """A made-up shop in place of a corpus' own files, written in the format of their owner.

    Attributes:
        users: Number of users before anything is filtered.
        items: Number of items before anything is filtered.
        seed: Seed of everything that is made up.
        signal: Share of what shoppers do that follows their habits; the rest is random.
    """

    users: int = Field(2000, ge=10, le=10**7)
    items: int = Field(1000, ge=100, le=10**7)
    seed: int = Field(0, ge=0, lt=2**32)
    signal: float = Field(1.0, ge=0, le=1)


class SplitConfig(Section):
    """How sequences are split; the name of a rule alone is a short form of it.

    Attributes:
        kind: The rule, see :class:`~recsys.cuts.SplitRule`.
        test: Share of the events that are held out for the test.
        valid: Share of the events before these that are held out for validation.
        first: Number of each user's events after the cut that are asked for.
    """

    kind: SplitKind = "leave-one-out"
    test: float = 0.1
    valid: float = 0.1
    first: Annotated[int, Field(strict=True)] = 1

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        if not isinstance(values, str | dict):
            raise ValueError(f"name a split, {', '.join(get_args(SplitKind))}, or give its keys, kind first")
        return {"kind": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _keys_that_the_rule_has(self) -> Self:
        used = {"leave-one-out": set(), "ratio": {"test", "valid"}}.get(self.kind, {"test", "valid", "first"})
        for key in sorted(self.model_fields_set - {"kind"} - used):
            raise ValueError(f"split {self.kind} has no {key}; leave it out")
        self.rule()
        return self

    def rule(self, *, together: bool = False) -> SplitRule:
        """Return the rule; raise a ValueError if its numbers are out of range."""
        return SplitRule(**self.model_dump(), together=together)


class DataConfig(Section):
    """The corpus: the files of a folder, or a made-up shop.

    All other keys of the section belong to the reader: its files, by their names in the folder, and its
    options.

    Attributes:
        reader: A name in :data:`recsys.datasets.readers.READERS`, or ``module:function``.
        raw: Folder of the files.
        shop: A made-up shop in place of files.
        split: How sequences are split into training, validation and test. A search corpus has a split of its
            own.
        ties: What becomes of events of a user at the same time. ``file`` keeps the order of the file,
            ``shuffle`` takes a random order, and ``last_together`` holds all of them out together or none.
        ties_seed: Seed of the random order.
        files: Parameter of the reader to the name of the file.
        options: All other parameters of the reader.
    """

    reader: str
    raw: UserPath | None = None
    shop: ShopConfig | None = None
    split: SplitConfig = SplitConfig()
    ties: Ties = "file"
    ties_seed: int = Field(0, strict=True, ge=0, lt=2**32)
    files: dict[str, str] = Field({})
    options: dict[str, Any] = Field({})

    @model_validator(mode="before")
    @classmethod
    def _sort_by_signature(cls, values: Any) -> Any:
        """Sort the flat keys of the file into files and options, by the reader's signature."""
        if not isinstance(values, dict):
            return values
        name = values.get("reader")
        if not isinstance(name, str):
            raise ValueError(f"give a reader: {', '.join(READERS.names())}, or module:function of your own")
        read = READERS.load(name)
        general = [key for key in cls.model_fields if key not in ("files", "options")]
        for key in set(general) & set(inspect.signature(read).parameters):
            raise ValueError(
                f"reader {name!r} has a parameter {key!r}, a key of every section data; rename it"
            )
        own = {key: value for key, value in values.items() if key not in general}
        checked = checked_arguments(f"reader {name!r}", read, own)
        files = _file_parameters(name, read)
        known = {
            key: checked.get(key, parameter.default)
            for key, parameter in inspect.signature(read).parameters.items()
            if key in checked or parameter.default is not parameter.empty
        }
        return {
            **{key: values[key] for key in general if key in values},
            "files": {key: str(user_path(value)) for key, value in known.items() if key in files and value},
            "options": {key: value for key, value in known.items() if key not in files},
        }

    @model_validator(mode="after")
    def _has_files_or_a_shop(self) -> Self:
        if self.raw is None and self.shop is None:
            raise ValueError("give raw, the folder of the files, or shop, for a made-up one")
        if self.raw and self.shop:
            whole = f"--set 'data={{reader: {self.reader}, shop: {{}}}}'"
            raise ValueError(f"give either raw or shop, not both; {whole} makes a shop of it")
        if self.shop and self.reader not in READERS.builtin:
            raise ValueError(f"no shop can be made up for reader {self.reader!r}; give raw")
        if self.shop and self.files:
            raise ValueError(f"a made-up shop has files of its own; leave out {', '.join(self.files)}")
        needed = _file_parameters(self.reader, READERS.load(self.reader))
        lacking = [name for name in needed if needed[name] and name not in self.files]
        if self.raw and lacking:
            raise ValueError(
                f"reader {self.reader!r} needs the name of its file {lacking[0]!r} in {self.raw}"
            )
        return self

    @model_validator(mode="after")
    def _search_has_a_split(self) -> Self:
        if self.is_search and self.split != SplitConfig():
            raise ValueError(
                f"the queries of {self.reader} data are split already; leave out split: {self.split.kind}"
            )
        if self.is_search and self.ties != "file":
            raise ValueError(
                f"the queries of {self.reader} data say what comes before them; leave out ties: {self.ties}"
            )
        return self

    @model_validator(mode="after")
    def _seed_is_used(self) -> Self:
        if self.ties_seed and self.ties != "shuffle":
            raise ValueError(f"ties_seed is only used by ties: shuffle, not {self.ties}; leave it out")
        return self

    @property
    def is_search(self) -> bool:
        """Whether queries are to be answered; if not, the next item is to be predicted."""
        return is_search(READERS.load(self.reader))


def _file_parameters(name: str, read: Callable[..., Any]) -> dict[str, bool]:
    """Return the parameters of a reader that take a file, and whether each must be given.

    Raises:
        ValueError: If a parameter is of a kind that a benchmark file cannot give.
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
