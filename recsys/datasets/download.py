"""Downloads of the files of a card, with mirrors, resumed downloads and a check of every file's hash.

The folder of the files also has ``hashes.yaml`` with the SHA-256 hash of every file when it was first seen. A
file that changes afterwards, on this disk or on its owner's host, is an error.
"""

from __future__ import annotations

import errno
import logging
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pooch
import requests
import urllib3
import yaml

from recsys.datasets.cards import HASHES, Card, CardFile, Published
from recsys.datasets.formats.limits import check_unpacked
from recsys.yaml_files import read_yaml
from semantic_ids.files import atomic_write

logger = logging.getLogger(__name__)

OnBytes = Callable[[str, int, int | None], None]
"""Called with the name of a file, the number of bytes so far, and the total if the host gives it."""

TIMEOUTS = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""

MOST_MEMBERS = 10_000
"""Largest number of files in an archive."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
"""Errors that mean that an archive is damaged or packed in an unknown way."""

CHUNK = 1 << 20
"""Number of bytes that are copied at a time."""


def fetch(card: Card, folder: Path, on_bytes: OnBytes = lambda name, done, total: None) -> dict[str, Path]:
    """Download the missing files of a card, unpack archives, and check all files.

    Files that exist are checked, not downloaded again. Users may also put files there by hand.

    Args:
        card: The card. If the corpus has categories, choose one first, see
            :meth:`~recsys.datasets.cards.Card.choose`.
        folder: Folder of the files. It is created if it does not exist.
        on_bytes: Called with the progress of downloads.

    Returns:
        The files by the file parameters of the reader.

    Raises:
        ValueError: If a file is not the published one or has changed since it was first seen; if an archive
            is damaged; or if the card has categories.
        FileNotFoundError: If files are missing and could not be downloaded. The message says what to do.
    """
    if card.categories:
        raise ValueError(f"{card.name}: choose one of its categories first")
    hashes = _Hashes(card, folder)
    hashes.check_present()
    missing = card.missing(folder)
    if missing and card.log_in:
        steps = card.log_in.replace("{folder}", str(folder))
        raise FileNotFoundError(
            f"{folder}: no {' and no '.join(missing)}. Only a person can get them:\n{steps}"
        )
    archives = [file for file in card.files if missing and file.name.endswith(".zip")]
    needed = [file for file in card.files if file in archives or file.name in missing]
    absent = [file for file in needed if not (folder / file.name).is_file()]
    failed = {
        file.name: reasons
        for file in absent
        if (reasons := _download(file, folder, hashes.expected(file.name), on_bytes))
    }
    hashes.check_present()
    if failed:
        raise FileNotFoundError(_instructions(card, folder, failed))
    for file in archives:
        unpack(folder / file.name, folder)
    if missing := card.missing(folder):
        raise FileNotFoundError(
            f"{folder}: no {', '.join(missing)}, though all archives of {card.name} are there"
        )
    hashes.check_present()
    return {parameter: folder / path for parameter, path in card.reads.items()}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a folder. Files that already exist there stay unchanged.

    Args:
        archive: The zip file.
        folder: Target folder.

    Raises:
        ValueError: If the archive is damaged; if it unpacks to too many bytes or files; or if a member could
            be written elsewhere or twice. Nothing is unpacked then, except before damage.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            _check_members(archive, members.infolist())
            for member in members.infolist():
                target = folder / member.filename
                if member.is_dir() or target.exists():
                    continue
                with members.open(member) as source, atomic_write(target) as part, part.open("wb") as copy:
                    shutil.copyfileobj(source, copy, CHUNK)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # such as a full disk
        raise ValueError(
            f"{archive}: no sound zip archive ({error}); delete it to download it again"
        ) from error


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise a ValueError unless all members can be unpacked next to each other in the folder."""
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"{archive}: refused, because it has {len(members)} files")
    check_unpacked(archive, sum(member.file_size for member in members))
    seen: set[str] = set()
    for member in members:
        if problem := _problem(member, seen):
            raise ValueError(f"{archive}: refused, because {member.filename!r} in it {problem}")
        seen.add(member.filename)


