"""Dataset cards: the source of a corpus, its licence, and the files that its reader needs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from recsys.yaml_files import read_yaml

CATEGORY = "{category}"
"""Placeholder for the name of a category in file names and addresses."""

DATA = PurePosixPath("data/raw")
"""Folder of all raw files, in the folder that a command runs in. Only a user may choose another one."""

HASHES = "hashes.yaml"
"""Name of the file with the hashes of a corpus's files, in the same folder."""


def _inside(path: PurePosixPath) -> bool:
    """Return whether a path stays in the folder that it is relative to, and has no control characters."""
    return not path.is_absolute() and ".." not in path.parts and str(path).isprintable()


def _in_data(folder: Path) -> Path:
    """Return a card's folder, or raise a ValueError if it is not in :data:`DATA`."""
    path = PurePosixPath(folder.as_posix())
    if not _inside(path) or DATA not in path.parents:
        raise ValueError(f"{str(folder)!r} must be a folder in {DATA}; --folder may choose any other one")
    return folder


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Address = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[\w{][\w{}.-]*$")]


class _Part(BaseModel):
    """A part of a card, which accepts no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CardFile(_Part):
    """A file to download.

    Attributes:
        name: Name of the file in the corpus's folder. Files that end in ``.zip`` are unpacked there.
        urls: Addresses of the file: the owner's host first, then mirrors with the same bytes.
    """

    name: FileName
    urls: tuple[Address, ...] = Field(min_length=1)


class Published(_Part):
    """The published size and hash of a file, as far as they are known.

    Attributes:
        size: Size in bytes.
        sha256: SHA-256 hash, 64 hex digits.
    """

    size: int | None = Field(default=None, ge=1)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Card(_Part):
    """A published corpus.

    Attributes:
        name: Name of the corpus in commands, and name of the card's file without ``.yaml``.
        title: Title in one line.
        reader: Name of the reader, see :data:`recsys.datasets.readers.READERS`.
        options: Options for the reader, such as the release.
        source: Address of the owner's page.
        licence: What the licence permits, in a sentence.
        citation: The publication to cite.
        folder: Folder for the files, in :data:`DATA`.
        reads: Paths in ``folder`` by file parameter of the reader.
        files: Files to download. Together with the files in their archives they include all of ``reads``.
        categories: Parts of the corpus with files of their own. ``reads`` and ``files`` contain the
            placeholder ``{category}`` for the name of the part.
        published: Known sizes and hashes by file name.
        counts: Sizes of a complete copy, such as the numbers of users and items, by category (``all`` if
            there are no categories).
        log_in: Instructions for a person if no program can download the files, instead of ``files``. They
            may contain the placeholder ``{folder}``.
        help: Advice for the case that the hosts do not answer.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: Text
    reader: Text
    options: dict[str, Any] = {}
    source: Address
    licence: Text
    citation: Text
    folder: Annotated[Path, AfterValidator(_in_data)]
    reads: dict[str, str] = Field(min_length=1)
    files: tuple[CardFile, ...] = ()
    categories: tuple[FileName, ...] = ()
    published: dict[str, Published] = {}
    counts: dict[str, dict[str, float]] = {}
    log_in: str = ""
    help: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Raise a ValueError if paths, placeholders, files or counts do not fit together."""
        names = [file.name for file in self.files]
        for name in names:
            if names.count(name) > 1 or name == HASHES or name.endswith((".part", ".origin")):
                raise ValueError(f"files: {name!r} is the name of another file; give each its own name")
        for parameter, path in self.reads.items():
            if not _inside(PurePosixPath(path)):
                raise ValueError(f"reads.{parameter}: {path!r} must be a path inside the folder")
            if path not in names and not any(name.endswith(".zip") for name in names) and not self.log_in:
                raise ValueError(f"reads.{parameter}: {path!r} is none of the files, and there is no archive")
        for text in (*self.reads.values(), *names):
            if (CATEGORY in text) != bool(self.categories):
                wanted = (
                    f"name {CATEGORY}" if self.categories else f"not name {CATEGORY}: there are no categories"
                )
                raise ValueError(f"{text!r} must {wanted}")
        if bool(self.files) == bool(self.log_in):
            raise ValueError("give files to download, or say under log_in how a person gets them")
        if unknown := [name for name in self.published if name not in self._all_names()]:
            raise ValueError(f"published.{unknown[0]}: this is none of the files")
        for category in self.counts:
            if category not in (self.categories or ("all",)):
                raise ValueError(
                    f"counts.{category}: no such category (write 'all' if there are no categories)"
                )
        return self

    def _all_names(self) -> set[str]:
        """Return the names of all files and paths of all categories."""
        names = {*(file.name for file in self.files), *self.reads.values()}
        return {fill(name, category) for name in names for category in self.categories or ("",)}

    def choose(self, category: str | None) -> Card:
        """Return the card of one category, with the category's name in place of ``{category}``.

        Args:
            category: One of the card's categories; None if it has none.

        Returns:
            A card without categories; this card if it has none.

        Raises:
            ValueError: If the category is missing or unknown, or if the card has no categories.

        Example:
            >>> find_card("amazon2018").choose("Gift_Cards").reads["reviews"]
            'Gift_Cards_5.json.gz'
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
        """Return the size of all downloads in bytes, or None if one of the sizes is unknown."""
        sizes = [self.published.get(file.name, Published()).size for file in self.files]
        return sum(size for size in sizes if size) if sizes and None not in sizes else None

    def missing(self, folder: Path) -> list[str]:
        """Return the paths among ``reads`` that do not exist in ``folder``."""
        return [path for path in self.reads.values() if not (folder / path).is_file()]


def fill(text: str, category: str) -> str:
    """Return a text with the category's name in place of ``{category}``.

    Example:
        >>> fill("meta_{category}.json.gz", "Books")
        'meta_Books.json.gz'
    """
    return text.replace(CATEGORY, category)


def cards_folder() -> Path:
    """Return the folder of the project's own cards, in an installed wheel or in the repository."""
    in_wheel = Path(__file__).parent / "data"
    return in_wheel if in_wheel.is_dir() else Path(__file__).parents[2] / "data"


def all_cards() -> list[Card]:
    """Return the project's own cards, sorted by name."""
    return [read_card(path) for path in sorted(cards_folder().glob("*.yaml"))]


def find_card(name: str) -> Card:
    """Return a card by its name or by the path of its file.

    Args:
        name: Name of one of the project's own cards, or path of a file that ends in ``.yaml`` or ``.yml``.

    Returns:
        The card, with all its categories.

    Raises:
        ValueError: If there is no card of this name, or if the card has errors.
        FileNotFoundError: If the file does not exist.

    Example:
        >>> find_card("movielens-1m").reads
        {'ratings': 'ml-1m/ratings.dat', 'movies': 'ml-1m/movies.dat'}
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

    Args:
        path: YAML file with the fields of :class:`Card`.

    Returns:
        The card, with all its categories.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is no card; the message has one line for each wrong field.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the name of a corpus or the file of a card")
    try:
        card = Card.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = (f"  {'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{path} is no dataset card:\n" + "\n".join(problems)) from error
    if card.name != path.stem:
        raise ValueError(f"{path}: name is {card.name!r}; it must be the name of the file, {path.stem!r}")
    return card
