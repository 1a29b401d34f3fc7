"""What each stage does: from its inputs' folders and its configuration to the files of its own folder.

Stages know neither Prefect nor MLflow, and those from ``tokenize`` on need no polars either: they
run wherever torch runs, from prepared folders. (:func:`import_codes` reads a raw file, and does.)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipelines.report.html import html_report
from pipelines.results.categories import CodeCategories, read_categories
from pipelines.results.reading import read_results
from pipelines.run.progress import CONSOLE, progress
from recsys.evaluation.metrics import per_query_scores
from recsys.evaluation.scores import QueryScores, evaluation_set_digest
from recsys.examples import Examples
from recsys.retrievers.base import Retriever
from recsys.retrievers.ensemble import Fused
from recsys.retrievers.registry import RETRIEVERS
from recsys.splits import Split, read_split, write_split
from semantic_ids.collisions import Doubles, sinkhorn, with_digit
from semantic_ids.ids import Floats, Ints, SemanticIds
from semantic_ids.quality import quality
from semantic_ids.registry import create

if TYPE_CHECKING:
    from recsys.datasets.corpus import Corpus

Config = Mapping[str, Any]
Inputs = Mapping[str, Path]

_OF_CODEBOOK_SIZE = ("utilization", "dead_codes", "gini")


def ingest(raw: Path | None, config: Config, inputs: Inputs, out: Path) -> None:
    """Files in the folder ``raw`` → items, their texts and categories, examples, and ``corpus.json``."""
    from recsys.texts.item_texts import item_texts, write_texts  # noqa: PLC0415 — polars is for this stage only

    corpus = read_corpus(config, raw, out / "raw")
    for what, count in {"malformed lines left out": corpus.skipped_lines, **corpus.notes}.items():
        if count:
            CONSOLE.print(f"  {what.replace('_', ' ')}: {count:,}", style="yellow")
    corpus.items.write_parquet(out / "items.parquet")
    write_texts(item_texts(corpus.items), out / "texts.parquet")
    write_split(corpus, out)
    (out / "categories.json").write_text(json.dumps(corpus.top_categories()) + "\n")
    catalogue = hashlib.sha256("\n".join(corpus.items["item_id"]).encode()).hexdigest()
    about = {
        **corpus.statistics(),
        "notes": corpus.notes,
        "skipped_lines": corpus.skipped_lines,
        "term_ids": corpus.term_ids,
        "digest": corpus.digest(),
        "item_ids_digest": catalogue,
    }
    (out / "corpus.json").write_text(json.dumps(about, indent=2) + "\n")


def read_corpus(config: Config, raw: Path | None, shop: Path) -> Corpus:
    """What the section ``data`` of a benchmark asks for.

    Args:
        config: the section, see :class:`~pipelines.config.data.DataConfig`.
        raw: the folder of its files.
        shop: where those of a made-up shop are put.
    """
    from pipelines.config.base import checked_arguments  # noqa: PLC0415
    from recsys.datasets.corpus import Corpus  # noqa: PLC0415
    from recsys.datasets.readers import SEARCH, reader  # noqa: PLC0415
    from recsys.datasets.synthetic import write_shop  # noqa: PLC0415

    options = config["options"]
    if config["shop"]:
        release = {"release": options["release"]} if "release" in options else {}
        files = write_shop(shop, config["reader"], **config["shop"], **release)
    else:
        files = {name: (raw or Path()) / file for name, file in config["files"].items()}
    read = reader(config["reader"])
    # What was kept as JSON becomes again what the reader's annotations say.
    corpus = read(**files, **checked_arguments(f"reader {config['reader']!r}", read, options))
    if not isinstance(corpus, Corpus):
        raise ValueError(f"reader {config['reader']!r} must return a Corpus, not {type(corpus).__name__}")
    if corpus.queries is not None and config["reader"] not in SEARCH:
        raise ValueError(
            f"reader {config['reader']!r} returns queries; benchmarks take them only from {', '.join(SEARCH)}"
        )
    return corpus


def embed(config: Config, inputs: Inputs, out: Path) -> None:
    """``texts.parquet`` → ``embeddings.npy`` ``(N, D)`` float32, in the items' order.

    And in the same space ``query_embeddings.npy`` ``(T, D)``, where queries are asked in words.
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
    asked = corpus / "query_texts.parquet"
    items, queries = embed_texts(
        texts,
        config["encoder"],
        queries=read_texts(asked) if asked.exists() else (),
        dimensions=config["dimensions"],
        term_ids=json.loads((corpus / "corpus.json").read_text())["term_ids"],
        shards=_beside(out, "shards"),
        on_progress=progress,
    )
    np.save(out / "embeddings.npy", items)
    if asked.exists():
        np.save(out / "query_embeddings.npy", queries)


