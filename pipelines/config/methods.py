"""The sections ``text``, ``tokenizers`` and ``retrievers``: the methods that a benchmark compares."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipelines.config.base import Section, checked_arguments
from pipelines.config.fields import UserPath, check_name
from pipelines.paths import user_path
from recsys.retrievers.base import Retriever
from recsys.retrievers.registry import RETRIEVERS
from recsys.texts.embedding import find_encoder
from semantic_ids.choices import check_arguments
from semantic_ids.collisions import Collisions
from semantic_ids.registry import create, recipe
from semantic_ids.tokenizer import Tokenizer


class TextConfig(Section):
    """How texts of items and queries become vectors.

    Attributes:
        encoder: ``lsa``, ``minilm``, a name or path of sentence-transformers, or ``module:Class``.
        dimensions: Width of the vectors, for encoders that have this parameter, such as ``lsa``.
        params: Other constructor arguments of the encoder.
    """

    encoder: str = Field(default="lsa", pattern=r"^\S(.*\S)?$")
    dimensions: int = Field(default=256, ge=1, le=2**16)
    params: dict[str, Any] = Field(default={})

    @field_validator("encoder")
    @classmethod
    def _expanded(cls, encoder: str) -> str:
        return str(user_path(encoder)) if encoder.startswith("~") else encoder

    @model_validator(mode="after")
    def _arguments_fit(self) -> Self:
        self.arguments()
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments of the encoder, checked.

        Raises:
            ValueError: If the encoder cannot be imported or an argument does not fit.
        """
        construct = find_encoder(self.encoder)
        kind = construct.func if isinstance(construct, partial) else construct
        known = inspect.signature(construct).parameters
        shared = {"dimensions": self.dimensions} if "dimensions" in known else {}
        return checked_arguments(f"text encoder {self.encoder!r}", kind, {**shared, **self.params})


ColumnName = Annotated[str, Field(min_length=1)]


class CodesConfig(Section):
    """A table of codes that others published; its path alone is enough.

    Attributes:
        file: Path of the table.
        key: Column of item ids, see :func:`recsys.datasets.published_codes.read_codes`.
        column: Column of codes, or one column per level.
        levels: Number of levels to keep; all if not given.
        codebook_size: Number of codes per level, if it is known.
    """

    file: UserPath
    key: str = Field("item_id", min_length=1)
    column: ColumnName | tuple[ColumnName, ...] = "codes"
    levels: int | None = Field(None, ge=1)
    codebook_size: int | None = Field(None, ge=1, le=2**24)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @field_validator("column")
    @classmethod
    def _distinct_columns(cls, column: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not column or (isinstance(column, tuple) and len({*column}) < len(column)):
            raise ValueError("name one column for each level, each once")
        return column

    @field_validator("file")
    @classmethod
    def _known_format(cls, file: Path) -> Path:
        from recsys.datasets.published_codes import check_format  # noqa: PLC0415 — imports polars

        check_format(file)
        return file


class TokenizerConfig(Section):
    """One tokenizer of the comparison: a recipe, whose name alone is enough, or a table of codes.

    Attributes:
        recipe: A name that ``gritrec tokenizers`` lists, or ``module:Class``.
        codes: A table of codes in place of a recipe; it is the same for all seeds.
        name: Name in tables; by default that of the recipe, the class or the file.
        params: Overrides of the recipe's parameters.
        collisions: Overrides the benchmark's ``collisions`` for this tokenizer.
    """

    recipe: str = ""
    codes: CodesConfig | None = None
    name: str = ""
    params: dict[str, Any] = Field(default={})
    collisions: Collisions | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"recipe": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if bool(self.recipe) == bool(self.codes):
            raise ValueError("a tokenizer is either a recipe or a file of codes; give one of the two")
        if self.codes:
            if self.params:
                raise ValueError("params are those of a recipe; codes take none")
            name = self.codes.file.stem
        else:
            check_arguments(f"tokenizer {self.recipe!r}", recipe(self.recipe).tokenizer, self.params)
            name = self.recipe.rpartition(":")[2]
        return self.model_copy(update={"name": check_name(self.name or name)})

    def create(self, shared: Mapping[str, Any]) -> Tokenizer:
        """Return the unfitted tokenizer: its recipe, then ``shared`` as far as it applies, then ``params``.

        Args:
            shared: Parameters for all tokenizers that have them.
        """
        chosen = recipe(self.recipe)
        known = {key: value for key, value in shared.items() if key in chosen.parameters()}
        return create(
            self.recipe,
            **checked_arguments(f"tokenizer {self.name!r}", chosen.tokenizer, {**known, **self.params}),
        )


class RetrieverConfig(Section):
    """One retriever of the comparison; the name of its kind alone is enough.

    Attributes:
        kind: A name that ``gritrec retrievers`` lists, or ``module:Class``.
        name: Name in tables; by default that of the kind or the class.
        params: Constructor arguments.
        members: Names of the retrievers that an ensemble combines; they are listed above it.
        times: How many fits of each member an ensemble combines, on the same semantic IDs. The first has the
            benchmark's seed s, the j-th one the seed s + 1000 (j - 1).
    """

    kind: str
    name: str = ""
    params: dict[str, Any] = Field(default={})
    members: tuple[str, ...] = ()
    times: int = Field(1, ge=1, le=1000)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _usable(self) -> Self:
        self.create().params()  # what cannot be constructed or saved is an error here, not after the fit
        if self.type.takes_members:
            if not self.members:
                raise ValueError(
                    f"{self.kind} needs members: names of retrievers above it, as [tiger, knn-sum]"
                )
            if "exclude_seen" in self.params:
                raise ValueError(
                    f"{self.kind} takes exclude_seen from the evaluation; leave it out of its params"
                )
        elif self.members:
            raise ValueError(f"a retriever of kind {self.kind!r} has no members; an ensemble has")
        elif self.times > 1:
            raise ValueError(
                f"a retriever of kind {self.kind!r} is fitted once; name it in an ensemble with times"
            )
        return self.model_copy(update={"name": check_name(self.name or self.kind.rpartition(":")[2])})

    @property
    def type(self) -> type[Retriever]:
        """The class."""
        return RETRIEVERS.load(self.kind)

    def create(self) -> Retriever:
        """Return the unfitted retriever."""
        return self.type(**checked_arguments(f"retriever {self.kind!r}", self.type, self.params))