def _problem(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    """Return why a member cannot be unpacked, None if it can; ``seen`` are the names before it."""
    path = PureWindowsPath(member.filename)  # it understands both kinds of slash, and drives
    if path.anchor or ".." in path.parts:
        return "leads out of the folder"
    if not member.filename.isprintable():
        return "has control characters in its name"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    if member.flag_bits & 1:
        return "needs a password"
    return "is there twice" if member.filename in seen else None


class _Hashes:
    """The SHA-256 hashes of a card's files: as published, or else as first seen.

    Args:
        card: The card.
        folder: Folder of the files and of ``hashes.yaml``.
    """

    def __init__(self, card: Card, folder: Path) -> None:
        self.card, self.folder, self.path = card, folder, folder / HASHES
        self.seen = _read_hashes(self.path)
        self.checked: set[str] = set()

    def published(self, name: str) -> str | None:
        """Return the published hash of a file, None if there is none."""
        return self.card.published.get(name, Published()).sha256

    def expected(self, name: str) -> str | None:
        """Return the hash that a file must have, None for a file without published hash on first sight."""
        return self.published(name) or self.seen.get(name)

    def check_present(self) -> None:
        """Check the existing files that were not checked yet, and record the hashes of new ones."""
        for name in (*(file.name for file in self.card.files), *self.card.reads.values()):
            path = self.folder / name
            if path.exists() and not path.is_file():
                raise ValueError(f"{path} is no file; remove it")
            if name not in self.checked and path.is_file():
                self._check(name)
                self.checked.add(name)

    def _check(self, name: str) -> None:
        """Raise a ValueError if a file has another hash than expected; record the hash of a new file."""
        path, published = self.folder / name, self.published(name)
        actual, expected = pooch.file_hash(str(path)), self.expected(name)
        if expected not in (None, actual):
            state = (
                "is not the file that was published" if published else "has changed since it was first seen"
            )
            remedy = "" if published else f", or delete its line in {self.path} if the change is intended"
            raise ValueError(
                f"{path} {state}; delete it to download it again{remedy}\n"
                f"  expected SHA-256 {expected}\n  found    SHA-256 {actual}"
            )
        if not published and self.seen.get(name) != actual:
            self.seen[name] = actual
            self._write()

    def _write(self) -> None:
        """Write the record, or warn if the folder cannot be written; its files can be read all the same."""
        try:
            with atomic_write(self.path) as part:
                part.write_text(yaml.safe_dump(self.seen))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            logger.warning("%s cannot be written, so a later change of a file will not be noticed", self.path)


def _read_hashes(path: Path) -> dict[str, str]:
    """Return the recorded hashes by file name, empty if there is no such file."""
    if not path.exists():
        return {}
    remedy = f"{path}: must hold a line 'file: SHA-256' for each file; correct or delete it"
    try:
        hashes = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{remedy}\n{error}") from error
    if isinstance(hashes, dict) and all(isinstance(value, str) for value in hashes.values()):
        return hashes
    raise ValueError(remedy)


def _download(file: CardFile, folder: Path, sha256: str | None, on_bytes: OnBytes) -> list[str]:
    """Download a file from the first address that works.

    Returns:
        The reason for which each address failed; empty if the download succeeded.
    """
    pooch.get_logger().setLevel("ERROR")
    reasons = []
    for url in file.urls:
        downloader = ResumingDownloader(
            folder / f"{file.name}.part", lambda *sizes: on_bytes(file.name, *sizes)
        )
        try:
            pooch.retrieve(url, sha256, fname=file.name, path=folder, downloader=downloader)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            reasons.append(f"{url}: {_reason(error)}")
        else:
            return []
    return reasons


class ResumingDownloader:
    """A downloader for pooch that resumes an interrupted download.

    The bytes so far are kept in ``part``. A download is resumed only if they came from the same address and
    the host confirms, by ETag or date, that the file is still the same (``If-Range`` of RFC 9110).

    Args:
        part: File for the bytes of an unfinished download.
        on_bytes: Called with the number of bytes so far, and the total if the host gives it.
    """

    def __init__(self, part: Path, on_bytes: Callable[[int, int | None], None]) -> None:
        self.part, self.on_bytes = part, on_bytes
        self.origin = part.with_name(f"{part.name}.origin")

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download ``url`` into ``output_file``.

        Args:
            url: Address of the file.
            output_file: Path of the finished download.
            pooch: Not used; pooch passes its instance.

        Raises:
            requests.RequestException: If the host does not send the file.
            urllib3.exceptions.HTTPError: If the connection breaks.
            ValueError: If the host sends a web page, or more or fewer bytes than announced.
        """
        with self._request(url) as response:
            response.raise_for_status()
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise ValueError("gives a web page, not the file")
            resumed = response.status_code == requests.codes.partial_content
            if not resumed:
                self._begin(url, response)
            done = self.part.stat().st_size
            length = response.headers.get("Content-Length")
            total = done + int(length) if length else None
            with self.part.open("ab") as file:
                # Raw, because a host may declare a .gz file as an encoding, and requests would unpack it.
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    done += file.write(chunk)
                    self.on_bytes(done, total)
        size = self.part.stat().st_size
        if total not in (None, size):
            self.part.unlink()
            raise ValueError(
                f"{self.part} has {size} bytes instead of {total}; is another download of it running?"
            )
        os.replace(self.part, output_file)
        self.origin.unlink()

    def _request(self, url: str) -> requests.Response:
        """Request the file, or only the rest of it if an earlier download can be resumed."""
        headers = {"Accept-Encoding": "identity"}
        start, validator = self._state(url)
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            response.close()
            self.part.unlink()
            return self._request(url)
        return response

    def _state(self, url: str) -> tuple[int, str]:
        """Return the number of bytes to resume from, and the ETag or date for ``If-Range``.

        The number is 0 if the download must start anew.
        """
        if not (self.part.exists() and self.origin.exists()):
            return 0, ""
        origin, _, validator = self.origin.read_text().partition("\n")
        return (self.part.stat().st_size, validator) if origin == url and validator else (0, "")

    def _begin(self, url: str, response: requests.Response) -> None:
        """Start a new download: empty ``part``, and record the address and the ETag or date."""
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        self.part.write_bytes(b"")
        self.origin.write_text(f"{url}\n{validator}")


def _reason(error: Exception) -> str:
    """Return the reason of a failed download in a few words."""
    match error:
        case requests.HTTPError(response=requests.Response() as response):
            return f"{response.status_code} {response.reason}"
        case requests.exceptions.SSLError():
            return "its certificate cannot be verified"
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return "no answer in time"
        case requests.ConnectionError():
            return "no connection"
        case urllib3.exceptions.HTTPError():
            return "the connection broke off"
        case _:
            return str(error)


def _instructions(card: Card, folder: Path, failed: dict[str, list[str]]) -> str:
    """Return a message with the reasons of failed downloads, and with what to do."""
    lines = [f"{card.name}: could not be downloaded."]
    for name, reasons in failed.items():
        lines += [f"  {name}", *(f"    {reason}" for reason in reasons)]
    lines.append("Run the command again later; it resumes downloads where they stopped. Or do it by hand:")
    lines.append(f"get {', '.join(failed)} from {card.source} and put into {folder}")
    return "\n".join([*lines, card.help] if card.help else lines)
