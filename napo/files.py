"""Files that are whole or are not there: atomic writes, JSON, hashes.

A file is written beside its place, flushed to the disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napo.errors import NapoError
from napo.storage import sync, writing

_TEMPORARY = re.compile(r"\..+\.(\d+)\.part(\..+)?")  # see atomic_file; the number is a process


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can hold: 16 hexadecimal digits of SHA-256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_value(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as it comes back from a JSON file."""
    return json.loads(json.dumps(dict(value), default=str))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_file(path: Path, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder; flush and rename it to `path` on success.

    On an error the temporary file is removed and `path` stays as it was.

    Args:
        path: the file.
        flush: wait until the disk has it. Not worth it for thousands of small files that are made
            again if their folder has no manifest; against a kill the renaming alone is enough.

    Raises:
        NapoError: when the disk refuses, see `napo.storage.writing`.
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
