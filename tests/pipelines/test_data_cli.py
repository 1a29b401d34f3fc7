import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from pipelines.config.data import DataConfig
from pipelines.config.loading import load_config
from pipelines.data_cli import data
from recsys.datasets.cards import Card, all_cards, find_card


def gritrec_data(*arguments: str) -> Result:
    return CliRunner().invoke(data, arguments)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands run."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[str]:
    """A host with a file of dolls, and none of trains."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "Dolls.bin").write_bytes(b"dolls")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def toys(owner: str) -> str:
    """Write a card of one's own into the current folder."""
    card: dict[str, Any] = {
        "name": "toys",
        "title": "Toys [real ones]",
        "reader": "amazon",
        "options": {"release": 2014},
        "source": "https://owner.example/toys",
        "licence": "Research use.",
        "citation": "A. Toymaker. Toys. 2020.",
        "folder": "data/raw/toys",
        "reads": {"reviews": "{category}.bin"},
        "files": [{"name": "{category}.bin", "urls": [f"{owner}/{{category}}.bin"]}],
        "categories": ["Dolls", "Trains"],
    }
    Path("toys.yaml").write_text(yaml.safe_dump(card))
    return "toys.yaml"


def test_get_downloads_and_says_how_to_go_on(owner: str, here: Path) -> None:
    result = gritrec_data("get", toys(owner), "--category", "Dolls")
    assert result.exit_code == 0, result.output
    assert (here / "data/raw/toys/Dolls.bin").read_bytes() == b"dolls"
    section = yaml.safe_load(result.stdout[result.stdout.index("data:\n") :])
    assert section == {
        "data": {"reader": "amazon", "release": 2014, "raw": "data/raw/toys", "reviews": "Dolls.bin"}
    }


def test_licence_and_citation_come_before_the_download(owner: str) -> None:
    result = gritrec_data("get", toys(owner), "--category", "Trains")
    assert result.exit_code == 1
    for told in (
        "Toys [real ones]",
        "Research use.",
        "A. Toymaker. Toys. 2020.",
        "https://owner.example/toys",
    ):
        assert told in result.output


def test_the_folder_can_be_chosen(owner: str, here: Path) -> None:
    result = gritrec_data("get", toys(owner), "--category", "Dolls", "--folder", "elsewhere")
    assert "raw: elsewhere" in result.output
    assert (here / "elsewhere/Dolls.bin").is_file()
    assert not (here / "data").exists()


def test_without_network_the_error_says_which_file_goes_where() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    result = gritrec_data("get", toys(nobody), "--category", "Dolls")
    assert result.exit_code == 1
    message = str(result.exception)
    assert "get Dolls.bin from https://owner.example/toys and put into data/raw/toys" in message
    assert len(message.splitlines()) < 12
    assert all(len(line) < 160 for line in message.splitlines())


def test_where_a_person_must_log_in_every_step_is_told(here: Path) -> None:
    result = gritrec_data("get", "jdsearch")
    assert result.exit_code == 1
    message = str(result.exception)
    assert "JDsearch/user_behavior_data.txt" in message
    assert "into data/raw/jdsearch and unpack it there: tar -xzf JDsearch.tar.gz" in message

    for path in find_card("jdsearch").reads.values():
        (here / "data/raw/jdsearch" / path).parent.mkdir(parents=True, exist_ok=True)
        (here / "data/raw/jdsearch" / path).write_text("1\t2\n")
    assert gritrec_data("get", "jdsearch").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["amazon2104"], "there is no corpus 'amazon2104'"),
        (["amazon2014"], "amazon2014: choose a category, one of Amazon_Instant_Video"),
        (["amazon2014", "--category", "Beauti"], "Did you mean 'Beauty'?"),
        (["esci", "--category", "Beauty"], "esci has no categories"),
    ],
)
def test_a_wrong_word_is_one_error(arguments: list[str], message: str, here: Path) -> None:
    result = gritrec_data("get", *arguments)
    assert result.exit_code == 1
    assert message in str(result.exception)
    assert list(here.iterdir()) == []


