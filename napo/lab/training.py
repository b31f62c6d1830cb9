"""Training curves of any runs of the workspace."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import ipywidgets as widgets
import pandas as pd

from napo import stages
from napo.errors import NapoError
from napo.lab.html import drawing, remark
from napo.lab.live import Explorer, controls
from napo.lab.runs import chosen, finished
from napo.results.figures import per_step, training_curves
from napo.stages.session import Session
from napo.workspace.files import read_json
from napo.workspace.manifests import SETTINGS

DEFAULT_COUNT = 3  # runs that are shown when none is named
LIST_ROWS = 8  # runs that the list shows without scrolling


def training(session: Session, runs: Iterable[str] = ()) -> Training:
    """Margins, q and gamma over the steps of any runs.

    Args:
        session: the session.
        runs: the runs to show first: names such as "A1/seed-0", or variants, which stand for all
            their seeds. By default the first three runs.

    Raises:
        NapoError: without a finished run, or for an unknown run.
    """
    return Training(session, tuple([runs] if isinstance(runs, str) else runs))


class Training(Explorer):
    """See `training`."""

    def __init__(self, session: Session, runs: tuple[str, ...]) -> None:
        self.folder, self.session = session.workspace.data / "runs", session
        names = finished(self.folder, session)
        if not names:
            raise NapoError(
                f"{self.folder} holds no finished run; run notebooks/05_train.ipynb first."
            )
        first = chosen(runs, names) if runs else tuple(names[:DEFAULT_COUNT])
        self.steps = lru_cache(maxsize=None)(self.read_steps)
        self.curves = lru_cache(maxsize=16)(self.draw_curves)
        self.runs = widgets.SelectMultiple(
            options=names, value=first, rows=min(LIST_ROWS, len(names)), description="runs"
        )
        hint = widgets.HTML(remark("Ctrl or Shift selects several; seeds of a variant share a row"))
        super().__init__(
            "Training curves of margins, q and gamma",
            self.curves(first),
            [controls(self.runs, hint)],
        )
        self.watch((self.runs, "value"))

    def fill(self) -> None:
        """Draw the selected runs."""
        runs = self.runs.value
        self.view.value = self.curves(runs) if runs else remark("Choose a run.")

    def draw_curves(self, runs: tuple[str, ...]) -> str:
        """The figure of some runs, as HTML."""
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
