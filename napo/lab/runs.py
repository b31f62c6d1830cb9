"""The finished runs of a workspace, and those that a reader names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from napo.errors import unknown
from napo.stages.session import Session
from napo.workspace.manifests import complete


def finished(folder: Path, session: Session) -> list[str]:
    """Names of the complete folders below one (`base`, `A1/seed-0` ...) in the profile's order."""
    names = [
        path.relative_to(folder).as_posix()
        for pattern in ("*", "*/seed-*")
        for path in folder.glob(pattern)
        if complete(path)
    ]
    order = ("base", *session.profile.variants, *session.profile.baselines)
    places = {name: place for place, name in enumerate(order)}
    return sorted(names, key=lambda name: (places.get(name.split("/")[0], len(order)), name))


def chosen(names: Iterable[str], runs: Sequence[str]) -> tuple[str, ...]:
    """The runs that some names stand for, in the order of the names.

    Args:
        names: run names, or variants, which stand for all their seeds.
        runs: the finished runs.

    Raises:
        NapoError: for a name that no run has, with the nearest one.
    """
    selected: dict[str, None] = {}
    for name in names:
        matches = matching(name, runs)
        if not matches:
            raise unknown("run", name, runs)
        selected |= dict.fromkeys(matches)
    return tuple(selected)


def matching(name: str, runs: Sequence[str]) -> list[str]:
    """The runs of a name: one run, or all seeds of a variant; LoRA's if there is no full run."""
    for folder in (name, f"{name}-lora", f"{name}-qlora"):
        matches = [run for run in runs if run == folder or run.startswith(f"{folder}/")]
        if matches:
            return matches
    return []
