"""Files are written whole or not at all, and read through one gate for each kind of text.

A file is written beside its place and then renamed. A file that is not what its name says (a web
page, a pointer of Git LFS, another encoding, JSON of another shape) is refused in one sentence.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import re
import reprlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter, ValidationError

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
AGAIN = "delete it and run its stage again"
# The first bytes of files that are something else -> what they are
_FOREIGN = {
    b"version https://git-lfs": "it is a pointer of Git LFS, not the file",
    b"<!doctype": "it is a web page",
    b"<html": "it is a web page",
    b"<?xml": "it is XML, perhaps a server's error",
    codecs.BOM_UTF16_LE: "it is UTF-16 text; save it as UTF-8",
    codecs.BOM_UTF16_BE: "it is UTF-16 text; save it as UTF-8",
    b"\x1f\x8b": "it is compressed by gzip; unpack it",
    b"pk\3\4": "it is a zip archive; unpack it",
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
    """The files of a folder that match a pattern, sorted, without temporary and hidden files."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def sweep(folder: Path) -> None:
    """Remove temporary files of processes that have ended."""
    for path in folder.rglob(".*.part*"):
        name = _TEMPORARY.fullmatch(path.name)
        if name and not psutil.pid_exists(int(name[1])):
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. Keys are sorted, so the same value gives the same bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; line ends stay as they are."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def read_json(path: Path, kind: Any = Any, remedy: str = AGAIN) -> Any:
    """Read a JSON file whose content has this type, such as `list[int]` or a `TypedDict`.

    Raises:
        NapoError: when it is missing, damaged, or of another shape, naming the entry and key.
    """
    return parse_json(read_text(path, remedy), str(path), kind, remedy)


def read_json_lines(path: Path, kind: Any, remedy: str = AGAIN) -> list[Any]:
    """Read a JSON Lines file: a value of this type on each line that is not empty."""
    lines = read_text(path, remedy).split("\n")  # a text may hold other ends of lines
    places = ((f"{path}, line {number},", line) for number, line in enumerate(lines, 1))
    return [parse_json(line, place, kind, remedy) for place, line in places if line.strip()]


def read_text(path: Path, remedy: str = AGAIN) -> str:
    """Read UTF-8 text; a byte order mark is left out.

    Raises:
        NapoError: when it is missing, empty, not text, or text of another encoding.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise NapoError(f"{path} is missing; {remedy.removeprefix('delete it and ')}.") from None
    except OSError as error:
        raise NapoError(f"{path} cannot be read ({error.strerror}); {remedy}.") from None
    return decoded(content, str(path), remedy)


def decoded(content: bytes, place: str, remedy: str) -> str:
    """UTF-8 text without its byte order mark; `place` names it in the error, as `read_text`."""
    problem = foreign(content)
    if not problem:
        try:
            text = content.decode("utf-8-sig")
            if "\0" not in text[:2]:
                return text
            problem = _FOREIGN[codecs.BOM_UTF16_LE]  # without its mark
        except UnicodeDecodeError as error:
            line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
            problem = f"its line {line} is not UTF-8 text, see byte 0x{byte:02x}; save it as UTF-8"
    raise NapoError(f"{place} is damaged ({problem}); {remedy}.")


def foreign(content: bytes) -> str:
    """The kind of a file that is not what its name says, by its first bytes; empty if unknown."""
    start = content[:1000].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if not start:
        return "it is empty"
    return next((text for begin, text in _FOREIGN.items() if start.startswith(begin)), "")


def foreign_file(path: Path) -> str:
    """`foreign` of a file; empty too if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return foreign(file.read(1000))
    except OSError:
        return ""


def parse_json(text: str, place: str, kind: Any = Any, remedy: str = AGAIN) -> Any:
    """A value of JSON that has this type; `place` names it in the error, as `read_json`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        cut = not text[error.pos :].strip() or error.msg.startswith("Unterminated")
        line = f", line {error.lineno}" if "\n" in text.strip() else ""
        problem = "it is cut short" if cut else f"not valid JSON{line}: {error.msg}"
    except (ValueError, RecursionError) as error:
        problem = f"not valid JSON: {error}"
    else:
        return check_shape(value, place, kind, remedy)
    raise NapoError(f"{place} is damaged ({problem}); {remedy}.")


def check_shape(value: Any, place: str, kind: Any, remedy: str) -> Any:
    """The value, unchanged, if it has this type; `place` names it in the error, as `read_json`."""
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = [f"entry {key + 1}" if isinstance(key, int) else repr(key) for key in first["loc"]]
        expected = first["msg"].replace("Input", "it").replace("dictionary", "object with keys")
        wrong = f"is {reprlib.repr(first['input'])}; {expected}"
        problem = "is missing" if first["type"] == "missing" else wrong
        raise NapoError(
            f"{place} is damaged ({', '.join(keys) or 'it'} {problem}); {remedy}."
        ) from None
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


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
    """Make a folder and its parents where they do not exist."""
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
