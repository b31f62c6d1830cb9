"""Hashes of files. A file that has not changed since it was hashed is not read again.

The memory of hashes holds, for each path, the file's size, times of change, inode and SHA-256. It
lives in this process and, once a workspace is open, in one of its files, for later processes. A
lost or damaged memory costs time only.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from napo.errors import NapoError
from napo.workspace.files import fingerprint, read_json, write_json

# Seconds. A younger file is hashed each time: some file systems write down times this coarsely, so
# it could change once more and keep its time.
SETTLED = 2.0

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_memory: dict[str, Any] = {}  # path -> [size, mtime, ctime, inode, SHA-256]
_store: Path | None = None


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read now."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_hash(path: Path) -> str:
    """The name that git gives a file's bytes: SHA-1 of them after "blob", their number and 0."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def differing(folder: Path, digests: Mapping[str, str]) -> tuple[str, ...]:
    """The existing files with another hash: SHA-256 (see `hash_files`) or git's (40 digits).

    Args:
        folder: where the files are.
        digests: name -> expected hash.
    """
    paths = {name: folder / name for name in digests if (folder / name).is_file()}
    hashes = hash_files(path for name, path in paths.items() if len(digests[name]) == 64)
    return tuple(n for n, p in paths.items() if (hashes.get(p) or git_hash(p)) != digests[n])


def cached_digest(path: Path) -> str:
    """The hash that names a file's blob in the hub's cache; empty for other files."""
    blob = path.resolve()
    named = path.is_symlink() and blob.parent.name == "blobs"
    return blob.name if named and _DIGEST.fullmatch(blob.name) else ""


def hash_files(files: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file, from memory where its size, times of change and inode are the same.

    A change that keeps all of these is not noticed here; the `verify` command reads every file.

    Raises:
        NapoError: when a file cannot be read, naming it.
    """
    hashes, new = {}, {}
    for path in files:
        try:
            state = path.stat()
            mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
            known = _memory.get(str(path.absolute()))
            if isinstance(known, list) and known[:-1] == mark:
                hashes[path] = known[-1]
                continue
            hashes[path] = hash_file(path)
        except OSError as error:
            raise NapoError(f"{path} cannot be read ({error.strerror}); get it again.") from None
        changed = max(state.st_mtime_ns, state.st_ctime_ns)
        if time.time_ns() - changed > SETTLED * 1e9:
            new[str(path.absolute())] = [*mark, hashes[path]]
    _memory.update(new)
    if new and _store and _store.parent.is_dir():
        kept = {**_stored(_store), **new}  # another process may have added to it
        with suppress(NapoError):  # a disk that refuses it costs time only
            write_json(_store, {"check": fingerprint(kept), "hashes": kept})
    return hashes


def remember_in(store: Path) -> None:
    """Load the hashes stored in this file, and store new ones in it."""
    global _store
    _store = store
    _memory.update(_stored(store))


def _stored(store: Path) -> dict[str, Any]:
    try:
        content = read_json(store)
    except NapoError:  # missing or damaged
        return {}
    hashes = content.get("hashes") if isinstance(content, dict) else None
    valid = isinstance(hashes, dict) and content.get("check") == fingerprint(hashes)
    return hashes if valid else {}


def content_hash(files: Iterable[Path], folder: Path) -> str:
    """A hash of the names and bytes of files below `folder`: 16 hexadecimal digits.

    Raises:
        NapoError: when a file cannot be read, naming it.
    """
    hashes = hash_files(files)
    return fingerprint(sorted((p.relative_to(folder).as_posix(), h) for p, h in hashes.items()))
