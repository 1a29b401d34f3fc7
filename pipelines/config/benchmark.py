"""The benchmark file as a whole: data, methods, evaluation, and how they must fit together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Self
from unicodedata import normalize

import yaml
from pydantic import Field, field_serializer, field_validator, model_validator

from pipelines.config.base import Section
from pipelines.config.data import DataConfig
from pipelines.config.fields import BenchmarkName, TrackingUri, UserPath, not_finite
from pipelines.config.methods import RetrieverConfig, TextConfig, TokenizerConfig
from pipelines.names import NO_RETRIEVER, NO_TOKENIZER
from pipelines.redaction import redacted, secrets_in
from recsys.evaluation.metrics import METRICS
from semantic_ids.collisions import Collisions
from semantic_ids.plugins import nearest_name
from semantic_ids.registry import recipe


class EvaluationConfig(Section):
    """What is measured, and against what.

    Attributes:
        metrics: Names in :data:`recsys.evaluation.metrics.METRICS`, or ``module:attribute``.
        cutoffs: The values of K, as in Recall@K. Where K is larger than the catalogue, the whole catalogue is
            ranked.
        exclude_seen: Leave items of a user's own history out of all rankings.
        metric: The main metric, by which verdicts are given, such as ``ndcg_at_10``.
        reference: The tokenizer with which all others are compared.
        relevant_gain: For search, where targets have gains: the smallest gain that is learned from and that
            counts for Recall. Queries without such a target are not evaluated. NDCG uses all gains.
        equivalence: Two methods are equivalent where their difference is certain to be at most this share of
            the reference's score.
        looks: How often the results may be looked at before it is decided whether to add seeds. The level of
            5 % is divided by it. ``gritrec run --until-decided`` sets it.
    """

    metrics: tuple[str, ...] = Field(default=("recall", "ndcg"), min_length=1)
    cutoffs: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(
        default=(5, 10, 50, 100), min_length=1
    )
    exclude_seen: bool = False
    metric: str = "ndcg_at_10"
    reference: str = "rq-vae"
    relevant_gain: float = Field(default=0.0, ge=0)
    equivalence: float = Field(default=0.01, ge=0, lt=1)
    looks: int = Field(default=1, strict=True, ge=1, le=100)

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        names = [METRICS.load(name).name for name in metrics]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"metric {name!r} is listed twice")
        return metrics

    @field_validator("cutoffs")
    @classmethod
    def _distinct_cutoffs(cls, cutoffs: tuple[int, ...]) -> tuple[int, ...]:
        for cutoff in cutoffs:
            if cutoffs.count(cutoff) > 1:
                raise ValueError(f"{cutoff} is listed twice")
        return cutoffs

    @model_validator(mode="after")
    def _metric_is_measured(self) -> Self:
        if self.metric not in self.labels():
            raise ValueError(
                f"metric {self.metric!r} is not measured. {nearest_name(self.metric, list(self.labels()))}"
            )
        return self

    def labels(self) -> dict[str, str]:
        """Return every measured column to its label in tables, such as ``ndcg_at_10`` to ``NDCG@10``."""
        metrics = [METRICS.load(name) for name in self.metrics]
        return {metric.column(k): f"{metric.label}@{k}" for k in self.cutoffs for metric in metrics}


class BenchmarkConfig(Section):
    """A whole benchmark.

    Attributes:
        name: Name of the benchmark and of its MLflow experiment.
        workspace: Folder for everything that is produced: stages, MLflow's database and artifacts.
        tracking_uri: Address of an MLflow server; if empty, the workspace has a database of its own. A
            password in it is used, but hidden wherever the configuration is shown or kept: it is in
            neither ``repr`` nor ``model_dump``.
        seeds: Each seed gives every random tokenizer and retriever one run.
        data: The corpus.
        text: How texts become vectors.
        semantic_ids: Parameters for all tokenizers that have them, such as ``levels``.
        collisions: What happens to items that share all codes, see :mod:`semantic_ids.collisions`.
        tokenizers: What is compared. May be empty if no retriever uses semantic IDs.
        retrievers: What tokenizers are compared under. If none of them uses semantic IDs, the codes
            themselves are compared.
        evaluation: What is measured.
    """

    name: BenchmarkName
    workspace: UserPath = Path("workspace")
    tracking_uri: TrackingUri = Field("", repr=False)
    seeds: tuple[Annotated[int, Field(strict=True, ge=0, lt=2**32)], ...] = Field((0,), min_length=1)
    data: DataConfig
    text: TextConfig = TextConfig()
    semantic_ids: dict[str, Any] = Field({})
    collisions: Collisions = "shared"
    tokenizers: tuple[TokenizerConfig, ...] = ()
    retrievers: tuple[RetrieverConfig, ...] = ()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, values: Any) -> Any:
        """Refuse secrets, because settings are kept in MLflow and in manifests."""
        for place in secrets_in(values):
            if place != "tracking_uri":
                raise ValueError(
                    f"{place} holds a secret, which would be kept with the results. Credentials come from "
                    "the environment: HF_TOKEN, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, AWS_…"
                )
        return values

    @model_validator(mode="before")
    @classmethod
    def _finite_numbers(cls, values: Any) -> Any:
        for place in not_finite(values):
            raise ValueError(f"{place} must be a finite number")
        return values

    @field_serializer("tracking_uri")
    def _without_secrets(self, uri: str) -> str:
        return redacted(uri)

    @field_validator("name")
    @classmethod
    def _not_mlflow_s_own(cls, name: str) -> str:
        if name.casefold() == "default":
            raise ValueError(f"{name!r} is the name of MLflow's own experiment; give the benchmark another")
        return name

    @field_validator("tokenizers", "retrievers")
    @classmethod
    def _distinct_names(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [
            normalize("NFC", entry.name) for entry in entries
        ]  # one text in two spellings looks the same
        for name in names:
            if name in (NO_TOKENIZER, NO_RETRIEVER):
                raise ValueError(f"{name!r} stands for none in tables; give it another 'name'")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice; give one of them another 'name'")
        return entries

    @field_validator("retrievers")
    @classmethod
    def _members_are_above(cls, entries: tuple[RetrieverConfig, ...]) -> tuple[RetrieverConfig, ...]:
        above: list[str] = []
        for retriever in entries:
            for member in retriever.members:
                if member not in above:
                    raise ValueError(
                        f"retriever {retriever.name!r} has the member {member!r}, which is none of those "
                        f"above it. {nearest_name(member, above or ['nothing'])}"
                    )
            above.append(retriever.name)
        return entries

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice; it would give the same result twice")
        return seeds

    @model_validator(mode="after")
    def _something_is_compared(self) -> Self:
        if not self.tokenizers and not self.retrievers:
            raise ValueError("there is nothing to compare: list tokenizers, retrievers or both")
        if not self.tokenizers and (needy := self.retrievers_with_ids()):
            raise ValueError(f"retriever {needy[0].name!r} uses semantic IDs, so list at least one tokenizer")
        return self

    @model_validator(mode="after")
    def _seeds_of_all_fits_are_in_range(self) -> Self:
        for retriever in self.retrievers:
            further = 1000 * (retriever.times - 1)
            if max(self.seeds) + further >= 2**32:
                raise ValueError(
                    f"seeds: the last of {retriever.times} fits of retriever {retriever.name!r} would have "
                    f"the seed {max(self.seeds)} + {further}, and seeds must be below {2**32}"
                )
        return self

    @model_validator(mode="after")
    def _queries_have_texts_where_needed(self) -> Self:
        for retriever in self.retrievers:
            if retriever.type.needs_query_texts and not self.data.is_search:
                raise ValueError(
                    f"retriever {retriever.name!r} answers queries in words, but with {self.data.reader} "
                    "data the task is to predict the next item; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _reference_takes_part(self) -> Self:
        names = [tokenizer.name for tokenizer in self.tokenizers]
        if self.retrievers_with_ids() and self.evaluation.reference not in names:
            raise ValueError(
                f"evaluation.reference {self.evaluation.reference!r} is none of the tokenizers: "
                f"{', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _shared_parameters_are_used(self) -> Self:
        known = {name for one in self.tokenizers if one.recipe for name in recipe(one.recipe).parameters()}
        left = {key: value for key, value in self.semantic_ids.items() if key in known}
        for key in self.semantic_ids if self.tokenizers else ():
            if key not in known:
                without = yaml.safe_dump(left, default_flow_style=True, width=math.inf).strip()
                raise ValueError(
                    f"semantic_ids.{key} is a parameter of none of the tokenizers. "
                    f"{nearest_name(key, sorted(known) or ['nothing'])} "
                    f"Or leave it out: --set 'semantic_ids={without}'"
                )
        return self

    @model_validator(mode="after")
    def _tokenizers_can_be_created(self) -> Self:
        for tokenizer in self.tokenizers:
            try:
                created = tokenizer.create(self.semantic_ids) if tokenizer.recipe else None
                if created:
                    created.params()  # what cannot be saved is an error here, not after the fit
            except (TypeError, ValueError) as error:
                raise ValueError(f"tokenizer {tokenizer.name!r} cannot be created: {error}") from error
            measures = created is not None and created.measures_last_level
            if self.collisions_of(tokenizer) == "sinkhorn" and not measures:
                raise ValueError(
                    "sinkhorn needs distances to the last level's codewords, which tokenizer "
                    f"{tokenizer.name!r} does not know; give it collisions: shared, or digit"
                )
        return self

    def retrievers_with_ids(self) -> list[RetrieverConfig]:
        """Return the retrievers that use semantic IDs; an ensemble's members are listed by themselves."""
        return [one for one in self.retrievers if one.type.uses_ids and not one.type.takes_members]

    def retriever(self, name: str) -> RetrieverConfig:
        """Return the retriever called ``name``."""
        return next(one for one in self.retrievers if one.name == name)

    def collisions_of(self, tokenizer: TokenizerConfig) -> Collisions:
        """Return what happens to items that share all codes of this tokenizer."""
        return tokenizer.collisions or self.collisions
