"""One process at a time: locks that the system frees however their holder ends."""

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
from napo.workspace.manifests import begin, finish, finished, restart, whole

# Seconds to wait for a folder: a kernel outlives the papermill that was killed by about one.
PATIENCE = 10.0


@contextmanager
def hold(place: Path, doing: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock beside a place: a hidden file in the folder that the place is in.

    Args:
        place: what is held; it need not exist.
        doing: what the holder does, for the sentence, such as "runs a pipeline in".
        patience: seconds to wait for it.

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
        told = read_json(holder) if holder.is_file() else {}
        who = told if isinstance(told, dict) else {}
        raise NapoError(
            f"Process {who.get('process', '?')} on {who.get('machine', '?')} {doing} {place}; "
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

    Gives True if there is work to do, False if the folder is already complete.

    Args:
        folder: what the work writes.
        settings: all that decides its content (see `napo.workspace.manifests.begin`).
        remake: whether a folder that is unfinished, of other settings, or lacks a file is made
            again; the work ends with `napo.workspace.manifests.keep_only`.

    Raises:
        NapoError: when another process works in it, or other settings began or finished it.
    """
    done = whole if remake else finished
    if done(folder, settings):
        yield False
        return
    with hold(folder, "already works in", PATIENCE):
        if remake and not done(folder, settings):
            restart(folder, settings)
        todo = begin(folder, settings)  # the other process may have finished it meanwhile
        yield todo
        if todo:
            finish(folder)
