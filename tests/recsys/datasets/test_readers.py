"""What is checked around every reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recsys.datasets.readers import READERS, is_search, read_corpus

READER = """
from pathlib import Path

from recsys.datasets.plain import read_sequence_file
from recsys.datasets.readers import reader

@reader
def read_while(sequences: Path, *, then: str):
    corpus = read_sequence_file(sequences)
    if then == "grow":
        with sequences.open("a") as file:
            file.write("cid mug\\n")
    if then == "replace":
        other = sequences.with_name("other")
        other.write_bytes(sequences.read_bytes())
        other.replace(sequences)
    if then == "remove":
        sequences.unlink()
    return corpus
"""


@pytest.mark.parametrize("then", ["grow", "replace", "remove", "nothing"])
def test_a_file_that_changes_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    (tmp_path / "reads_while.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "sequences.txt"
    path.write_text("ann tea cup\nbob cup\n")
    if then == "nothing":
        assert len(read_corpus("reads_while:read_while", sequences=path, then=then).interactions) == 3
    else:
        with pytest.raises(
            ValueError, match=r"sequences\.txt changed while it was read; run the command again"
        ):
            read_corpus("reads_while:read_while", sequences=path, then=then)


def test_a_pipe_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe or a device; give the sequences as a file"):
        read_corpus("sequences", sequences=tmp_path / "pipe")


def test_a_function_that_says_it_returns_a_corpus_is_a_reader_and_no_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logreader.py").write_text(
        "from recsys.datasets.corpus import Corpus, interactions_of, item_ids_of\n"
        "def read_log(log) -> Corpus: ...\n"
        "def read_quoted(log) -> 'Corpus': ...\n"
        "def read_untold(log): ...\n"
        "def run(log) -> 'CorpusRunner': ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("read_log", "read_quoted"):
        assert not is_search(READERS.load(f"logreader:{name}"))
    for name in ("logreader:read_untold", "logreader:run", "os:system"):
        with pytest.raises(ValueError, match="not marked as a reader; write @reader"):
            READERS.load(name)
