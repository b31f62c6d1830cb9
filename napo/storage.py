"""What a disk says when it refuses, as one sentence that names the file and the remedy."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napo.errors import NapoError

_FULL = "the disk is full or the quota is used up; free some space"
_LARGE = "it is larger than the account's limit allows (ulimit -f); raise the limit"
_LOCKED = "it may not be written there; give yourself the right to, or use another workspace"
_NOWHERE = "there is no such place, and none can be made; use another workspace"
_IN_THE_WAY = "something is where a folder belongs; move it away"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _LARGE,
    errno.EROFS: _LOCKED,
    errno.EACCES: _LOCKED,
    errno.EPERM: _LOCKED,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: "a folder is where the file belongs; name another, or move the folder away",
    errno.EIO: "the disk reports an error; look at it, or use another workspace",
}
# Libraries that write in Rust, C++ or SQL tell the system's number in words, or not at all.
_NUMBER = re.compile(r"(?:os error|errno:?|code:) (\d+)", re.IGNORECASE)
_WORDS = {
    "inline_container": errno.ENOSPC,
    "PytorchStreamWriter failed": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "readonly database": errno.EACCES,
    "unable to open database file": errno.EACCES,
    "disk I/O error": errno.EIO,
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell a refusal of the disk in this block as one about `path`; other errors pass.

    Raises:
        NapoError: naming the file, what is wrong, and what to do.
    """
    try:
        yield
    except NapoError:
        raise
    except Exception as error:
        remedy = _REMEDIES.get(_number(error))
        if isinstance(error, FileNotFoundError) and _leads_to(error.filename, path):
            remedy = _NOWHERE
        if remedy is None:
            raise
        raise NapoError(
            f"{path} cannot be written: {remedy}. What is finished is kept; then run it again."
        ) from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        NapoError: as `writing`.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append(path: Path, data: bytes) -> None:
    """Add bytes to the end of a file; on return they are on the disk.

    Nothing is buffered here: what a full disk has refused would be tried again by the closing of
    the file.

    Raises:
        NapoError: as `writing`; the file may then end with a part of the data.
    """
    with writing(path), open(path, "ab", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())


def _leads_to(name: str | None, path: Path) -> bool:
    """Whether what is missing is on the way to `path`, and no input that the block has read."""
    return name is not None and Path(name) in (path, *path.parents)


def _number(error: Exception) -> int | None:
    """The system's number of an error, from wherever a library has put it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if isinstance(error, sqlite3.Error | RuntimeError):
        for words, number in _WORDS.items():
            if words in text:
                return number
    found = _NUMBER.search(text)
    return int(found[1]) if found else None
