"""One round of fuzzing: a mutated file, its reader, and checks of the result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from recsys.datasets.corpus import Corpus
from tests.fuzz.mutations import TRACE, mutated_parquet, mutated_text
from tests.fuzz.targets import Files, Target

LONGEST_MESSAGE = 1000
BROKEN_LINE = b"\n\xff\n"
PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


class ReaderError(Exception):
    """A reader did something that it must never do."""


@dataclass(frozen=True)
class Round:
    """Files and options for a reader.

    Attributes:
        target: The reader and its files.
        files: The files of the target, one of them mutated.
        options: Options of the reader.
        mutated: Parameter of the mutated file.
        lines: Number of mutated lines.
    """

    target: Target
    files: Files
    options: dict[str, Any]
    mutated: str
    lines: int

    def is_read(self) -> bool:
        """Return whether the reader reads the files; if not, it refuses them with one clear error.

        Raises:
            ReaderError: If the reader does anything else.
        """
        result = self._read(self.options)
        if isinstance(result, Corpus):
            self._check_corpus(result)
            if self.options.get("skip_bad_lines") is False:
                self._check_with_broken_line(result)
        return result is not None

    def _read(self, options: Mapping[str, Any]) -> object | None:
        """Return the result of the reader, None if it refuses the files."""
        try:
            return self.target.read(**self.files, **options)  # type: ignore[no-any-return]
        except (ValueError, OSError) as error:
            self._check_message(str(error), bool(options.get("skip_bad_lines")))
            return None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # panics of polars are not Exceptions
            raise ReaderError(f"{type(error).__name__} came out of {self}") from error
        finally:
            if Path(TRACE).exists():
                raise ReaderError(f"a line was executed by {self}")

    def _check_message(self, message: str, skips: bool) -> None:
        """Raise a ReaderError unless an error message is short, names a file and fits the options."""
        if not any(str(path) in message for path in self.files.values()):
            raise ReaderError(f"no file is named by the message of {self}: {message}")
        if len(message) > LONGEST_MESSAGE:
            raise ReaderError(f"{len(message)} characters are in the message of {self}: {message[:100]}")
        if skips and "skip_bad_lines" in message:
            raise ReaderError(f"a line was not left out by {self}: {message}")

    def _check_corpus(self, corpus: Corpus) -> None:
        """Check what :class:`Corpus` does not check itself."""
        times = corpus.interactions["timestamp"]
        if len(times) and times.min() < 0:
            raise ReaderError(f"times before 1970 came out of {self}")
        if "" in corpus.items["item_id"]:
            raise ReaderError(f"an item without an id came out of {self}")
        if corpus.skipped_lines and not self.options.get("skip_bad_lines"):
            raise ReaderError(f"lines were left out by {self} although they must not be")

    def _check_with_broken_line(self, corpus: Corpus) -> None:
        """Check that the corpus stays the same with an additional broken line that is skipped.

        Readers then parse line by line, which is other code.
        """
        path = self.files[self.mutated]
        content = path.read_bytes()
        if self.mutated == "texts" or content.startswith(PACKED):
            return
        path.write_bytes(content.removesuffix(b"\n") + BROKEN_LINE)
        again = self._read({**self.options, "skip_bad_lines": True})
        path.write_bytes(content)
        if not isinstance(again, Corpus) or again.skipped_lines != 1:
            raise ReaderError(f"the broken line at the end is not left out by {self}")
        if again.digest() != corpus.digest():
            raise ReaderError(f"the broken line at the end makes a difference to {self}")

    def __str__(self) -> str:
        files = {name: str(path) for name, path in self.files.items()}
        return f"{self.target.reader} {files | self.options}"


def make_round(target: Target, rng: Random, folder: Path, most: int | None = None) -> Round:
    """Mutate one file of a target.

    Args:
        target: A reader with its files.
        rng: Random numbers.
        folder: Folder for the mutated file. It is emptied first.
        most: Largest number of lines to mutate; by default at random up to all.

    Returns:
        The round, with the other files unchanged.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parameter = rng.choice(sorted(target.files))
    sound = target.files[parameter]
    path = folder / sound.name
    lines = 0
    if rng.random() < 0.002:
        path.mkdir()
    else:
        mutated = mutated_parquet if sound.suffix == ".parquet" else mutated_text
        content, lines = mutated(sound.read_bytes(), rng, most)
        path.write_bytes(content)
    return Round(target, target.files | {parameter: path}, dict(rng.choice(target.options)), parameter, lines)
