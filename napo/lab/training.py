"""Training curves of any runs of the workspace."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import ipywidgets as widgets
import pandas as pd

from napo import stages
from napo.lab.html import drawing, remark
from napo.lab.live import Explorer, controls
from napo.lab.runs import run_list
from napo.results.figures import per_step, training_curves
from napo.stages.session import Session
from napo.workspace.files import read_json
from napo.workspace.manifests import SETTINGS


class Training(Explorer):
    """Margins, q and gamma over the steps of any runs.

    Args:
        session: the session.
        runs: the runs to show first, see `napo.lab.runs.run_list`.

    Raises:
        NapoError: without a finished run, or for an unknown run.
    """

    def __init__(self, session: Session, runs: Iterable[str] = ()) -> None:
        self.folder, self.session = session.workspace.data / "runs", session
        self.runs = run_list(session, self.folder, "05_train", runs)
        self.steps = lru_cache(maxsize=None)(self.read_steps)
        hint = widgets.HTML(remark("Ctrl or Shift selects several; seeds of a variant share a row"))
        super().__init__(
            "Training curves of margins, q and gamma", self.curves(), [controls(self.runs, hint)]
        )
        self.runs.observe(self.update, "value")

    def fill(self) -> None:
        """Draw the selected runs."""
        self.view.value = self.curves() if self.runs.value else remark("Choose a run.")

    def curves(self) -> str:
        """The figure of the selected runs, as HTML."""
        runs = self.runs.value
        steps = pd.concat([self.steps(run) for run in runs], ignore_index=True)
        alt = f"Margins, q and gamma over the steps of {', '.join(runs)}"
        return drawing(training_curves(steps)._repr_png_(), alt)

    def read_steps(self, run: str) -> pd.DataFrame:
        """A run's averages per step, named by its folder, so that LoRA stays apart from full."""
        settings = read_json(self.folder / run / SETTINGS)
        records = stages.records(
            self.session, settings["variant"], str(settings["seed"]), settings["tune"]
        )
        return per_step(records.assign(variant=run.split("/")[0]))
