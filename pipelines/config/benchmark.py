"""What a benchmark file may say; a wrong word is an error that names the nearest right one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.config.base import Section, checked_arguments
from pipelines.config.data import DataConfig
from pipelines.results.summary import NO_RETRIEVER, NO_TOKENIZER
from recsys.retrievers.base import Retriever
from recsys.retrievers.ensemble import Fused
from recsys.retrievers.registry import RETRIEVERS
from recsys.training.loop import Training
from semantic_ids.choices import check_arguments, nearest_name
from semantic_ids.collisions import Collisions
from semantic_ids.registry import create, recipe
from semantic_ids.tokenizer import Tokenizer

AnySection = TypeVar("AnySection", bound=Section)


class ConfigError(ValueError):
    """A benchmark file or ``--set`` that cannot be used; the message says what to change."""


class TextConfig(Section):
    """How item texts become vectors.

    Attributes:
        encoder: ``lsa``, ``minilm``, or a sentence-transformers name or path.
        dimensions: of ``lsa``; the others have their own.
    """

    encoder: str = "lsa"
    dimensions: int = Field(default=256, ge=1)


class CodesConfig(Section):
    """A table of codes that others made; its path alone will do.

    Attributes:
        file: its path.
        key, column, levels, codebook_size: see :func:`recsys.datasets.published_codes.read_codes`.
    """

    file: Path
    key: str = "item_id"
    column: str | tuple[str, ...] = "codes"
    levels: int | None = Field(None, ge=1)
    codebook_size: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @field_validator("file")
    @classmethod
    def _known_format(cls, file: Path) -> Path:
        from recsys.datasets.published_codes import check_format  # noqa: PLC0415 — polars is for files of codes only

        check_format(file)
        return file


class TokenizerConfig(Section):
    """One tokenizer of the comparison: a recipe, whose name alone will do, or the codes of another's.

    Attributes:
        recipe: a name of ``gritrec tokenizers``, or ``module:Class``.
        codes: in place of a recipe; the same for all seeds.
        name: what it is called in tables; the recipe, the class or the file of codes if not given.
        params: overrides of the recipe.
        collisions: as the benchmark's, for this one alone.
    """

    recipe: str = ""
    codes: CodesConfig | None = None
    name: str = Field("", pattern=r"^[^/]*$")
    params: dict[str, Any] = Field({})
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
        return self if self.name else self.model_copy(update={"name": name})

    def make(self, shared: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer, not fitted: its recipe, then what it knows of ``shared``, then ``params``."""
        chosen = recipe(self.recipe)
        known = {key: value for key, value in shared.items() if key in chosen.parameters()}
        return create(
            self.recipe,
            **checked_arguments(f"tokenizer {self.name!r}", chosen.tokenizer, {**known, **self.params}),
        )


