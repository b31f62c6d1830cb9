"""Checkpoints that are whole or are not there, and the per-example records of a run.

A checkpoint folder is written beside its place, hashed into a manifest, and renamed. Resuming
accepts only such a folder, and only one that the same run wrote.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.files import atomic_file, finished_files, hash_file, read_json, write_json
from napo.manifests import keep_only
from napo.storage import sync, writing

if TYPE_CHECKING:
    import pandas as pd

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


class Records:
    """Per-example records of a run, in Parquet parts named by the step that they reach.

    A part is written with each checkpoint, so that what a resumed run repeats replaces what the
    interrupted one wrote after its last checkpoint, part by part and not before it is there again.

    Args:
        folder: where the parts go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: list[tuple[int, Sequence[str], dict[str, Any]]] = []
        self._reached = 0

    def add(self, step: int, ids: Sequence[str], values: dict[str, Any]) -> None:
        """Keep a batch's records; tensors of shape (batch,), or scalars that all rows share."""
        self._held.append((step, ids, values))

    def restart(self, step: int) -> None:
        """Go on from a step: what is held is forgotten, what later parts hold comes again."""
        self._held.clear()
        self._reached = step

    def flush(self, step: int, last: bool = False) -> None:
        """Write what is held as the part that ends before `step`; rows of all processes.

        Args:
            step: the step that the run has reached.
            last: whether the run ends there, so that no later part is its own.
        """
        import torch.distributed as dist

        columns = self._columns()
        self._held.clear()
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, columns)
            if dist.get_rank() > 0:
                return
            columns = {name: [value for part in parts for value in part[name]] for name in columns}
        if columns.get("id"):
            self._write(step, columns)
        for part in finished_files(self.folder, "*.parquet"):
            other = int(part.stem)
            if self._reached < other < step or (last and other > step):
                part.unlink()  # of a run that saved at other steps, or went on for longer
        self._reached = step

    def _columns(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"step": [], "id": []}
        for step, ids, values in self._held:
            columns["step"] += [step] * len(ids)
            columns["id"] += ids
            for name, value in values.items():
                flat = value.detach().float().cpu().expand(len(ids)).tolist()
                columns.setdefault(name, []).extend(flat)
        return columns

    def _write(self, step: int, columns: dict[str, list[Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"step": pa.int32(), "id": pa.string()}
        table = pa.table(
            {name: pa.array(v, kinds.get(name, pa.float32())) for name, v in columns.items()}
        ).sort_by([("step", "ascending")])
        with atomic_file(self.folder / f"{step:06d}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")


def read_records(run_folder: Path) -> pd.DataFrame:
    """The per-example records of a run, a row for each example and step.

    Columns: `step`, `id`, `<response>_logp`, for each term `<term>_psi_sum`, `<term>_psi_mean`,
    `<term>_loss`, `<term>_gamma` and (NaPO terms) `<term>_q`, and `loss`.

    Raises:
        NapoError: when there are none.
    """
    import pandas as pd

    parts = finished_files(Path(run_folder) / "records", "*.parquet")
    if not parts:
        raise NapoError(f"{run_folder} holds no records; run notebooks/05_train.ipynb first.")
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
