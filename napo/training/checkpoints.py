"""Checkpoints that are whole or are not there, and the per-example records of a run.

A checkpoint folder is written beside its place, hashed into a manifest, and renamed. Resuming
accepts only such a folder, and only one that the same run wrote.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.workspace.files import read_json, sync, write_json, writing
from napo.workspace.hashing import hash_file
from napo.workspace.manifests import keep_only

if TYPE_CHECKING:
    pass

MANIFEST = "checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def draft(folder: Path) -> Path:
    """An empty folder beside `folder` to write a checkpoint into."""
    path = folder.with_name(folder.name + ".part")
    shutil.rmtree(path, ignore_errors=True)
    with writing(path):
        path.mkdir(parents=True)
    return path


def seal(path: Path, folder: Path, run: Mapping[str, Any]) -> None:
    """Make a draft the checkpoint `folder`: manifest, flush, rename.

    Args:
        path: what `draft` gave.
        folder: its place.
        run: what the run is made from; a run that differs will not resume from it.
    """
    files = {
        file.relative_to(path).as_posix(): hash_file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    for name in files:
        sync(path / name)
    write_json(path / MANIFEST, {"run": dict(run), "files": files})
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(path, folder)
    sync(folder.parent)


def settle(path: Path, folder: Path) -> None:
    """Put a draft of final weights in its place, once the disk has it.

    What an interrupted run left there is replaced file by file: a whole model is never gone.
    """
    for each in (*path.rglob("*"), path):
        sync(each)
    if folder.is_dir():
        new = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
        for name in new:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path / name, folder / name)
        keep_only(folder, [folder / name for name in new])
        shutil.rmtree(path)
    else:
        os.replace(path, folder)
    sync(folder.parent)


def prune(parent: Path, keep: Path) -> None:
    """Remove all checkpoints and drafts but one."""
    for path in parent.glob("checkpoint-*"):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def latest(parent: Path, run: Mapping[str, Any] | None = None) -> Path | None:
    """The whole checkpoint with the highest step, or None.

    Args:
        parent: the folder that holds `checkpoint-<step>` folders.
        run: what this run is made from, compared with what the checkpoint was made from.

    Raises:
        NapoError: as `verify`.
    """
    found = [path for path in parent.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    for path in sorted(found, key=step_of, reverse=True):
        if (path / MANIFEST).is_file():
            verify(path, run)
            return path
    return None


def step_of(path: Path) -> int:
    """The optimiser step of a checkpoint folder."""
    return int(_NAME.fullmatch(path.name)[1])


def verify(path: Path, run: Mapping[str, Any] | None = None) -> None:
    """Stop unless a checkpoint is whole and this run's.

    Raises:
        NapoError: when it has no manifest, a file is missing or changed, its optimiser state is
            missing, or another run wrote it.
    """
    if not (path / MANIFEST).is_file():
        raise NapoError(
            f"{path} is not a complete checkpoint (no {MANIFEST}); delete it to start from the "
            "one before, or from the beginning."
        )
    manifest = read_json(path / MANIFEST)
    parts = manifest if isinstance(manifest, dict) else {}
    if not all(isinstance(parts.get(name), dict) for name in ("files", "run")):
        raise NapoError(f"{path}: {MANIFEST} is damaged; delete this checkpoint.")
    for name, digest in manifest["files"].items():
        if not (path / name).is_file() or hash_file(path / name) != digest:
            raise NapoError(f"{path}: {name} is missing or damaged; delete this checkpoint.")
    if run is not None and manifest["run"] != dict(run):
        there = manifest["run"]
        changed = sorted(k for k in {*there, *run} if there.get(k) != run.get(k))
        raise NapoError(
            f"{path} belongs to another run ({', '.join(changed)} differ); "
            "use another output folder, or delete it."
        )
