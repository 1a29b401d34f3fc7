"""Gets the files of a card: mirrors in turn, broken downloads resumed, every file known by its hash.

Beside the files lies ``hashes.yaml``: the SHA-256 of each as it was first seen. From then on a file that
changes is refused, on this disk as on its owner's host.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pooch
import requests
import urllib3
import yaml

from recsys.datasets.cards import Card, CardFile, Published
from semantic_ids.files import atomic_write

OnBytes = Callable[[str, int, int | None], None]
"""Called with the name of a file, the bytes that are there and, if the host tells, those that will be."""

HASHES = "hashes.yaml"
PATIENCE = (10, 60)
"""Seconds to wait for a connection, and for the next bytes."""
CHUNK = 1 << 20


def fetch(card: Card, folder: Path, on_bytes: OnBytes = lambda name, done, total: None) -> dict[str, Path]:
    """Make sure that the files of a card are in ``folder`` and are the right ones.

    What is there is checked, not downloaded again; files may as well be put there by hand.

    Args:
        card: of one category, if the corpus has categories (:meth:`Card.choose`).
        folder: made if it is not there.
        on_bytes: progress of downloads.

    Returns:
        The reader's file parameters and the files for them.

    Raises:
        ValueError: a file is not the one that was published or first seen, or an archive is not sound.
        FileNotFoundError: files are missing and could not be downloaded; the message says what to do.
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
    absent = [file for file in card.files if file in archives or file.name in missing]
    absent = [file for file in absent if not (folder / file.name).is_file()]
    failed = {
        file.name: reasons
        for file in absent
        if (reasons := _download(file, folder, hashes.expected(file.name), on_bytes))
    }
    hashes.check_present()
    if failed:
        raise FileNotFoundError(_by_hand(card, folder, failed))
    for file in archives:
        unpack(folder / file.name, folder)
    if missing := card.missing(folder):
        raise FileNotFoundError(
            f"{folder}: no {', '.join(missing)}, though all archives of {card.name} are there"
        )
    hashes.check_present()
    return {parameter: folder / path for parameter, path in card.reads.items()}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive; files that are there already stay as they are.

    Raises:
        ValueError: the archive is damaged, or would write outside ``folder``; then nothing is unpacked.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                if _leads_out(name):
                    raise ValueError(f"{archive}: refused, because {name!r} in it leads out of {folder}")
            for member in members.infolist():
                target = folder / member.filename
                if member.is_dir() or target.exists():
                    continue
                with members.open(member) as source, atomic_write(target) as part, part.open("wb") as copy:
                    shutil.copyfileobj(source, copy, CHUNK)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{archive}: no sound zip archive ({error}); delete it to download it again"
        ) from error


def _leads_out(name: str) -> bool:
    path = PureWindowsPath(name)  # knows both kinds of slash, and drives
    return bool(path.anchor) or ".." in path.parts


class _Hashes:
    """The SHA-256 of the files of a card: as published, else as first seen."""

    def __init__(self, card: Card, folder: Path) -> None:
        self.card, self.folder, self.path = card, folder, folder / HASHES
        self.seen = _read_hashes(self.path)
        self.checked: set[str] = set()

    def published(self, name: str) -> str | None:
        return self.card.published.get(name, Published()).sha256

    def expected(self, name: str) -> str | None:
        return self.published(name) or self.seen.get(name)

    def check_present(self) -> None:
        """Check the files that are there and were not checked yet; note those that are new."""
        for name in (*(file.name for file in self.card.files), *self.card.reads.values()):
            if name not in self.checked and (self.folder / name).is_file():
                self._check(name)
                self.checked.add(name)

    def _check(self, name: str) -> None:
        path, published = self.folder / name, self.published(name)
        found, expected = pooch.file_hash(str(path)), self.expected(name)
        if expected not in (None, found):
            state = (
                "is not the file that was published" if published else "has changed since it was first seen"
            )
            remedy = "" if published else f", or its line in {self.path} if the change is meant"
            raise ValueError(
                f"{path} {state}; delete it to download it again{remedy}\n"
                f"  expected SHA-256 {expected}\n  found    SHA-256 {found}"
            )
        if self.seen.get(name) != found:
            self.seen[name] = found
            with atomic_write(self.path) as part:
                part.write_text(yaml.safe_dump(self.seen))


def _read_hashes(path: Path) -> dict[str, str]:
    try:
        hashes = yaml.safe_load(path.read_text()) if path.exists() else {}
    except yaml.YAMLError:
        hashes = None
    if isinstance(hashes, dict) and all(isinstance(value, str) for value in hashes.values()):
        return hashes
    raise ValueError(f"{path}: must hold a line 'file: SHA-256' for each file; mend or delete it")


def _download(file: CardFile, folder: Path, sha256: str | None, on_bytes: OnBytes) -> list[str]:
    """Try one address after the other; why each failed, or nothing if one did not."""
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
    """A downloader for pooch that goes on where one before it was cut off.

    What has come is kept in ``part``. It is gone on with only if it came from the same address and the host
    says, by ETag or date, that the file is still the same (``If-Range`` of RFC 9110).

    Args:
        part: where to keep what has come.
        on_bytes: called with the bytes that are there and, if the host tells, those that will be.
    """

    def __init__(self, part: Path, on_bytes: Callable[[int, int | None], None]) -> None:
        self.part, self.on_bytes = part, on_bytes
        self.origin = part.with_name(f"{part.name}.origin")

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download ``url`` into ``output_file``.

        Raises:
            requests.RequestException, urllib3.exceptions.HTTPError: the host does not give the file.
            ValueError: the host gives something else.
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
                # Raw, because a host may call a .gz file an encoding, which would then be undone.
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
        headers = {"Accept-Encoding": "identity"}
        start, validator = self._state(url)
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        response = requests.get(url, headers=headers, stream=True, timeout=PATIENCE)
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            response.close()
            self.part.unlink()
            return self._request(url)
        return response

    def _state(self, url: str) -> tuple[int, str]:
        """How many bytes can be gone on from, and what tells that the file is still the same."""
        if not (self.part.exists() and self.origin.exists()):
            return 0, ""
        origin, _, validator = self.origin.read_text().partition("\n")
        return (self.part.stat().st_size, validator) if origin == url and validator else (0, "")

    def _begin(self, url: str, response: requests.Response) -> None:
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        self.part.write_bytes(b"")
        self.origin.write_text(f"{url}\n{validator}")


def _reason(error: Exception) -> str:
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


def _by_hand(card: Card, folder: Path, failed: dict[str, list[str]]) -> str:
    lines = [f"{card.name}: could not be downloaded."]
    for name, reasons in failed.items():
        lines += [f"  {name}", *(f"    {reason}" for reason in reasons)]
    lines.append("Run the command again later: what has begun goes on where it stopped. Or do it by hand:")
    lines.append(f"get {', '.join(failed)} from {card.source} and put into {folder}")
    return "\n".join([*lines, card.help] if card.help else lines)
