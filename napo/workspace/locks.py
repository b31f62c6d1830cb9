"""Locks: one process at a time. The system frees a lock when its process ends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from platform import node
from typing import Any

from filelock import FileLock, Timeout

from napo.errors import NapoError
from napo.workspace.files import read_json, write_json, writing
from napo.workspace.manifests import begin, finish, finished, missing_files, restart

# Seconds to wait for a folder: a kernel outlives its killed papermill by about one second.
PATIENCE = 10.0


@contextmanager
def hold(place: Path, doing: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file or folder, a hidden file beside it.

    Args:
        place: the file or folder; it need not exist.
        doing: what the holder does, for the error message, such as "runs a pipeline in".
        patience: seconds to wait.

    Raises:
        NapoError: when another process holds it, naming the process and the machine.
    """
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    holder = place.with_name(f".{place.name}.holder.json")
    try:
        with writing(Path(lock.lock_file)):
            place.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=patience)
    except Timeout:
        content = read_json(holder) if holder.is_file() else {}
        owner = content if isinstance(content, dict) else {}
        raise NapoError(
            f"Process {owner.get('process', '?')} on {owner.get('machine', '?')} {doing} {place}; "
            "wait for it, stop it, or use another workspace."
        ) from None
    try:
        write_json(holder, {"process": os.getpid(), "machine": node()})
        yield
    finally:
        lock.release()


@contextmanager
def work_on(folder: Path, settings: Mapping[str, Any], remake: bool = False) -> Iterator[bool]:
    """Claim a folder for these settings, and seal it if the work in it ends without an error.

    Yields True if there is work to do, False if the folder is already complete.

    Args:
        folder: the folder that the work writes.
        settings: everything that its content depends on (see `napo.workspace.manifests.begin`).
        remake: make the folder again if it is unfinished, has other settings or lacks a file; the
            work then ends with `napo.workspace.manifests.keep_only`.

    Raises:
        NapoError: when another process works in the folder, or it has other settings.
    """

    def done() -> bool:
        return finished(folder, settings) and not (remake and missing_files(folder))

    if done():
        yield False
        return
    with hold(folder, "already works in", PATIENCE):
        if remake and not done():
            restart(folder, settings)
        todo = begin(folder, settings)  # another process may have finished it meanwhile
        yield todo
        if todo:
            finish(folder)
