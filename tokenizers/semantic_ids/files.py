"""Write files and folders so that nobody ever reads half of one."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; rename what was written there to ``path`` when the block succeeds.

    The temporary name is unique, so that two processes may write the same file: the last one wins. The
    content is on disk before the rename, so that a power cut leaves the old file or the new one. When the
    block fails, ``path`` stays as it was and the temporary file is removed.

    Args:
        path: Final path of the file. Its folder is created if it does not exist.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.txt"
        >>> with atomic_write(path) as partial:
        ...     _ = partial.write_text("done")
        >>> path.read_text()
        'done'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{_unique()}.partial")
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder; rename it to ``path`` when the block succeeds.

    All files are on disk before the rename, as in :func:`atomic_write`. If another process has created
    ``path`` in the meantime, that folder stays and the temporary one is removed, so only use this where both
    hold the same content.

    Args:
        path: Final path of the folder. Its parent is created if it does not exist.

    Raises:
        OSError: If the folder cannot be renamed although ``path`` does not exist.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial-{_unique()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        for inner in partial.rglob("*"):
            _flush(inner)
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        _flush(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def disk_is_unusable(error: BaseException) -> bool:
    """Return whether an error says that a disk is full or cannot be written."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _unique() -> str:
    """Return a name part that begins with the number of this process."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def _flush(path: Path) -> None:
    """Wait until the content of a file, or the list of a folder's files, is on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError:
        if not path.is_dir():  # some network drives cannot do this for folders
            raise
    finally:
        os.close(file)
