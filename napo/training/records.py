"""The per-example records of a run: log-probs, margins, losses, q and gamma."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.workspace.files import atomic_file, finished_files

if TYPE_CHECKING:
    import pandas as pd


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
