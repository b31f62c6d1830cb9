"""Checkpoints and final weights that are complete or absent.

A folder is written beside its place as a draft, flushed, and renamed. A checkpoint has a manifest
with hashes; a run resumes only from a complete checkpoint that the same run wrote.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from napo.errors import NapoError
from napo.workspace.files import read_json, sync, write_json
from napo.workspace.hashing import hash_file
from napo.workspace.manifests import keep_only

MANIFEST = "checkpoint.json"


class Manifest(TypedDict):
    """The content of a checkpoint's manifest."""

    files: dict[str, str]  # name -> SHA-256
    run: dict[str, Any]  # the identity of the run


def draft(folder: Path, create: bool = True) -> Path:
    """The folder beside `folder` to write into, made empty by the process that creates it."""
    path = folder.with_name(folder.name + ".part")
    if create:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    return path


def tidy(folder: Path) -> None:
    """Make written weights the same in every process, without the pickle of Trainer's arguments."""
    (folder / "training_args.bin").unlink(missing_ok=True)  # a run keeps its settings as JSON
    file = folder / "adapter_config.json"
    if file.is_file():  # peft writes sets as lists, in another order in every process
        config = read_json(file)
        for key in ("target_modules", "exclude_modules"):
            if isinstance(config.get(key), list):
                config[key] = sorted(config[key])
        write_json(file, config)


def seal(path: Path, folder: Path, run: Mapping[str, Any], keep: int | None = 1) -> None:
    """Turn a draft into the checkpoint `folder`; remove drafts and this run's older checkpoints.

    Args:
        path: the draft.
        folder: the checkpoint.
        run: the run's identity; another run will not resume from this checkpoint.
        keep: how many checkpoints of this run stay, with this one; None: all. Those of other runs
            always stay.
    """
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    hashes = {file.relative_to(path).as_posix(): hash_file(file) for file in files}
    for file in files:
        sync(file)
    write_json(path / MANIFEST, {"run": dict(run), "files": hashes})
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(path, folder)
    sync(folder.parent)
    own = of_run(folder.parent, run)
    drafts = folder.parent.glob("checkpoint-*.part")
    for old in (*drafts, *own[: -(keep or len(own))]):
        shutil.rmtree(old, ignore_errors=True)


def clear(parent: Path) -> None:
    """Remove all checkpoints and drafts of a run folder, whose run is finished."""
    for path in parent.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def install(path: Path, folder: Path) -> None:
    """Move a draft of final weights to `folder` once it is on the disk.

    Files that an interrupted run left there are replaced one by one, so the model stays complete.
    """
    for part in (*path.rglob("*"), path):
        sync(part)
    if folder.is_dir():
        names = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path / name, folder / name)
        keep_only(folder, [folder / name for name in names])
        shutil.rmtree(path)
    else:
        os.replace(path, folder)
    sync(folder.parent)


def complete(parent: Path) -> list[Path]:
    """The complete checkpoints in a folder, by their steps."""
    steps = [path.name.removeprefix("checkpoint-") for path in parent.glob("checkpoint-*")]
    paths = [parent / f"checkpoint-{n}" for n in sorted(int(s) for s in steps if s.isdecimal())]
    return [path for path in paths if (path / MANIFEST).is_file()]


def of_run(parent: Path, run: Mapping[str, Any]) -> list[Path]:
    """The complete checkpoints in a folder that the run with this identity wrote, by their steps.

    Raises:
        NapoError: if a manifest is damaged.
    """
    return [path for path in complete(parent) if read(path)["run"] == run]


def latest(parent: Path, run: Mapping[str, Any]) -> Path | None:
    """The complete checkpoint with the highest step in a folder, or None.

    Raises:
        NapoError: as `require`.
    """
    for path in complete(parent)[-1:]:
        require(path, run)
        return path
    return None


def read(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: `run`, the identity of its run, and `files` with their hashes.

    Raises:
        NapoError: if there is no such checkpoint, it is not complete, or its manifest is damaged.
    """
    if not path.is_dir():
        raise NapoError(f"There is no checkpoint {path}; name an existing folder checkpoint-STEP.")
    if not (path / MANIFEST).is_file():
        raise NapoError(
            f"{path} is not a complete checkpoint (no {MANIFEST}); delete it to start from the "
            "previous one or from the beginning."
        )
    return read_json(path / MANIFEST, Manifest, "delete this checkpoint")


def require(path: Path, run: Mapping[str, Any]) -> None:
    """Stop unless a checkpoint is complete, undamaged, and of the run with this identity.

    Raises:
        NapoError: as `read`, or if a file is missing or changed, or another run wrote it.
    """
    manifest = read(path)
    for name, digest in manifest["files"].items():
        if not (path / name).is_file() or hash_file(path / name) != digest:
            raise NapoError(f"{path}: {name} is missing or damaged; delete this checkpoint.")
    written_by = manifest["run"]
    changed = sorted(k for k in {*written_by, *run} if written_by.get(k) != run.get(k))
    if changed:
        raise NapoError(
            f"{path} belongs to another run ({', '.join(changed)} differ); "
            "use another output folder, or delete it."
        )
