"""The list from which a reader chooses among the runs of a workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import ipywidgets as widgets

from napo.errors import NapoError, unknown
from napo.stages.session import Session
from napo.workspace.manifests import complete

DEFAULTS = ("base", "dpo", "A1")  # the first seed of each is selected at first
ROWS = 8  # runs that the list shows without scrolling


def run_list(
    session: Session,
    folder: Path,
    notebook: str,
    runs: Iterable[str] = (),
    *,
    begun: Callable[[Path], bool] = lambda path: False,
) -> widgets.SelectMultiple:
    """A list of the runs in a folder, in the profile's order.

    Args:
        session: the session.
        folder: the folder of the runs or of their results.
        notebook: the notebook that fills the folder.
        runs: the selected runs: names such as "A1/seed-0", or variants, which stand for all their
            seeds; a single name may be a text. By default the first runs of base, dpo and A1.
        begun: whether an unfinished run can be shown; its name then says "so far".

    Raises:
        NapoError: without a run to show, or for an unknown run, with the nearest name.
    """
    paths = [path for pattern in ("*", "*/seed-*") for path in folder.glob(pattern)]
    labels = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if complete(path):
            labels[name] = name
        elif begun(path):
            labels[name] = f"{name} (so far)"
    names = list(labels)
    if not names:
        raise NapoError(f"{folder} holds no finished run; run notebooks/{notebook}.ipynb first.")
    order = ["base", *session.profile.variants, *session.profile.baselines]
    places = {name: place for place, name in enumerate(order)}
    names.sort(key=lambda name: (places.get(name.split("/")[0], len(order)), name))
    selected = [run for name in DEFAULTS for run in matching(name, names)[:1]] or names[:1]
    if runs:
        selected = []
        for name in [runs] if isinstance(runs, str) else runs:
            selected += matching(name, names)
            if not matching(name, names):
                raise unknown("run", name, names)
    return widgets.SelectMultiple(
        options=[(labels[name], name) for name in names],
        value=selected,
        rows=min(ROWS, len(names)),
        description="runs",
    )


def matching(name: str, runs: Sequence[str]) -> list[str]:
    """The runs of a name: one run, or all seeds of a variant; LoRA's if there is no full run."""
    for folder in (name, f"{name}-lora", f"{name}-qlora"):
        matches = [run for run in runs if run == folder or run.startswith(f"{folder}/")]
        if matches:
            return matches
    return []
