"""Atomic writes: a file is complete or absent. It is written beside its place and then renamed."""

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

import psutil

from napo.errors import NapoError

_FULL = "the disk is full or the quota is used up; free some space"
_LOCKED = "you may not write there; change the permissions, or use another workspace"
_IN_THE_WAY = "something is where a folder belongs; move it away"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "it is larger than the account's limit allows (ulimit -f); raise the limit",
    errno.EROFS: _LOCKED,
    errno.EACCES: _LOCKED,
    errno.EPERM: _LOCKED,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: "a folder is where the file belongs; name another, or move the folder away",
    errno.EIO: "the disk reports an error; check it, or use another workspace",
}
# Libraries written in Rust, C++ or SQL give the system's error number in words, or not at all.
_NUMBER = re.compile(r"(?:os error|errno:?|code:) (\d+)", re.IGNORECASE)
_WORDS = {
    "inline_container": errno.ENOSPC,
    "PytorchStreamWriter failed": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "readonly database": errno.EACCES,
    "unable to open database file": errno.EACCES,
    "disk I/O error": errno.EIO,
}
# A file of `atomic_file`, with the number of its process
_TEMPORARY = re.compile(r"\..+\.(\d+)\.part(\..+)?")


def fingerprint(value: Any) -> str:
    """A short hash of a value of JSON: 16 hexadecimal digits of SHA-256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_value(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as a JSON file would return it."""
    return json.loads(json.dumps(dict(value), default=str))


@contextmanager
def atomic_file(path: Path, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; flush it and rename it to `path` on success.

    On an error the temporary file is removed and `path` is unchanged.

    Args:
        path: the file.
        flush: wait until the disk has it. This protects against a power cut; renaming alone
            protects against a kill.

    Raises:
        NapoError: when the disk refuses, see `writing`.
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
            with suppress(NotADirectoryError):  # the first error says so
                temporary.unlink(missing_ok=True)


def finished_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, sorted, without temporary files."""
    return sorted(path for path in folder.glob(pattern) if not _TEMPORARY.fullmatch(path.name))


def sweep(folder: Path) -> None:
    """Remove temporary files of processes that have ended."""
    for path in folder.rglob(".*.part*"):
        name = _TEMPORARY.fullmatch(path.name)
        if name and not psutil.pid_exists(int(name[1])):
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. Keys are sorted, so the same value gives the same bytes."""
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
        raise NapoError(f"{path} is missing; run its stage again.") from None
    except (ValueError, RecursionError):
        raise NapoError(
            f"{path} is damaged (not valid JSON); delete it and run its stage again."
        ) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk in this block into a sentence about `path`; other errors pass.

    Raises:
        NapoError: naming the file, the problem and the remedy.
    """
    try:
        yield
    except NapoError:
        raise
    except Exception as error:
        remedy = _REMEDIES.get(_number(error))
        if isinstance(error, FileNotFoundError) and (
            Path(str(error.filename)) in (path, *path.parents)  # not an input of the block
        ):
            remedy = "its folder cannot be made; use another workspace"
        if remedy is None:
            raise
        raise NapoError(
            f"{path} cannot be written: {remedy}, then run it again (finished work is kept)."
        ) from None


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they do not exist.

    Raises:
        NapoError: as `writing`.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append(path: Path, data: bytes) -> None:
    """Add bytes to the end of a file and wait until the disk has them.

    Raises:
        NapoError: as `writing`; the file may then end with a part of the data.
    """
    # Unbuffered: a buffer would write again, when the file closes, what a full disk has refused.
    with writing(path), open(path, "ab", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def _number(error: Exception) -> int | None:
    """The system's number of an error, or None."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if isinstance(error, sqlite3.Error | RuntimeError):
        for words, number in _WORDS.items():
            if words in text:
                return number
    number = _NUMBER.search(text)
    return int(number[1]) if number else None
