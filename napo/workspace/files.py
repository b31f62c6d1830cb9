"""Files that are whole or are not there: atomic writes, JSON.

A file is written beside its place, flushed to the disk, and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
_TEMPORARY = re.compile(r"\..+\.(\d+)\.part(\..+)?")  # see atomic_file; the number is a process


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can hold: 16 hexadecimal digits of SHA-256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_value(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as it comes back from a JSON file."""
    return json.loads(json.dumps(dict(value), default=str))


@contextmanager
def atomic_file(path: Path, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder; flush and rename it to `path` on success.

    On an error the temporary file is removed and `path` stays as it was.

    Args:
        path: the file.
        flush: wait until the disk has it. Not worth it for thousands of small files that are made
            again if their folder has no manifest; against a kill the renaming alone is enough.

    Raises:
        NapoError: when the disk refuses, see `napo.workspace.files.writing`.
    """
    path = Path(path)
    # The suffix stays last: writers such as matplotlib choose a format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if flush:
                sync(temporary)
            os.replace(temporary, path)
            if flush:
                sync(path.parent)
        finally:
            _discard(temporary)


def _discard(path: Path) -> None:
    with suppress(NotADirectoryError):  # the error that led here says so
        path.unlink(missing_ok=True)


def finished_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, in order, without those of unfinished writers."""
    return sorted(path for path in folder.glob(pattern) if not _TEMPORARY.fullmatch(path.name))


def sweep(folder: Path) -> None:
    """Remove what writers left there that were killed; those that still run keep theirs."""
    for path in folder.rglob(".*.part*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and not _runs(int(found[1])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted, so that the same value is the same bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        NapoError: when the file is missing or cut short.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NapoError(f"{path} is missing; run the stage that writes it again.") from None
    except (ValueError, RecursionError):
        raise NapoError(
            f"{path} is damaged (not valid JSON); delete it and run the stage that writes it again."
        ) from None


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
