from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipelines.run.servers import check_prefect, reach_this_machine_directly


class Answer(BaseHTTPRequestHandler):
    """Answers with the status that the path names, such as /503/health."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answer) as answering:
        thread = Thread(target=answering.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path / "prefect"


@pytest.mark.parametrize("status", [200, 401, 403])
def test_a_server_that_answers_is_taken(server: str, status: int) -> None:
    check_prefect(f"{server}/{status}/")


@pytest.mark.parametrize("status", [404, 502, 503])
def test_a_server_behind_which_nothing_answers_is_named(server: str, status: int) -> None:
    expected = (
        f"at {server}/{status} does not answer .HTTP status {status}.*; start it, or unset PREFECT_API_URL"
    )
    with pytest.raises(ValueError, match=expected):
        check_prefect(f"{server}/{status}")


def test_a_dead_server_and_a_silent_one_are_named_at_once() -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with pytest.raises(ValueError, match=f"{address} does not answer .*timed out.*a run needs no server"):
            check_prefect(address)
    with pytest.raises(ValueError, match=f"{address} does not answer .*Connection refused"):
        check_prefect(address)
    with pytest.raises(ValueError, match=r"at http://\*\*\*@host.invalid does not answer"):
        check_prefect("http://ada:hunter2@host.invalid")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("address", ["localhost:4200/api", "file:///etc/passwd", "http://[1/api", "4200"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"is no address of a server|does not answer"):
        check_prefect(address)


def test_a_home_that_cannot_be_made_is_named(server: str, home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(OSError, match=f"Prefect cannot write to {home} .File exists.; set PREFECT_HOME"):
        check_prefect(f"{server}/200")


def test_no_proxy_stands_before_this_machine(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ValueError, match="does not answer"):
        check_prefect(f"{server}/200")
    reach_this_machine_directly()
    check_prefect(f"{server}/200")

    assert os.environ["NO_PROXY"] == "example.org,localhost,127.0.0.1,::1"