def test_list_shows_every_corpus_and_what_of_it_is_here(here: Path) -> None:
    def entries() -> dict[str, list[str]]:
        """Name → size, what is here, title and licence."""
        lines = gritrec_data("list").stdout.splitlines()
        return {
            first[:24].strip(): [
                first[24:36].strip(),
                first[36:].removeprefix("on this disk: "),
                title.strip(),
                licence.strip(),
            ]
            for first, title, licence in zip(lines[::3], lines[1::3], lines[2::3], strict=True)
        }

    assert entries()["movielens-1m"][:3] == ["5.9 MB", "no", "MovieLens 1M"]
    assert entries()["esci"][0] == "1.2 GB"
    assert entries()["esci"][3] == "Apache-2.0"
    assert entries()["amazon2014"][:2] == ["by category", "no"]
    assert entries()["jdsearch"][0] == "unknown"
    for path in (
        "movielens/ml-1m/ratings.dat",
        "movielens/ml-1m/movies.dat",
        "movielens/ml-25m/movies.csv",
        "amazon2014/reviews_Beauty_5.json.gz",
        "amazon2014/meta_Beauty.json.gz",
        "amazon2014/meta_Baby.json.gz",
    ):
        (here / "data/raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (here / "data/raw" / path).touch()
    here_now = {name: row[1] for name, row in entries().items()}
    assert here_now["movielens-1m"] == "yes"
    assert here_now["movielens-25m"] == "1 of 2 files"
    assert here_now["movielens-100k"] == "no"
    assert here_now["amazon2014"] == "Beauty"


def test_the_commands_import_nothing_heavy() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from pipelines.data_cli import data;"
        "assert CliRunner().invoke(data, ['list']).exit_code == 0;"
        "print([name for name in ('torch', 'polars', 'mlflow', 'prefect') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


EXPERIMENTS = Path(__file__).parents[2] / "pipelines" / "experiments"


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.name)
def test_what_a_card_says_of_its_reader_can_be_read_by_it(card: Card) -> None:
    chosen = card.choose(card.categories[0] if card.categories else None)
    section = {"reader": chosen.reader, "raw": "somewhere", **chosen.options, **chosen.reads}
    assert DataConfig.model_validate(section).files == chosen.reads


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("beauty", "amazon2014"),
        ("amazon2018", "amazon2018"),
        ("amazon2023", "amazon2023"),
        ("esci", "esci"),
        ("jdsearch", "jdsearch"),
        ("movielens", "movielens-25m"),
        ("sequences", "s3rec"),
    ],
)
def test_a_benchmark_looks_where_get_puts_the_files(file: str, name: str) -> None:
    benchmark = load_config(EXPERIMENTS / f"{file}.yaml").data
    card = find_card(name)
    assert benchmark.raw == card.folder
    known = {path for category in card.categories or [None] for path in card.choose(category).reads.values()}
    unpublished = {"Beauty_texts.jsonl"}  # as the benchmark says
    assert set(benchmark.files.values()) - unpublished <= known


def test_check_tells_on_one_screen_what_a_corpus_holds(here: Path) -> None:
    (here / "log.csv").write_text("user_id,item_id,timestamp\n" + "u,a,1\nu,b,2\nv,a,3\nv,a,4\n")
    done = gritrec_data("check", ".", "--set", "reader=table", "--set", "interactions=log.csv")
    assert done.exit_code == 0, done.output
    told = {line[2:34].strip(): line[34:].strip() for line in done.output.splitlines()}
    assert (told["users"], told["items"], told["interactions"]) == ("2", "2", "3")
    assert told["2-core"] == "0 users, 0 items, 0 interactions (0.0%)"
    assert told["first"] == "1"
    assert len(done.output.splitlines()) < 40


def test_check_reads_what_a_benchmark_would(here: Path) -> None:
    shop = "data={reader: esci, shop: {users: 300, items: 120}}"
    done = gritrec_data("check", str(EXPERIMENTS / "esci.yaml"), "--set", shop)
    assert done.exit_code == 0, done.output
    assert "answers each" in done.output
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([".", "--set", "reader=amazon"], "  reader 'amazon' needs the name of its file 'reviews' in ."),
        (["."], "give a reader: amazon, esci, jdsearch, movielens, sequences, table, or module:function"),
        (["esci"], "esci is no benchmark file and no folder; gritrec data list tells of corpora"),
        (["log.csv"], "log.csv is no benchmark file (YAML); of raw files give the folder"),
    ],
)
def test_check_says_what_is_lacking(arguments: list[str], expected: str, here: Path) -> None:
    (here / "log.csv").touch()
    assert expected in str(gritrec_data("check", *arguments).exception)
