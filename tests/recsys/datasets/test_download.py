import hashlib
import io
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recsys.datasets.cards import Card
from recsys.datasets.download import fetch, unpack

CONTENT = bytes(range(256)) * 20_000  # 5,120,000 bytes: more than the buffers on the way
HALF = len(CONTENT) // 2


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Host(ThreadingHTTPServer):
    """Serve ``files``, in part if requested; close the connection after ``cut`` bytes of a body."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.etags = True
        self.cut: int | None = None
        self.requests: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Answer)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Answer(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        name, wanted = self.path[1:], self.headers.get("Range")
        self.server.requests.append((name, wanted))
        if name not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[name]
        etag = f'"{sha256(body)}"'
        start = 0
        if wanted and self.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.etags:
            self.send_header("ETag", etag)
        for header, value in self.server.headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.server.cut])

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def nobody() -> str:
    """Return an address on this machine that does not answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/a.bin"


def card(*urls: str, **changes: Any) -> Card:
    return Card.model_validate(
        {
            "name": "toys",
            "title": "Toys",
            "reader": "amazon",
            "source": "https://owner.example/toys",
            "licence": "Research use.",
            "citation": "A. Toymaker. Toys. 2020.",
            "folder": "data/raw/toys",
            "reads": {"reviews": "a.bin"},
            "files": [{"name": "a.bin", "urls": urls}] if urls else [],
            **changes,
        }
    )


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_the_first_sight_records_the_hash(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"] = CONTENT
    folder = tmp_path / "raw" / "toys"
    assert fetch(card(host.url("a.bin")), folder) == {"reviews": folder / "a.bin"}
    assert (folder / "a.bin").read_bytes() == CONTENT
    assert yaml.safe_load((folder / "hashes.yaml").read_text()) == {"a.bin": sha256(CONTENT)}
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "hashes.yaml"]


def test_what_is_there_is_not_downloaded_again(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"by hand")
    fetch(card(host.url("a.bin")), tmp_path)
    assert host.requests == []
    assert yaml.safe_load((tmp_path / "hashes.yaml").read_text()) == {"a.bin": sha256(b"by hand")}


