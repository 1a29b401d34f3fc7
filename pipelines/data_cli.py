"""The commands ``gritrec data``: list corpora, download them, and check files."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pipelines.paths import user_path
from pipelines.screen import ERR, OUT, printable, words

if TYPE_CHECKING:
    from recsys.datasets.cards import Card

data = typer.Typer(no_args_is_help=True, help="Which corpora there are, and how to get them.")


@data.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A name of `gritrec data list`, or the file of a card (YAML).")],
    category: Annotated[
        str | None, typer.Option(help="Which part of the corpus, where it has parts.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            parser=user_path, metavar="FOLDER", help="Where the files go; the card's folder if not given."
        ),
    ] = None,
) -> None:
    """Download a corpus, or check the files that are there.

    An interrupted download resumes. A file that has changed since it was first seen is refused.
    """
    from recsys.datasets.cards import find_card  # noqa: PLC0415
    from recsys.datasets.download import fetch  # noqa: PLC0415

    card = find_card(name).choose(category)
    place = folder or card.folder
    _introduce(card, place)
    with _progress() as progress:
        tasks = {
            file.name: progress.add_task(printable(file.name), visible=False, total=None)
            for file in card.files
        }
        files = fetch(
            card,
            place,
            lambda file, done, total: progress.update(tasks[file], completed=done, total=total, visible=True),
        )
    OUT.print(
        f"\nAll files are there. In a benchmark file:\n\n{_as_config(card, place, files)}", soft_wrap=True
    )


@data.command("check")
def check(
    path: Annotated[
        Path, typer.Argument(help="A benchmark file (YAML), or a folder of raw files with --set reader=NAME.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: data.raw=FOLDER of a file; reviews=FILE for a folder."),
    ] = None,
) -> None:
    """Read a corpus as a run would, but without its k-core, and summarise it on one screen.

    Broken lines are counted. What no run could read is an error that names file and line. Of a benchmark file
    only the section data is looked at.
    """
    from pipelines.config.loading import load_data  # noqa: PLC0415
    from pipelines.run.stages import read_raw  # noqa: PLC0415
    from recsys.datasets.health import health  # noqa: PLC0415

    if not path.exists():
        raise FileNotFoundError(
            f"{path} is no benchmark file and no folder; gritrec data list tells of corpora"
        )
    if path.suffix not in (".yaml", ".yml") and not path.is_dir():
        raise ValueError(f"{path} is no benchmark file (YAML); of raw files give the folder")
    chosen = load_data(path, settings or [])
    changes = {"k_core": 1, "skip_bad_lines": True}
    options = {**chosen.options, **{name: value for name, value in changes.items() if name in chosen.options}}
    with TemporaryDirectory() as scratch, ERR.status("reading ...", spinner=ERR.spinner):
        corpus = read_raw({**chosen.model_dump(), "options": options}, chosen.raw, Path(scratch))
    for heading, facts in health(corpus).items():
        OUT.print(heading, style="bold")
        for name, value in facts.items():
            OUT.print(f"  {name:32} {value}", soft_wrap=True)


@data.command("list")
def list_() -> None:
    """List the corpora that have a card, and which of their files are on this disk."""
    from recsys.datasets.cards import all_cards  # noqa: PLC0415

    for card in all_cards():
        licence = re.split(r";|\. | \(| under ", card.licence)[0].removesuffix(".")
        OUT.print(words((f"{card.name:24}", "bold"), f"{_size(card):12}on this disk: {_present(card)}"))
        OUT.print(f"  {card.title}", style="dim", soft_wrap=True)
        OUT.print(f"  {licence}", style="dim", soft_wrap=True)


def _introduce(card: Card, folder: Path) -> None:
    """Print what a corpus is, its licence, and where its files go."""
    OUT.print(card.title, style="bold")
    for label, text in {
        "licence": card.licence,
        "cite": card.citation,
        "source": card.source,
        "size": _size(card),
        "folder": str(folder),
    }.items():
        OUT.print(f"  {label:8} {text}", soft_wrap=True)


def _progress() -> Progress:
    """Return a progress bar for downloads."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=ERR,
    )


def _as_config(card: Card, folder: Path, files: dict[str, Path]) -> str:
    """Return the section ``data`` of a benchmark file on this corpus."""
    named = {parameter: str(path.relative_to(folder)) for parameter, path in files.items()}
    section = {"reader": card.reader, **card.options, "raw": str(folder), **named}
    return yaml.safe_dump({"data": section}, sort_keys=False)


def _size(card: Card) -> str:
    """Return the size of a corpus' files, as far as it is known."""
    size = card.size()
    return decimal(size) if size else "by category" if card.categories else "unknown"


def _present(card: Card) -> str:
    """Return which categories of a corpus are in its folder, or yes, no, or how many of its files."""
    if card.categories:
        there = [name for name in card.categories if not card.choose(name).missing(card.folder)]
        return ", ".join(there) or "no"
    missing, needed = len(card.missing(card.folder)), len(card.reads)
    return {0: "yes", needed: "no"}.get(missing, f"{needed - missing} of {needed} files")
