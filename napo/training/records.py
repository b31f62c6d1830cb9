"""The per-example records of a run: log-probs, margins, losses, q and gamma."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.data.source_files import reading
from napo.errors import NapoError
from napo.workspace.files import atomic_file, finished_files

if TYPE_CHECKING:
    import pandas as pd


class Records:
    """Per-example records of a run, in Parquet files named by the step that they reach.

    One file is written with each checkpoint. A resumed run repeats the steps after its checkpoint
    and replaces their files one by one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reached = 0
        self.columns: dict[str, list[Any]] = {"step": [], "id": []}

    def add(self, step: int, ids: Sequence[str], values: dict[str, Any]) -> None:
        """Keep a batch's records: tensors of shape (batch,), or scalars for all its rows."""
        self.columns["step"] += [step] * len(ids)
        self.columns["id"] += ids
        for name, value in values.items():
            rows = value.detach().float().cpu().expand(len(ids)).tolist()
            self.columns.setdefault(name, []).extend(rows)

    def restart(self, step: int) -> None:
        """Continue from a step: forget records in memory; later files will be replaced."""
        self.columns = {"step": [], "id": []}
        self.reached = step

    def flush(self, step: int, last: bool = False) -> None:
        """Write all processes' records up to `step` as one file; the `last` removes later files."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        import torch.distributed as dist

        columns, reached = self.columns, self.reached
        self.restart(step)
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, columns)
            if dist.get_rank() > 0:
                return
            columns = {name: [value for part in parts for value in part[name]] for name in columns}
        if columns["id"]:
            kinds = {"step": pa.int32(), "id": pa.string()}
            table = pa.table(
                {name: pa.array(v, kinds.get(name, pa.float32())) for name, v in columns.items()}
            ).sort_by([("step", "ascending")])
            with atomic_file(self.folder / f"{step:06d}.parquet") as temporary:
                pq.write_table(table, temporary, compression="zstd")
        for file in finished_files(self.folder, "*.parquet"):
            other = int(file.stem)
            if reached < other < step or (last and other > step):
                file.unlink()  # a run with other checkpoint steps, or a longer one, wrote it


def read_records(run_folder: Path) -> pd.DataFrame:
    """The per-example records of a run, one row for each example and step.

    Columns: `step`, `id` and those of `napo.method.objective.ObjectiveOutput.records`.

    Raises:
        NapoError: if there are none.
    """
    import pandas as pd

    files = finished_files(Path(run_folder) / "records", "*.parquet")
    if not files:
        raise NapoError(f"{run_folder} holds no records; run notebooks/05_train.ipynb first.")
    frames = []
    for file in files:
        with reading(file, "delete its run and train it again"):
            frames.append(pd.read_parquet(file))
    return pd.concat(frames, ignore_index=True)