def tokenize(name: str, config: Config, inputs: Inputs, out: Path) -> None:
    """``embeddings.npy`` → the fitted tokenizer, the catalogue's semantic IDs and their quality.

    ``name`` is what errors call the tokenizer. ``quality.json`` also holds the seconds of fitting and of
    encoding the catalogue, by the clock on the wall and of this process on all its cores.
    """
    embeddings = np.load(inputs["embeddings"] / "embeddings.npy", allow_pickle=False)
    figures: dict[str, float] = {}
    with _named(name, config["class"]):
        tokenizer = create(config["class"], **config["params"])
        curves = Curves(out / "curves.jsonl", getattr(tokenizer, "steps", None))
        with _timed("fit", figures):
            tokenizer.fit(torch.from_numpy(embeddings), seed=config["seed"], on_step=curves)
        with _timed("encode", figures):
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
    _write_ids(ids, config, inputs, out, figures=figures, embeddings=embeddings, reconstructed=reconstructed)


def import_codes(file: Path, config: Config, inputs: Inputs, out: Path) -> None:
    """A file of codes → all that :func:`tokenize` gives, but for the tokenizer and its seconds.

    Where the codebooks' size is not given, the figures that it enters are left out too.
    """
    import polars as pl  # noqa: PLC0415

    from recsys.datasets.published_codes import read_codes  # noqa: PLC0415

    items = pl.read_parquet(inputs["corpus"] / "items.parquet", columns=["item_id"])
    how = {name: config[name] for name in ("key", "column", "levels", "codebook_size")}
    ids = read_codes(file, item_ids=items["item_id"].to_list(), **how)
    (out / "curves.jsonl").touch()
    unknown = () if config["codebook_size"] else _OF_CODEBOOK_SIZE
    _write_ids(ids, config, inputs, out, figures={}, unknown=unknown)


def fit(config: Config, inputs: Inputs, out: Path) -> None:
    """Examples and what the retriever needs of IDs, texts and other retrievers → the fitted retriever.

    A fit that was cut short goes on from a checkpoint, which lies beside the folders of its stage.
    """
    split, relevant = _examples(inputs), config["relevant_gain"]
    if "ids" in inputs:
        ids = SemanticIds.load(inputs["ids"])
    else:  # a retriever that looks at no codes: every item is its own
        items = json.loads((inputs["corpus"] / "corpus.json").read_text())["items"]
        ids = SemanticIds(np.arange(items)[:, None], (items,))
    retriever = RETRIEVERS[config["kind"]](**config["params"])
    if isinstance(retriever, Fused):
        retriever.members = {
            name.removeprefix("member."): Retriever.load(folder / "retriever")
            for name, folder in inputs.items()
            if name.startswith("member.")
        }
    if retriever.uses_texts:
        from recsys.texts.item_texts import read_texts  # noqa: PLC0415 — imports slowly

        texts = read_texts(inputs["corpus"] / "texts.parquet")
    else:
        texts = []
    training = getattr(retriever, "training", None)
    retriever.fit(
        _not_empty(split.train.at_least(relevant), split.train, relevant),
        _not_empty(split.valid.answered(relevant), split.valid, relevant),
        ids,
        texts=texts,
        seed=config["seed"],
        on_step=Curves(out / "curves.jsonl", training.steps if training else None),
        checkpoint=_beside(out, "checkpoint"),
    )
    retriever.save(out / "retriever")


