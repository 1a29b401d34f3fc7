"""MLflow's database in a workspace, which needs no server: SQLite, read and written by MLflow itself.

What MLflow cannot do is done here: to create the database so that a stop halfway leaves none, to let it
follow its workspace to another place, and to tell without MLflow, which takes seconds to import, whether a
benchmark is there.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from pipelines.names import NO_RETRIEVER

DIGEST_TAG, KIND_TAG, PARENT_TAG = "gritrec.digest", "gritrec.kind", "mlflow.parentRunId"
RETRIEVER_TAG = "gritrec.retriever"
SCORES_FILE = "scores.parquet"
_ARTIFACTS = "mlartifacts"
_SPACE = 4 << 20
"""Bytes that a new database and its journal take."""


def database_of(workspace: Path) -> Path:
    """Return the path of the database in a workspace."""
    return workspace.expanduser().resolve() / "mlflow.db"


def artifacts_of(workspace: Path) -> str:
    """Return the URI of the folder of artifacts in a workspace."""
    return (database_of(workspace).parent / _ARTIFACTS).as_uri()


def embedded_uri(workspace: Path) -> str:
    """Return the tracking URI of the database in a workspace."""
    return _uri(database_of(workspace))


def prepare(workspace: Path) -> None:
    """Create the database if there is none, and tell it where its artifacts are.

    A database that an earlier program has left half made is renamed and made anew. No other process works in
    the workspace meanwhile.
    """
    path = database_of(workspace)
    if path.exists() and _is_half_made(path):
        for part in path.parent.glob(f"{path.name}*"):  # with SQLite's journal of what was not finished
            part.rename(part.with_name(f"half-made-{part.name}"))
    for left in path.parent.glob(f"{path.name}.*partial*"):
        left.unlink(missing_ok=True)
    if not path.exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

        from semantic_ids.files import atomic_write  # noqa: PLC0415 — imports PyTorch

        if shutil.disk_usage(path.parent).free < _SPACE:  # MLflow would try for two minutes
            raise OSError(errno.ENOSPC, "No space left on device for MLflow's database", str(path))
        with atomic_write(path) as partial:
            SqlAlchemyStore(_uri(partial), artifacts_of(workspace)).engine.dispose()
    _move_artifacts(path, artifacts_of(workspace))


def is_kept(workspace: Path, experiment: str, digest: str, cells: int) -> bool:
    """Return whether the database has a benchmark, finished and with all its cells and their scores.

    Args:
        workspace: Folder of the database.
        experiment: Name of the benchmark's experiment.
        digest: The benchmark's digest.
        cells: Number of its cells.
    """
    path = database_of(workspace)
    if not path.exists():
        return False
    # The tables and columns are those of MLflow 2 and 3. If another version has others, the answer is no,
    # and the benchmark is logged through MLflow, which leaves alone what is there.
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            found = database.execute(_CELLS, (digest, experiment)).fetchall()
    except sqlite3.Error:
        return False
    scored = [_path(uri) / SCORES_FILE for uri, retriever in found if retriever != NO_RETRIEVER]
    return len(found) == cells and all(file.exists() for file in scored)


_CELLS = f"""
    SELECT cell.artifact_uri, retriever.value FROM experiments
    JOIN runs AS benchmark USING (experiment_id)
    JOIN tags AS digest ON digest.run_uuid = benchmark.run_uuid AND digest.key = '{DIGEST_TAG}'
    JOIN tags AS parent ON parent.value = benchmark.run_uuid AND parent.key = '{PARENT_TAG}'
    JOIN runs AS cell ON cell.run_uuid = parent.run_uuid
    JOIN tags AS retriever ON retriever.run_uuid = cell.run_uuid AND retriever.key = '{RETRIEVER_TAG}'
    WHERE digest.value = ? AND experiments.name = ? AND experiments.lifecycle_stage = 'active'
    AND benchmark.lifecycle_stage = 'active' AND benchmark.status = 'FINISHED'
    AND cell.lifecycle_stage = 'active' AND cell.status = 'FINISHED'
"""  # noqa: S608 — nothing of a user is part of the text


@contextmanager
def _changing(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection whose changes are all made when the block succeeds, or none."""
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        yield database


def _is_half_made(path: Path) -> bool:
    """Return whether the creation of a database was stopped before MLflow had noted its version."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if "alembic_version" not in tables:
                return True
            return not database.execute("SELECT 1 FROM alembic_version").fetchall()
    except sqlite3.OperationalError:  # locked, for example
        return False


def _move_artifacts(path: Path, artifacts: str) -> None:
    """Let experiments and runs whose artifacts were in a workspace at another place find them at this one."""
    columns = {"experiments": "artifact_location", "runs": "artifact_uri"}
    with _changing(path) as database:
        for table, column in columns.items():
            rows = database.execute(
                f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE 'file:%/{_ARTIFACTS}%' "  # noqa: S608
                f"AND {column} != ? AND {column} NOT LIKE ? || '/%'",
                (artifacts, artifacts),
            ).fetchall()
            for row, uri in rows:
                moved = artifacts + uri.rpartition(f"/{_ARTIFACTS}")[2]
                if _path(moved).exists() or not _path(uri).exists():
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (moved, row))  # noqa: S608


def _uri(path: Path) -> str:
    """Return the tracking URI of an SQLite file."""
    if "?" in str(path):  # which begins the options of a URI, unless it is written as %3F
        return f"sqlite:///file:{quote(str(path))}?uri=true"
    return f"sqlite:///{path}"


def _path(uri: str) -> Path:
    """Return the path of a ``file:`` URI."""
    return Path(unquote(urlparse(uri).path))
