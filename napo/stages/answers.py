"""The answers of a run to a benchmark, and how they were scored, from its result folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napo.stages.inputs import benchmarks_folder
from napo.stages.session import Session
from napo.workspace.manifests import require

if TYPE_CHECKING:
    import pandas as pd

    from napo.benchmarks import Mark


def benchmark(session: Session, name: str) -> Any:
    """A benchmark's data, as its module loads it."""
    from napo import benchmarks

    return benchmarks.module(name).load(benchmarks_folder(session) / name)


def answers(session: Session, run: str, name: str) -> dict[str, str]:
    """A run's answers by request; empty if the run was not asked this benchmark.

    Raises:
        NapoError: for a run without finished results, or answers to other questions.
    """
    from napo.benchmarks import runner
    from napo.stages.runs import requests

    folder = session.workspace.result(run)
    require(folder)
    entries, _ = runner.kept(folder / f"{name}.answers.jsonl", requests(session, name))
    return {entry["id"]: entry["answer"] for entry in entries}


def items(session: Session, run: str, name: str) -> pd.DataFrame:
    """The rows of a run's `<benchmark>.items.csv`, which its metrics are ratios of."""
    import pandas as pd

    return pd.read_csv(session.workspace.result(run) / f"{name}.items.csv")


def marks(session: Session, run: str, name: str) -> dict[str, Mark]:
    """A run's answers beside the right ones; empty if it was not asked, or nothing says so."""
    from napo import benchmarks

    given = answers(session, run, name)
    if not given:
        return {}
    scoring = benchmarks.options(name, session.profile.evaluation).scoring
    data = benchmark(session, name)
    return benchmarks.marks(name, data, given, items(session, run, name), scoring)
