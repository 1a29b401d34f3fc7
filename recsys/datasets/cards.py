"""Dataset cards: where a corpus comes from, what one may do with it, and which files its reader needs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

CATEGORY = "{category}"
"""What stands for the name of a category in names of files and addresses."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Address = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[\w{][\w{}.-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CardFile(_Part):
    """A file that the owner gives out.

    Attributes:
        name: in the corpus's folder; what ends in ``.zip`` is unpacked there.
        urls: the owner's host first, then mirrors that hold the same bytes.
    """

    name: FileName
    urls: tuple[Address, ...] = Field(min_length=1)


class Published(_Part):
    """What is publicly known of a file.

    Attributes:
        size: in bytes.
        sha256: 64 hex digits.
    """

    size: int | None = Field(default=None, ge=1)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Card(_Part):
    """A corpus that others published.

    Attributes:
        name: what users call it; also the name of the card's file.
        title: one line.
        reader: which reader of :mod:`recsys.datasets` takes its files.
        options: what else the reader is told, such as the release.
        source: the owner's page.
        licence: what one may do with the data, in a sentence.
        citation: what to cite.
        folder: where the files go.
        reads: the reader's file parameters, each with a path in ``folder``.
        files: what is downloaded; with what the archives among them hold, they make up ``reads``.
        categories: parts of the corpus that come as files of their own; ``{category}`` stands for one of
            them in ``reads`` and ``files``.
        published: by the name of a file, what is known of it.
        counts: what a sound copy holds, such as users and items, by category (``all`` without categories).
        log_in: in place of ``files``, what a person has to do where no program can download; ``{folder}``
            stands for where the files go.
        help: what else to try where the hosts do not answer.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: Text
    reader: Text
    options: dict[str, Any] = {}
    source: Address
    licence: Text
    citation: Text
    folder: Path
    reads: dict[str, str] = Field(min_length=1)
    files: tuple[CardFile, ...] = ()
    categories: tuple[FileName, ...] = ()
    published: dict[str, Published] = {}
    counts: dict[str, dict[str, float]] = {}
    log_in: str = ""
    help: str = ""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = {file.name for file in self.files}
        for parameter, path in self.reads.items():
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"reads.{parameter}: {path!r} must be a path inside the folder")
            if path not in names and not any(name.endswith(".zip") for name in names) and not self.log_in:
                raise ValueError(f"reads.{parameter}: {path!r} is none of the files, nor is there an archive")
        for text in (*self.reads.values(), *names):
            if (CATEGORY in text) != bool(self.categories):
                wanted = (
                    f"name {CATEGORY}" if self.categories else f"not name {CATEGORY}: there are no categories"
                )
                raise ValueError(f"{text!r} must {wanted}")
        if bool(self.files) == bool(self.log_in):
            raise ValueError("give files to download, or say under log_in how a person gets them")
        for category in self.counts:
            if category not in (self.categories or ("all",)):
                raise ValueError(f"counts.{category}: no such category ('all' where there are none)")
        return self

    def choose(self, category: str | None) -> Card:
        """The card of one category alone, with its name filled in; the card itself if it has none.

        Raises:
            ValueError: no category given where there are some, or one that is not there.
        """
        if not self.categories:
            if category:
                raise ValueError(f"{self.name} has no categories: leave the category out")
            return self
        if not category:
            raise ValueError(f"{self.name}: choose a category, one of {', '.join(self.categories)}")
        if category not in self.categories:
            from semantic_ids.plugins import nearest_name  # noqa: PLC0415 — brings torch, for an error alone

            hint = nearest_name(category, list(self.categories))
            raise ValueError(f"{self.name} has no category {category!r}. {hint}")
        files = [
            CardFile(name=fill(file.name, category), urls=tuple(fill(url, category) for url in file.urls))
            for file in self.files
        ]
        return self.model_copy(
            update={
                "reads": {key: fill(path, category) for key, path in self.reads.items()},
                "files": tuple(files),
                "categories": (),
                "counts": {"all": self.counts[category]} if category in self.counts else {},
                "help": fill(self.help, category),
            }
        )

    def size(self) -> int | None:
        """Bytes of all downloads together; None if they are not all known."""
        sizes = [self.published.get(file.name, Published()).size for file in self.files]
        return sum(size for size in sizes if size) if sizes and None not in sizes else None

    def missing(self, folder: Path) -> list[str]:
        """Which of ``reads`` are not in ``folder``."""
        return [path for path in self.reads.values() if not (folder / path).is_file()]


def fill(text: str, category: str) -> str:
    """``text`` with the category's name in its place."""
    return text.replace(CATEGORY, category)


def cards_folder() -> Path:
    """Where the project's own cards are: in an installed wheel beside this file, else in the repository."""
    installed = Path(__file__).parent / "data"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "data"


def all_cards() -> list[Card]:
    """The project's own cards, by name."""
    return [read_card(path) for path in sorted(cards_folder().glob("*.yaml"))]


def find_card(name: str) -> Card:
    """One of the project's own cards by its name, or any card by the path of its file.

    Raises:
        ValueError: there is no such card, or it is broken.
        FileNotFoundError: the file is missing.
    """
    if name.endswith((".yaml", ".yml")):
        return read_card(Path(name))
    known = sorted(path.stem for path in cards_folder().glob("*.yaml"))
    if name not in known:
        from semantic_ids.plugins import nearest_name  # noqa: PLC0415 — brings torch, for an error alone

        raise ValueError(f"there is no corpus {name!r}. {nearest_name(name, known)}")
    return read_card(cards_folder() / f"{name}.yaml")


def read_card(path: Path) -> Card:
    """Read and check a card.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is no card; one line for each field that is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the name of a corpus or the file of a card")
    try:
        card = Card.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    except ValidationError as error:
        wrong = (f"  {'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{path} is no dataset card:\n" + "\n".join(wrong)) from error
    if card.name != path.stem:
        raise ValueError(f"{path}: name is {card.name!r}; it must be that of the file, {path.stem!r}")
    return card