def test_a_changed_file_is_refused_with_both_hashes(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"] = b"first"
    fetch(card(host.url("a.bin")), tmp_path)
    (tmp_path / "a.bin").write_bytes(b"second")
    with pytest.raises(ValueError, match=r"a\.bin has changed since it was first seen; delete it") as error:
        fetch(card(host.url("a.bin")), tmp_path)
    assert sha256(b"first") in str(error.value)
    assert sha256(b"second") in str(error.value)
    assert (tmp_path / "a.bin").read_bytes() == b"second", "a person's file is never overwritten"


def test_a_file_that_changed_at_its_owner_is_refused(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"] = b"first"
    fetch(card(host.url("a.bin")), tmp_path)
    (tmp_path / "a.bin").unlink()
    host.files["a.bin"] = b"second"
    with pytest.raises(FileNotFoundError, match="does not match") as error:
        fetch(card(host.url("a.bin")), tmp_path)
    assert sha256(b"first") in str(error.value)
    assert sha256(b"second") in str(error.value)
    assert not (tmp_path / "a.bin").exists()


def test_a_published_hash_holds_from_the_first_sight(host: Host, tmp_path: Path) -> None:
    toys = card(host.url("a.bin"), host.url("b.bin"), published={"a.bin": {"sha256": sha256(b"true")}})
    host.files |= {"a.bin": b"false", "b.bin": b"true"}
    fetch(toys, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"true", "from the mirror that has it"
    (tmp_path / "a.bin").write_bytes(b"false")
    with pytest.raises(ValueError, match=r"a\.bin is not the file that was published"):
        fetch(toys, tmp_path)


def test_a_dead_mirror_falls_over_to_the_next(host: Host, nobody: str, tmp_path: Path) -> None:
    host.files["b.bin"] = b"content"
    fetch(card(nobody, host.url("gone.bin"), host.url("b.bin")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"content"
    assert [name for name, _ in host.requests] == ["gone.bin", "b.bin"]


def test_a_broken_download_goes_on_where_it_stopped(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"] = CONTENT
    host.cut = HALF
    with pytest.raises(FileNotFoundError, match="the connection broke off"):
        fetch(card(host.url("a.bin")), tmp_path)
    assert not (tmp_path / "a.bin").exists()
    kept = (tmp_path / "a.bin.part").stat().st_size
    assert 0 < kept <= HALF

    host.cut = None
    seen: list[tuple[str, int, int | None]] = []
    fetch(card(host.url("a.bin")), tmp_path, lambda *progress: seen.append(progress))
    assert host.requests == [("a.bin", None), ("a.bin", f"bytes={kept}-")]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert seen[0][1] > kept
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert not list(tmp_path.glob("*.part*"))


def test_a_broken_download_of_what_has_changed_begins_anew(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"], host.cut = CONTENT, HALF
    with pytest.raises(FileNotFoundError):
        fetch(card(host.url("a.bin")), tmp_path)
    host.files["a.bin"], host.cut = CONTENT[::-1], None
    fetch(card(host.url("a.bin")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_without_etag_and_date_the_whole_file_is_requested_again(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"], host.cut, host.etags = CONTENT, HALF, False
    with pytest.raises(FileNotFoundError):
        fetch(card(host.url("a.bin")), tmp_path)
    host.cut = None
    fetch(card(host.url("a.bin")), tmp_path)
    assert host.requests == [("a.bin", None), ("a.bin", None)]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_another_mirror_does_not_go_on_with_a_file_of_the_first(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"], host.cut = CONTENT, HALF
    with pytest.raises(FileNotFoundError):
        fetch(card(host.url("a.bin")), tmp_path)
    host.files, host.cut = {"b.bin": CONTENT}, None
    fetch(card(host.url("a.bin"), host.url("b.bin")), tmp_path)
    assert host.requests[-1] == ("b.bin", None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_download_that_was_complete_but_for_its_name_is_fetched_anew(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"] = b"content"
    (tmp_path / "a.bin.part").write_bytes(b"content")
    (tmp_path / "a.bin.part.origin").write_text(f'{host.url("a.bin")}\n"{sha256(b"content")}"')
    fetch(card(host.url("a.bin")), tmp_path)
    assert host.requests == [("a.bin", "bytes=7-"), ("a.bin", None)]
    assert (tmp_path / "a.bin").read_bytes() == b"content"


def test_two_downloads_into_one_file_are_noticed(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"] = b"content"

    def another_writes(*progress: object) -> None:
        with (tmp_path / "a.bin.part").open("ab") as part:
            part.write(b"content")

    with pytest.raises(
        FileNotFoundError, match="has 14 bytes instead of 7; is another download of it running"
    ):
        fetch(card(host.url("a.bin")), tmp_path, another_writes)
    assert not (tmp_path / "a.bin").exists()
    assert not (tmp_path / "a.bin.part").exists()


def test_a_compressed_file_stays_as_it_is(host: Host, tmp_path: Path) -> None:
    """Some hosts declare a ``.gz`` file as an encoding of its content, and clients would unpack it."""
    host.files["a.bin"], host.headers["Content-Encoding"] = b"\x1f\x8b not really", "gzip"
    fetch(card(host.url("a.bin")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"\x1f\x8b not really"


def test_a_web_page_in_place_of_the_file_is_refused(host: Host, tmp_path: Path) -> None:
    host.files["a.bin"], host.headers["Content-Type"] = b"<html>moved</html>", "text/html; charset=utf-8"
    with pytest.raises(FileNotFoundError, match="gives a web page, not the file"):
        fetch(card(host.url("a.bin")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_network_a_person_is_told_what_to_do(nobody: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        fetch(card(nobody, help="Or ask the toymaker."), tmp_path)
    assert str(error.value).splitlines() == [
        "toys: could not be downloaded.",
        "  a.bin",
        f"    {nobody}: no connection",
        "Run the command again later; it resumes downloads where they stopped. Or do it by hand:",
        f"get a.bin from https://owner.example/toys and put into {tmp_path}",
        "Or ask the toymaker.",
    ]


def test_one_dead_file_does_not_keep_the_others_back(host: Host, tmp_path: Path) -> None:
    host.files["b.bin"] = b"content"
    two = card(
        reads={"reviews": "a.bin", "meta": "b.bin"},
        files=[{"name": name, "urls": [host.url(name)]} for name in ("a.bin", "b.bin")],
    )
    with pytest.raises(FileNotFoundError, match=r"get a\.bin from") as error:
        fetch(two, tmp_path)
    assert f"{host.url('a.bin')}: 404 Not Found" in str(error.value)
    assert yaml.safe_load((tmp_path / "hashes.yaml").read_text()) == {"b.bin": sha256(b"content")}


def test_what_only_a_person_can_get(tmp_path: Path) -> None:
    toys = card(log_in="Log in and put a.bin into {folder}.")
    with pytest.raises(FileNotFoundError, match=r"no a\.bin\. Only a person can get them") as error:
        fetch(toys, tmp_path)
    assert f"put a.bin into {tmp_path}." in str(error.value)
    (tmp_path / "a.bin").write_bytes(b"content")
    assert fetch(toys, tmp_path) == {"reviews": tmp_path / "a.bin"}


def test_an_archive_is_unpacked(host: Host, tmp_path: Path) -> None:
    host.files["a.zip"] = zipped(**{"toys/ratings.csv": "1,2,3", "toys/README": "terms"})
    toys = card(host.url("a.zip"), files=[{"name": "a.zip", "urls": [host.url("a.zip")]}])
    toys = toys.model_copy(update={"reads": {"ratings": "toys/ratings.csv"}})
    assert fetch(toys, tmp_path) == {"ratings": tmp_path / "toys/ratings.csv"}
    assert (tmp_path / "toys/ratings.csv").read_text() == "1,2,3"
    assert (tmp_path / "toys/README").read_text() == "terms"
    assert set(yaml.safe_load((tmp_path / "hashes.yaml").read_text())) == {"a.zip", "toys/ratings.csv"}

    (tmp_path / "a.zip").unlink()
    fetch(toys, tmp_path)
    assert len(host.requests) == 1, "the archive is not needed once its files are there"


def test_an_archive_without_the_file_is_told(host: Host, tmp_path: Path) -> None:
    host.files["a.zip"] = zipped(other="1")
    toys = card(files=[{"name": "a.zip", "urls": [host.url("a.zip")]}])
    with pytest.raises(FileNotFoundError, match=r"no a\.bin, though all archives of toys are there"):
        fetch(toys, tmp_path)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "a\\..\\..\\evil"])
def test_an_archive_that_leads_out_is_refused_whole(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "a.zip").write_bytes(zipped(**{"good": "1", name: "2"}))
    with pytest.raises(ValueError, match="leads out of"):
        unpack(tmp_path / "a.zip", folder)
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "folder"]


def hostile_link(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("ratings")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


def hostile_twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("ratings", "1")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("ratings", "2")


HOSTILE = {
    "'ratings' in it is a symbolic link": hostile_link,
    "'ratings' in it is there twice": hostile_twice,
    r"'a\\x1b\[2J' in it has control characters": lambda archive: archive.writestr("a\x1b[2J", "1"),
    "it has 10001 files": lambda archive: [archive.writestr(f"{n}", "") for n in range(10_000)],
    "a.zip has .* kB, but unpacks to more than 10.0 MB": lambda archive: archive.writestr(
        "zeros", b"0" * 11_000_000, zipfile.ZIP_DEFLATED
    ),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_hostile_archive_is_refused_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setenv("GRITREC_UNPACKED_GB", "0.01")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", "1")
        HOSTILE[message](archive)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=message):
        unpack(tmp_path / "a.zip", tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_flipped_byte_in_an_archive_is_an_error_or_changes_no_content(tmp_path: Path, method: int) -> None:
    content = "".join(f"{n},{n * n}\n" for n in range(20))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("ratings", content)
    whole = (tmp_path / "a.zip").read_bytes()
    refused = 0
    for place in range(len(whole)):
        (tmp_path / "a.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0x21]) + whole[place + 1 :])
        folder = tmp_path / f"{place}"
        try:
            unpack(tmp_path / "a.zip", folder)
        except ValueError:
            refused += 1
        for file in folder.rglob("*"):
            assert file.read_text() == content
    assert refused > len(content) // 4


def test_files_in_a_folder_that_cannot_be_written_are_checked(caplog: pytest.LogCaptureFixture) -> None:
    folder = Path("/sys/kernel")  # not writable even for root
    name = "uevent_seqnum"
    toys = card(files=[], log_in="Ask them.", reads={"reviews": name})
    assert fetch(toys, folder) == {"reviews": folder / name}
    assert "/sys/kernel/hashes.yaml cannot be written, so a later change" in caplog.text


def test_a_folder_or_pipe_in_place_of_a_file_is_told(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"a\.bin is no file; remove it"):
        fetch(card(host.url("a.bin")), tmp_path)


@given(cut=st.integers(0, 200))
def test_a_damaged_archive_is_one_clear_error(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = zipped(ratings="1,2,3\n" * 100)
    (folder / "a.zip").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"a\.zip: no sound zip archive"):
        unpack(folder / "a.zip", folder)


def test_a_broken_record_of_hashes_is_told(host: Host, tmp_path: Path) -> None:
    for text in ("a: [", "- a", "a: 3", ""):
        (tmp_path / "hashes.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"hashes\.yaml: must hold a line"):
            fetch(card(host.url("a.bin")), tmp_path)


def test_a_category_is_chosen_first(tmp_path: Path) -> None:
    toys = card(
        categories=["Dolls"],
        reads={"reviews": "{category}.gz"},
        files=[{"name": "{category}.gz", "urls": ["https://owner.example/{category}.gz"]}],
    )
    with pytest.raises(ValueError, match="choose one of its categories first"):
        fetch(toys, tmp_path)
