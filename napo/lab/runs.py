"""Which runs a workspace holds, in the tables' order, and which of them a reader asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from napo.errors import unknown
from napo.stages.session import Session
from napo.workspace.manifests import complete


def finished(folder: Path, session: Session) -> list[str]:
    """Names of the complete folders beneath one: `base`, `A1/seed-0` ..., the profile's order."""
    names = [
        path.relative_to(folder).as_posix()
        for pattern in ("*", "*/seed-*")
        for path in folder.glob(pattern)
        if complete(path)
    ]
    order = ("base", *session.profile.variants, *session.profile.baselines)
    places = {name: at for at, name in enumerate(order)}
    return sorted(names, key=lambda name: (places.get(name.split("/")[0], len(order)), name))


def chosen(wanted: Iterable[str], there: Sequence[str]) -> tuple[str, ...]:
    """The runs that are asked for, by name or by variant (all its seeds), in the order asked.

    Raises:
        NapoError: for a name that no run has, with the nearest.
    """
    found: dict[str, None] = {}
    for name in wanted:
        mine = matching(name, there)
        if not mine:
            raise unknown("run", name, there)
        found |= dict.fromkeys(mine)
    return tuple(found)


def matching(name: str, there: Sequence[str]) -> list[str]:
    """The runs of a name: a run, or all seeds of a variant; LoRA's where the full one is not."""
    for called in (name, f"{name}-lora", f"{name}-qlora"):
        found = [run for run in there if run == called or run.startswith(f"{called}/")]
        if found:
            return found
    return []