def score(config: Config, inputs: Inputs, out: Path) -> None:
    """The fitted retriever on the test examples → ``scores.parquet``, one row a query, and its figures."""
    asked, relevant = _examples(inputs).test, config["relevant_gain"]
    test = _not_empty(asked.answered(relevant), asked, relevant)
    corpus = json.loads((inputs["corpus"] / "corpus.json").read_text())
    retriever: Retriever = Retriever.load(inputs["retriever"] / "retriever")
    ranking = retriever.rank(
        test,
        max(config["cutoffs"]),
        exclude_seen=config["exclude_seen"],
        on_progress=lambda done: progress(done, len(test), "queries"),
    )
    QueryScores(
        test.query_ids,
        per_query_scores(ranking, test, config["cutoffs"], relevant_gain=relevant),
        evaluation_set_digest(test, corpus["item_ids_digest"], config["exclude_seen"], relevant),
    ).write(out / "scores.parquet")
    (out / "retriever.json").write_text(
        json.dumps(retriever.figures(test, max(config["cutoffs"])), indent=2) + "\n"
    )


def report(config: Config, inputs: Inputs, out: Path) -> None:
    """All cells' folders → ``report.html``."""
    (out / "report.html").write_text(html_report(read_results(config, inputs)))


def _examples(inputs: Inputs) -> Split:
    """Those of the corpus; queries in words with their embeddings."""
    vectors = inputs["embeddings"] / "query_embeddings.npy" if "embeddings" in inputs else None
    return read_split(inputs["corpus"], np.load(vectors, allow_pickle=False) if vectors else None)


def _not_empty(relevant: Examples, every: Examples, gain: float) -> Examples:
    """The relevant of these examples, of which some must be left if there were any."""
    if len(every) and not len(relevant):
        raise ValueError(
            f"no answer has a gain of {gain:g}; the highest is {every.gains.max():g}: lower "
            "evaluation.relevant_gain"
        )
    return relevant


def _beside(out: Path, what: str) -> Path:
    """A path for what outlives this attempt at a stage, beside its folder."""
    return out.parent / f"{out.name.rpartition('.partial-')[0]}.{what}"


def _write_ids(
    ids: SemanticIds,
    config: Config,
    inputs: Inputs,
    out: Path,
    *,
    figures: Mapping[str, float],
    embeddings: Floats | None = None,
    reconstructed: Floats | None = None,
    unknown: tuple[str, ...] = (),
) -> None:
    """Semantic IDs, with the digit if that is asked for, and the quality they have without it.

    What begins with one of ``unknown`` is left out of ``quality.json``.
    """
    names, categories = read_categories(inputs["corpus"])
    measured = quality(ids, embeddings, reconstructed, categories).as_metrics()
    known = {name: value for name, value in measured.items() if not name.startswith(unknown)}
    (out / "quality.json").write_text(json.dumps({**figures, **known}, indent=2) + "\n")
    CodeCategories.of(ids.codes[:, 0], categories, names).write(out / "code_categories.json")
    (with_digit(ids) if config["collisions"] == "digit" else ids).save(out)


@contextmanager
def _named(tokenizer: str, kind: str) -> Iterator[None]:
    """Let errors in the block say which tokenizer they are of; an ``OSError`` may pass and is left alone."""
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
def _timed(what: str, figures: dict[str, float]) -> Iterator[None]:
    """Put the seconds that the block takes into ``figures``."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    figures[f"{what}_seconds"] = time.perf_counter() - wall
    figures[f"{what}_cpu_seconds"] = time.process_time() - cpu


class Curves:
    """Takes what is reported while fitting: a line of JSON a step, and the progress on the screen.

    Args:
        path: of the file.
        total: how many steps there will be at the most, if that is known.
    """

    def __init__(self, path: Path, total: int | None) -> None:
        self.path, self.total = path, total
        path.touch()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep one step."""
        numbers = {name: float(value) for name, value in metrics.items()}  # tensors and NumPy's, too
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        shown = " ".join(f"{name} {value:.4g}" for name, value in list(numbers.items())[:3])
        progress(step, self.total, shown)
