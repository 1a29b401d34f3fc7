"""What each stage does: from the folders of its inputs and its settings to the files of its own folder.

Stages know neither Prefect nor MLflow. From ``tokenize`` on they need no polars either, so they run wherever
torch runs, from prepared folders. (:func:`import_codes` reads a raw file, and needs polars.)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipelines.report.html import html_report
from pipelines.results.categories import CodeCategories, read_categories
from pipelines.results.cell import Cell, CellName, Failure
from pipelines.results.reading import read_cells, read_dataset, write_results
from pipelines.results.summary import summarise
from pipelines.run.progress import MetricLogger, progress
from pipelines.screen import ERR
from recsys.audit.findings import read_findings, write_findings
from recsys.cuts import SplitRule
from recsys.evaluation.metrics import per_query_scores
from recsys.evaluation.reachability import seen_targets
from recsys.evaluation.scores import QueryScores, evaluation_set_digest
from recsys.examples import Examples
from recsys.retrievers.base import Retriever
from recsys.retrievers.registry import RETRIEVERS
from recsys.splits import Split, check_enough, read_split, write_split
from semantic_ids.collisions import sinkhorn, with_digit
from semantic_ids.ids import SemanticIds
from semantic_ids.quality import quality
from semantic_ids.registry import create
from semantic_ids.types import Doubles, Floats, Ints

if TYPE_CHECKING:
    from recsys.datasets.corpus import Corpus

Config = Mapping[str, Any]
Inputs = Mapping[str, Path]

_NEED_CODEBOOK_SIZE = ("utilization", "dead_codes", "gini")


def ingest(raw: Path | None, config: Config, inputs: Inputs, out: Path) -> None:
    """Read a corpus, and write items, texts, categories, examples, ``corpus.json`` and ``audit.json``.

    Args:
        raw: Folder of the raw files.
        config: The section ``data`` of a benchmark.
        inputs: None.
        out: Folder to fill.
    """
    from recsys.audit.whole import data_findings  # noqa: PLC0415 — polars, for this stage only
    from recsys.texts.item_texts import item_texts, write_texts  # noqa: PLC0415

    corpus = read_raw(config, raw, out / "raw")
    rule = SplitRule(**config["split"], together=config["ties"] == "last_together")
    check_enough(corpus, rule)
    notes = {**corpus.notes, **write_split(corpus, out, rule)}
    for what, count in {"malformed lines left out": corpus.skipped_lines, **notes}.items():
        if count:
            ERR.print(f"  {what.replace('_', ' ')}: {count:,}", style="yellow")
    if corpus.queries is None:
        shuffled = config["ties"] == "shuffle"
        write_findings(data_findings(corpus, rule, shuffled=shuffled), out / "audit.json")
    corpus.items.write_parquet(out / "items.parquet")
    write_texts(item_texts(corpus.items), out / "texts.parquet")
    (out / "categories.json").write_text(json.dumps(corpus.top_categories()) + "\n")
    catalogue = hashlib.sha256("\n".join(corpus.items["item_id"]).encode()).hexdigest()
    facts = {
        **corpus.statistics(),
        "notes": notes,
        "split": _split_in_words(config, rule) if corpus.queries is None else "the corpus' own test queries",
        "skipped_lines": corpus.skipped_lines,
        "term_ids": corpus.term_ids,
        "digest": corpus.digest(),
        "item_ids_digest": catalogue,
    }
    (out / "corpus.json").write_text(json.dumps(facts, indent=2) + "\n")


def read_raw(config: Config, raw: Path | None, shop: Path) -> Corpus:
    """Return the corpus that the section ``data`` of a benchmark describes.

    Args:
        config: The section, see :class:`~pipelines.config.data.DataConfig`.
        raw: Folder of the raw files.
        shop: Folder to write the files of a made-up shop into.
    """
    from pipelines.config.base import checked_arguments  # noqa: PLC0415
    from recsys.datasets.interactions import shuffle_ties  # noqa: PLC0415
    from recsys.datasets.readers import READERS, read_corpus  # noqa: PLC0415
    from recsys.datasets.synthetic import shop_options, write_shop  # noqa: PLC0415

    name, options = config["reader"], config["options"]
    if config["shop"]:
        of_shop = {option: options[option] for option in shop_options(name) if option in options}
        files = write_shop(shop, name, **config["shop"], **of_shop)
    else:
        files = {parameter: (raw or Path()) / file for parameter, file in config["files"].items()}
    # Options were kept as JSON; convert them back to what the reader's annotations ask for.
    corpus = read_corpus(name, **files, **checked_arguments(f"reader {name!r}", READERS.load(name), options))
    if config["ties"] != "shuffle":
        return corpus
    if not corpus.has_clock():
        raise ValueError(
            "this corpus has no times, only the order of each user's events (timestamps are positions), so "
            "no ties are known: ties: shuffle needs a source with times"
        )
    return replace(corpus, interactions=shuffle_ties(corpus.interactions, config["ties_seed"]))


def _split_in_words(config: Config, rule: SplitRule) -> str:
    """Return one line on what scores measure, under the section ``data`` and its rule."""
    shuffled = (
        f", equal times in random order (seed {config['ties_seed']})" if config["ties"] == "shuffle" else ""
    )
    return rule.describe() + shuffled


def embed(config: Config, inputs: Inputs, out: Path) -> None:
    """Embed the items' texts, and the queries' texts where there are any, in one space.

    Writes ``embeddings.npy`` ``(N, D)`` float32 in the items' order, and ``query_embeddings.npy`` ``(T, D)``.
    """
    from recsys.texts.embedding import embed_texts  # noqa: PLC0415
    from recsys.texts.item_texts import read_texts  # noqa: PLC0415

    corpus = inputs["corpus"]
    texts = read_texts(corpus / "texts.parquet")
    if len(set(texts)) == 1:
        raise ValueError(
            f"all {len(texts)} items have the same text, {texts[0]!r}, so no tokenizer can tell them apart: "
            "give the reader a file that describes the items, or compare retrievers that need no semantic IDs"
        )
    query_texts = corpus / "query_texts.parquet"
    items, queries = embed_texts(
        texts,
        config["encoder"],
        queries=read_texts(query_texts) if query_texts.exists() else (),
        term_ids=json.loads((corpus / "corpus.json").read_text())["term_ids"],
        shards=sibling_path(out, "shards"),
        on_progress=progress,
        **config["params"],
    )
    np.save(out / "embeddings.npy", items)
    if query_texts.exists():
        np.save(out / "query_embeddings.npy", queries)


def tokenize(name: str, config: Config, inputs: Inputs, out: Path) -> None:
    """Fit a tokenizer on ``embeddings.npy``, and write it, the semantic IDs and their quality.

    ``quality.json`` also holds the seconds of fitting and of encoding the catalogue, by the clock and of this
    process on all its cores.

    Args:
        name: Name of the tokenizer in error messages.
        config: Its class, arguments and seed, and what happens to collisions.
        inputs: ``corpus`` and ``embeddings``.
        out: Folder to fill.
    """
    embeddings = np.load(inputs["embeddings"] / "embeddings.npy", allow_pickle=False)
    seconds: dict[str, float] = {}
    with _named(name, config["class"]):
        tokenizer = create(config["class"], **config["params"])
        logger = MetricLogger(out / "curves.jsonl", getattr(tokenizer, "steps", None))
        with _timed("fit", seconds):
            tokenizer.fit(torch.from_numpy(embeddings), seed=config["seed"], on_step=logger)
        with _timed("encode", seconds):
            codes = tokenizer.encode(torch.from_numpy(embeddings))
        ids = SemanticIds(codes.cpu().numpy(), tokenizer.codebook_sizes)
        if config["collisions"] == "sinkhorn":

            def distances(items: Ints) -> Doubles:
                return tokenizer.last_level_distances(torch.from_numpy(embeddings[items])).cpu().numpy()

            ids = sinkhorn(ids, distances)
        try:
            reconstructed = tokenizer.decode(torch.from_numpy(ids.codes)).cpu().numpy()
        except NotImplementedError:
            reconstructed = None
        tokenizer.save(out / "tokenizer")
    _write_ids(ids, config, inputs, out, seconds=seconds, embeddings=embeddings, reconstructed=reconstructed)


def import_codes(file: Path, config: Config, inputs: Inputs, out: Path) -> None:
    """Read a table of codes, and write what :func:`tokenize` writes, but for the tokenizer and its seconds.

    Measures that depend on the codebook size are left out where it is not given.

    Args:
        file: The table.
        config: How to read it, and what happens to collisions.
        inputs: ``corpus``.
        out: Folder to fill.
    """
    import polars as pl  # noqa: PLC0415

    from recsys.datasets.published_codes import read_codes  # noqa: PLC0415

    items = pl.read_parquet(inputs["corpus"] / "items.parquet", columns=["item_id"])
    options = {name: config[name] for name in ("key", "column", "levels", "codebook_size")}
    ids = read_codes(file, item_ids=items["item_id"].to_list(), **options)
    (out / "curves.jsonl").touch()
    unknown = () if config["codebook_size"] else _NEED_CODEBOOK_SIZE
    _write_ids(ids, config, inputs, out, seconds={}, unknown=unknown)


def fit(config: Config, inputs: Inputs, out: Path) -> None:
    """Fit a retriever on the training examples, and write it.

    An interrupted fit resumes from a checkpoint, which lies beside the folders of its stage.

    Args:
        config: Kind, arguments and seed of the retriever, and the gain from which on targets are relevant.
        inputs: ``corpus``; ``ids`` for retrievers with semantic IDs; ``embeddings`` of queries with texts;
            ``member.<name>`` for each member of an ensemble.
        out: Folder to fill.
    """
    split, relevant = _read_examples(inputs), config["relevant_gain"]
    if "ids" in inputs:
        ids = SemanticIds.load(inputs["ids"])
    else:  # a retriever without semantic IDs: every item has a code of its own
        items = json.loads((inputs["corpus"] / "corpus.json").read_text())["items"]
        ids = SemanticIds(np.arange(items)[:, None], (items,))
    retriever = RETRIEVERS.load(config["kind"])(**config["params"])
    if retriever.takes_members:
        retriever.members = {
            name.removeprefix("member."): Retriever.load(folder / "retriever")
            for name, folder in inputs.items()
            if name.startswith("member.")
        }
    texts: Sequence[str] = ()
    if retriever.uses_texts:
        from recsys.texts.item_texts import read_texts  # noqa: PLC0415 — imports slowly

        texts = read_texts(inputs["corpus"] / "texts.parquet")
    training = getattr(retriever, "training", None)
    retriever.fit(
        _require_relevant(split.train.at_least(relevant), split.train, relevant),
        _require_relevant(split.valid.answered(relevant), split.valid, relevant),
        ids,
        texts=texts,
        seed=config["seed"],
        on_step=MetricLogger(out / "curves.jsonl", getattr(training, "steps", None)),
        checkpoint=sibling_path(out, "checkpoint"),
    )
    retriever.save(out / "retriever")


def score(config: Config, inputs: Inputs, out: Path) -> None:
    """Rank for the test examples, and write ``scores.parquet``, a row per query, and diagnostics.

    ``queries.json`` counts the answers, and those that ``exclude_seen`` keeps out of all rankings.

    Args:
        config: Metrics, cutoffs, ``exclude_seen`` and ``relevant_gain``.
        inputs: ``corpus``, ``retriever``, and ``embeddings`` of queries with texts.
        out: Folder to fill.
    """
    every, relevant = _read_examples(inputs).test, config["relevant_gain"]
    test = _require_relevant(every.answered(relevant), every, relevant)
    corpus = json.loads((inputs["corpus"] / "corpus.json").read_text())
    retriever: Retriever = Retriever.load(inputs["retriever"] / "retriever")
    width = max(config["cutoffs"])
    ranking = retriever.rank(
        test,
        width,
        exclude_seen=config["exclude_seen"],
        on_progress=lambda done: progress(done, len(test), "queries"),
    )
    scores = per_query_scores(
        ranking, test, config["cutoffs"], relevant_gain=relevant, metrics=config["metrics"]
    )
    digest = evaluation_set_digest(test, corpus["item_ids_digest"], config["exclude_seen"], relevant)
    QueryScores(test.query_ids, scores, digest).write(out / "scores.parquet")
    seen = seen_targets(test, relevant)
    queries = {"answers": seen.all_targets, "unreachable": seen.targets if config["exclude_seen"] else 0}
    (out / "queries.json").write_text(json.dumps(queries) + "\n")
    diagnostics = retriever.diagnostics(test, width)
    (out / "retriever.json").write_text(json.dumps(diagnostics, indent=2) + "\n")


def report(config: Config, inputs: Inputs, out: Path, *, cells: Sequence[Cell] | None = None) -> None:
    """Test and summarise all cells, and write ``results.json`` and ``report.html``.

    Args:
        config: Title, evaluation and names of all cells.
        inputs: ``corpus``, and ``<number of a cell>.<stage>`` for every cell.
        out: Folder to fill.
        cells: The cells, if they were read before.
    """
    evaluation = config["evaluation"]
    dataset = read_dataset(config["title"], inputs["corpus"])
    results = summarise(
        config["title"],
        dataset,
        _protocol(evaluation, json.loads((inputs["corpus"] / "corpus.json").read_text())["split"]),
        read_cells(config["cells"], inputs) if cells is None else cells,
        reference=evaluation["reference"],
        metric=evaluation["metric"],
        labels=config["labels"],
        failures=[Failure(CellName(*name), *about) for name, *about in config["failures"]],
        fixed=[(retriever, tokenizer) for retriever, tokenizer in config["fixed"]],
        equivalence=evaluation["equivalence"],
        looks=evaluation["looks"],
    )
    write_results(results, out)
    findings = read_findings(inputs["corpus"] / "audit.json")
    (out / "report.html").write_text(html_report(results, findings), encoding="utf-8")


def sibling_path(out: Path, what: str) -> Path:
    """Return a path beside a step's folder for something that outlives one attempt at the step.

    Args:
        out: The folder that is being filled, as :meth:`Store.make` passes it.
        what: Ending of the name.
    """
    return out.parent / f"{out.name.rpartition('.partial-')[0]}.{what}"


def _protocol(evaluation: Config, split: str) -> str:
    """Describe in words how a benchmark is evaluated; ``split`` says what the test queries are."""
    seen = "left out" if evaluation["exclude_seen"] else "kept"
    least = evaluation["relevant_gain"]
    relevant = f", targets relevant from a gain of {least:g} on" if least else ""
    return f"{split}, full catalogue, items of a user's own history {seen}{relevant}"


def _read_examples(inputs: Inputs) -> Split:
    """Return the examples of the corpus, with the embeddings of queries where these have texts."""
    vectors = inputs["embeddings"] / "query_embeddings.npy" if "embeddings" in inputs else None
    return read_split(inputs["corpus"], np.load(vectors, allow_pickle=False) if vectors else None)


def _require_relevant(relevant: Examples, every: Examples, gain: float) -> Examples:
    """Return the relevant examples; refuse a gain that leaves none of them."""
    if len(every) and not len(relevant):
        raise ValueError(
            f"no target has a gain of {gain:g}; the highest is {every.gains.max():g}: lower "
            "evaluation.relevant_gain"
        )
    return relevant


def _write_ids(
    ids: SemanticIds,
    config: Config,
    inputs: Inputs,
    out: Path,
    *,
    seconds: Mapping[str, float],
    embeddings: Floats | None = None,
    reconstructed: Floats | None = None,
    unknown: tuple[str, ...] = (),
) -> None:
    """Write semantic IDs and their quality, which is measured before a collision digit is added.

    Measures whose names begin with one of ``unknown`` are left out.
    """
    names, categories = read_categories(inputs["corpus"])
    measured = quality(ids, embeddings, reconstructed, categories).as_metrics()
    known = {name: value for name, value in measured.items() if not name.startswith(unknown)}
    (out / "quality.json").write_text(json.dumps({**seconds, **known}, indent=2) + "\n")
    CodeCategories.of(ids.codes[:, 0], categories, names).write(out / "code_categories.json")
    (with_digit(ids) if config["collisions"] == "digit" else ids).save(out)


@contextmanager
def _named(tokenizer: str, kind: str) -> Iterator[None]:
    """Name the tokenizer in errors of the block. An ``OSError`` is left alone: a retry may succeed."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # a plug-in may fail in any way
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        if not kind.startswith("semantic_ids."):
            what += f" (semantic_ids.testing.check_tokenizer tells what {kind} has to mend)"
        raise ValueError(f"tokenizer {tokenizer}: {what}") from error


@contextmanager
def _timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the seconds that the block takes to ``seconds``."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    seconds[f"{what}_seconds"] = time.perf_counter() - wall
    seconds[f"{what}_cpu_seconds"] = time.process_time() - cpu
