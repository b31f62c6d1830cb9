"""Training curves of any runs of the workspace."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import ipywidgets as widgets
import pandas as pd

from napo.lab.html import drawing, remark
from napo.lab.live import Explorer, controls
from napo.lab.runs import matching, run_list
from napo.results.figures import per_step, training_curves
from napo.stages.session import Session
from napo.training.records import read_records
from napo.workspace.files import finished_files
from napo.workspace.manifests import complete


class Training(Explorer):
    """Loss, margins, q and gamma over the steps of any runs; of unfinished ones up to now.

    Args:
        session: the session.
        runs: the runs to show first, see `napo.lab.runs.run_list`.
        beside: variants that are shown first, too, if they have a run.

    Raises:
        NapoError: without a run that has records, or for an unknown run.
    """

    def __init__(
        self, session: Session, runs: Iterable[str] = (), beside: Iterable[str] = ()
    ) -> None:
        self.folder = session.workspace.data / "runs"
        self.runs = run_list(session, self.folder, "05_train", runs, begun=has_records)
        names = [name for _, name in self.runs.options]
        others = {run for name in beside for run in matching(name, names)}
        self.runs.value = [name for name in names if name in others | {*self.runs.value}]
        self.finished: dict[str, pd.DataFrame] = {}  # the averages of finished runs
        hint = widgets.HTML(
            remark("Ctrl or Shift selects several; seeds of a variant share a line.")
        )
        super().__init__(
            "Training curves of loss, margins, q and gamma",
            self.curves(),
            [controls(self.runs, hint)],
        )
        self.runs.observe(self.update, "value")

    def fill(self) -> None:
        """Draw the selected runs."""
        self.view.value = self.curves() if self.runs.value else remark("Choose a run.")

    def curves(self) -> str:
        """The figure of the selected runs, as HTML."""
        runs = self.runs.value
        steps = pd.concat([self.steps(run) for run in runs], ignore_index=True)
        alt = f"Loss, margins, q and gamma over the steps of {', '.join(runs)}"
        return drawing(training_curves(steps)._repr_png_(), alt)

    def steps(self, run: str) -> pd.DataFrame:
        """A run's averages per step, named by its folder, so that LoRA stays apart from full."""
        if run in self.finished:
            return self.finished[run]
        variant, _, seed = run.partition("/seed-")
        records = read_records(self.folder / run).assign(variant=variant, seed=int(seed))
        steps = per_step(records)
        if complete(self.folder / run):  # an unfinished run has more to show the next time
            self.finished[run] = steps
        return steps


def has_records(run: Path) -> bool:
    """Whether a run has written records: with its first checkpoint, then with each."""
    return bool(finished_files(run / "records", "*.parquet"))
