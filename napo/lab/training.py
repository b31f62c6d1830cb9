"""Training curves of any set of runs that the workspace holds."""

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

FIRST = 3  # runs that are shown when none is named
LISTED = 8  # runs that the list shows without scrolling


def training(session: Session, runs: Iterable[str] = ()) -> Training:
    """Margins, q and gamma over the steps of any runs.

    Args:
        session: the session.
        runs: which to show first: names such as "A1/seed-0", or variants, for all their seeds;
            none: the first three there are.

    Raises:
        NapoError: when there is no finished run, or none of that name.
    """
    return Training(session, tuple([runs] if isinstance(runs, str) else runs))


class Training(Explorer):
    """See `training`."""

    def __init__(self, session: Session, runs: tuple[str, ...]) -> None:
        self._folder, self._session = session.workspace.data / "runs", session
        there = finished(self._folder, session)
        if not there:
            raise NapoError(
                f"{self._folder} holds no finished run; run notebooks/05_train.ipynb first."
            )
        first = chosen(runs, there) if runs else tuple(there[:FIRST])
        self._steps = lru_cache(maxsize=None)(self._read)  # a row a step: small
        self._draw = lru_cache(maxsize=16)(self._drawn)
        self.runs = widgets.SelectMultiple(
            options=there, value=first, rows=min(LISTED, len(there)), description="runs"
        )
        hint = widgets.HTML(remark("Ctrl or Shift chooses several; seeds of a variant share a row"))
        super().__init__(
            "Training curves of margins, q and gamma",
            self._draw(first),
            [controls(self.runs, hint)],
        )
        self.watch((self.runs, "value"))

    def _fill(self) -> None:
        if not self.runs.value:
            self.view.value = remark("Choose a run.")
            return
        self.view.value = self._draw(self.runs.value)

    def _drawn(self, runs: tuple[str, ...]) -> str:
        steps = pd.concat([self._steps(run) for run in runs], ignore_index=True)
        alt = f"Margins, q and gamma over the steps of {', '.join(runs)}"
        return drawing(training_curves(steps)._repr_png_(), alt)

    def _read(self, run: str) -> pd.DataFrame:
        """A run's averages per step, under the name of its folder: LoRA stays apart from full."""
        made = read_json(self._folder / run / SETTINGS)
        records = stages.records(self._session, made["variant"], str(made["seed"]), made["tune"])
        return per_step(records.assign(variant=run.split("/")[0]))