class RetrieverConfig(Section):
    """One retriever of the comparison; its kind's name alone will do.

    Attributes:
        kind: a name of :data:`recsys.retrievers.registry.RETRIEVERS`.
        name: what it is called in tables; the kind if not given.
        params: constructor arguments.
        members: names of the retrievers that it is made of, if it is ``fused``; they stand above it.
        times: how many fits of each member are mixed, if it is ``fused``: an ensemble over seeds, on the
            same semantic IDs. The first is that of the benchmark's seed s, the j-th one that of s + 1000 j.
    """

    kind: str
    name: str = Field("", pattern=r"^[^/]*$")
    params: dict[str, Any] = Field({})
    members: tuple[str, ...] = ()
    times: int = Field(1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.kind not in RETRIEVERS:
            raise ValueError(
                f"no retriever is called {self.kind!r}. {nearest_name(self.kind, list(RETRIEVERS))}"
            )
        self.make()
        is_fused = issubclass(RETRIEVERS[self.kind], Fused)
        if is_fused and not self.members:
            raise ValueError("fused needs members: names of retrievers above it, as [tiger, knn-sum]")
        if is_fused and "exclude_seen" in self.params:
            raise ValueError("fused takes exclude_seen from the evaluation; leave it out of its params")
        if self.members and not is_fused:
            raise ValueError(f"a retriever of kind {self.kind!r} has no members; fused has")
        if self.times > 1 and not is_fused:
            raise ValueError(
                f"a retriever of kind {self.kind!r} is fitted once; name it in a fused with times"
            )
        return self if self.name else self.model_copy(update={"name": self.kind})

    def make(self) -> Retriever:
        """The retriever, not fitted."""
        # The budget first: that its keys are known is not the retriever's to check.
        training = checked_arguments(
            f"training of {self.kind!r}", Training, self.params.get("training") or {}
        )
        budget = {"training": Training(**training)} if training else {}
        return RETRIEVERS[self.kind](
            **checked_arguments(f"retriever {self.kind!r}", RETRIEVERS[self.kind], {**self.params, **budget})
        )


class EvaluationConfig(Section):
    """What is measured, and against whom.

    Attributes:
        cutoffs: the K of Recall@K and NDCG@K.
        exclude_seen: leave items of a user's own history out of all rankings.
        metric: what the verdict goes by.
        reference: the tokenizer that all others are tested against.
        relevant_gain: of search, where answers have gains: from which gain on one is learned from and counts
            for Recall; queries with none are not evaluated. NDCG sees all gains.
    """

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = (5, 10, 50, 100)
    exclude_seen: bool = False
    metric: str = "ndcg_at_10"
    reference: str = "rq-vae"
    relevant_gain: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _metric_is_measured(self) -> Self:
        measured = [f"{name}_at_{k}" for name in ("recall", "ndcg") for k in self.cutoffs]
        if self.metric not in measured:
            raise ValueError(f"metric {self.metric!r} is not measured. {nearest_name(self.metric, measured)}")
        return self


class BenchmarkConfig(Section):
    """A whole benchmark.

    Attributes:
        name: of the benchmark and of its MLflow experiment.
        workspace: folder for all that is made: stages, MLflow's database and artifacts.
        tracking_uri: of an MLflow server; the workspace's own database if empty.
        seeds: each gives every tokenizer and retriever one run.
        data, text, evaluation: see there.
        semantic_ids: parameters for every tokenizer that knows them, such as ``levels``.
        collisions: what becomes of items that share all codes; see :mod:`semantic_ids.collisions`.
        tokenizers: what is compared.
        retrievers: what it is compared under; with none that uses semantic IDs, these alone are compared.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    workspace: Path = Path("workspace")
    tracking_uri: str = ""
    seeds: tuple[Annotated[int, Field(strict=True, ge=0, lt=2**32)], ...] = Field((0,), min_length=1)
    data: DataConfig
    text: TextConfig = TextConfig()
    semantic_ids: dict[str, Any] = Field({})
    collisions: Collisions = "shared"
    tokenizers: tuple[TokenizerConfig, ...] = Field(min_length=1)
    retrievers: tuple[RetrieverConfig, ...]
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("tokenizers", "retrievers")
    @classmethod
    def _distinct_names(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [entry.name for entry in entries]
        for name in names:
            if name in (NO_TOKENIZER, NO_RETRIEVER):
                raise ValueError(f"{name!r} stands for none in tables; give it another 'name'")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands here twice; give one of them another 'name'")
        return entries

    @field_validator("retrievers")
    @classmethod
    def _members_are_above(cls, entries: tuple[RetrieverConfig, ...]) -> tuple[RetrieverConfig, ...]:
        above: list[str] = []
        for retriever in entries:
            for member in retriever.members:
                if member not in above:
                    raise ValueError(
                        f"retriever {retriever.name!r} is made of {member!r}, which is none of those above "
                        f"it. {nearest_name(member, above or ['nothing'])}"
                    )
            above.append(retriever.name)
        return entries

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands here twice; it would give the same result twice")
        return seeds

    @model_validator(mode="after")
    def _queries_are_in_words_where_they_must_be(self) -> Self:
        for retriever in self.retrievers:
            if RETRIEVERS[retriever.kind].needs_query_texts and not self.data.is_search:
                raise ValueError(
                    f"retriever {retriever.name!r} answers queries in words, but of {self.data.reader} data "
                    "the next item is asked for; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _reference_takes_part(self) -> Self:
        names = [tokenizer.name for tokenizer in self.tokenizers]
        if self.uses_ids() and self.evaluation.reference not in names:
            raise ValueError(
                f"evaluation.reference {self.evaluation.reference!r} is none of the tokenizers: "
                f"{', '.join(names)}"
            )
        known = {name for one in self.tokenizers if one.recipe for name in recipe(one.recipe).parameters()}
        left = {key: value for key, value in self.semantic_ids.items() if key in known}
        for key in self.semantic_ids:
            if key not in known:
                without = yaml.safe_dump(left, default_flow_style=True, width=math.inf).strip()
                raise ValueError(
                    f"semantic_ids.{key} is a parameter of none of the tokenizers. "
                    f"{nearest_name(key, sorted(known) or ['nothing'])} "
                    f"Or leave it out: --set 'semantic_ids={without}'"
                )
        return self

    @model_validator(mode="after")
    def _tokenizers_can_be_made(self) -> Self:
        for tokenizer in self.tokenizers:
            try:
                made = tokenizer.make(self.semantic_ids) if tokenizer.recipe else None
                if made:
                    made.params()  # what cannot be saved is an error here, not after the fit
            except (TypeError, ValueError) as error:
                raise ValueError(f"tokenizer {tokenizer.name!r} cannot be made: {error}") from error
            if self.collisions_of(tokenizer) == "sinkhorn" and not (made and made.measures_last_level):
                raise ValueError(
                    "sinkhorn needs distances to the last level's codewords, which tokenizer "
                    f"{tokenizer.name!r} does not know; give it collisions: shared, or digit"
                )
        return self

    def uses_ids(self) -> bool:
        """Whether any retriever looks at semantic IDs; else tokenizers alone are compared."""
        return any(self.needs_ids(retriever) for retriever in self.retrievers)

    def needs_ids(self, retriever: RetrieverConfig) -> bool:
        """Whether it looks at semantic IDs, or one of its members does."""
        members = [self.needs_ids(self.retriever(name)) for name in retriever.members]
        return any(members) if members else RETRIEVERS[retriever.kind].uses_ids

    def is_random(self, retriever: RetrieverConfig) -> bool:
        """Whether another seed gives another retriever, or one of its members is another then."""
        members = [self.is_random(self.retriever(name)) for name in retriever.members]
        return any(members) if members else RETRIEVERS[retriever.kind].is_random

    def retriever(self, name: str) -> RetrieverConfig:
        """The one of that name."""
        return next(one for one in self.retrievers if one.name == name)

    def collisions_of(self, tokenizer: TokenizerConfig) -> Collisions:
        """Its own, or else the benchmark's."""
        return tokenizer.collisions or self.collisions


def load_config(path: str | Path, settings: Sequence[str] = ()) -> BenchmarkConfig:
    """Read a benchmark file.

    Args:
        path: a YAML file.
        settings: ``key=value`` overrides with dotted keys; values are read as YAML.

    Raises:
        ConfigError: the file or a setting cannot be used; one line for each thing wrong.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a benchmark file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys such as name, data, tokenizers and retrievers")
    for setting in settings:
        _apply(values, setting)
    return _validated(path, BenchmarkConfig, values)


def load_data(folder: Path, settings: Sequence[str]) -> DataConfig:
    """The section ``data`` for a folder of raw files, all else by settings: ``reader=amazon``.

    Raises:
        ConfigError: a setting cannot be used, or one is lacking.
    """
    values: dict[str, Any] = {"raw": folder}
    for setting in settings:
        _apply(values, setting)
    return _validated(folder, DataConfig, values)


def _validated(path: str | Path, kind: type[AnySection], values: dict[str, Any]) -> AnySection:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(e["loc"], e["msg"]) for e in error.errors()]
        raise ConfigError(f"{path}:\n" + "\n".join(lines)) from error


def _apply(values: dict[str, Any], setting: str) -> None:
    """Put one ``a.b=value`` into nested ``values``; a number in the key counts a list's entries from 0."""
    key, equals, text = setting.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(f"--set {setting}: write key=value, for example --set data.k_core=5")
    *path, last = key.split(".")
    place: Any = values
    try:
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: {text!r} is not valid YAML") from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"--set {setting}: there is no place called {key!r}") from error


def _explain(where: tuple[int | str, ...], message: str) -> str:
    place = ".".join(str(part) for part in where)
    return f"  {place}{': ' if place else ''}{message.removeprefix('Value error, ')}"
