"""The noise study, as pure functions: its grid, its noise, and what a cell's margins say.

A cell is one training run: a budget, a noise, a loss and a seed. A job trains the cells that share
everything but the loss. `napo.stages.cells` trains; `napo.results.verdicts` compares the losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from napo.config.study import GRIDS, KINDS, LOSSES, RATES, Noise, Study
from napo.errors import NapoError, unknown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

REWORDED = "reworded"  # another right wording of the chosen response
LABELS = 100  # labelled rows, for a q from labels (§3.2)
PARTS = ("", "_logp", "_tokens", "_cut")  # columns of a response, after its name


class Job(NamedTuple):
    """The cells that are trained one after another, on the same rows."""

    budget: str
    noise: Noise
    seed: int

    @property
    def name(self) -> str:
        """Such as "long/flip-0.4/seed-0"."""
        return f"{self.budget}/{self.noise.name}/seed-{self.seed}"

    @classmethod
    def read(cls, name: str) -> Job:
        """The job of a name."""
        budget, noise, seed = name.split("/")
        return cls(budget, Noise.read(noise), int(seed.removeprefix("seed-")))


class Cell(NamedTuple):
    """One training run of the study."""

    job: Job
    loss: str

    @property
    def name(self) -> str:
        """Its folder below the study's, such as "long/flip-0.4/pair/seed-0"."""
        budget, noise, seed = self.job.name.split("/")
        return f"{budget}/{noise}/{self.loss}/{seed}"


def grid(
    study: Study, seeds: Sequence[int], name: str = "", *, reworded: bool = True
) -> dict[Job, tuple[str, ...]]:
    """The jobs of a grid, and the losses that each of them trains.

    Args:
        study: a profile's section.
        seeds: of the cells.
        name: "default" or "full"; empty: the profile's.
        reworded: whether the rows can be reworded; without it there are flips only.

    Raises:
        NapoError: for another name.
    """
    name = name or study.grid
    if name not in GRIDS:
        raise unknown("grid", name, GRIDS)
    if name == "full":
        budgets, losses = tuple(study.budgets), tuple(LOSSES)
        # Without noise the kinds are the same.
        noises = [Noise(kind, rate) for kind in KINDS for rate in RATES if rate or kind == "flip"]
    else:
        budgets, losses = tuple(study.budgets)[:1], study.losses
        noises = [Noise.read(noise) for noise in study.noise]
    return {
        Job(budget, noise, seed): tuple(n for n in losses if LOSSES[n].defined(noise.rate))
        for budget in budgets
        for seed in seeds  # first: a stopped study has whole comparisons of few seeds
        for noise in noises
        if reworded or noise.kind == "flip"
    }


def noisy_rows(ids: Sequence[str], rate: float, seed: int) -> list[bool]:
    """Which rows are noisy. The noisy rows of a rate contain those of all lower rates.

    Each row has a number from the seed and its id; the share `rate` of rows with the smallest
    numbers is noisy. So the rate is exact, the same for all losses, and each seed is another draw.

    Args:
        ids: the rows' ids, each there once.
        rate: the share of noisy rows, rounded to whole rows.
        seed: the cell's.
    """
    numbers = [hashlib.sha256(f"{seed}/{id}".encode()).digest() for id in ids]
    chosen = set(sorted(numbers)[: round(rate * len(ids))])
    return [number in chosen for number in numbers]


def corrupted(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A row as noise, with the reference's columns of the responses that it then has.

    Args:
        row: `chosen`, `rejected` and, for "unbiased", `reworded`, with their reference columns.
        kind: "flip" swaps the pair. "unbiased" puts another right wording of the chosen response
            in place of the rejected one: a preference between two right answers.

    Raises:
        NapoError: if the row was not reworded.
    """
    others = {"flip": {"chosen": "rejected", "rejected": "chosen"}, "unbiased": {}}[kind]
    if kind == "unbiased":
        if row.get(REWORDED) is None:
            raise NapoError(
                f"Row {row['id']} has no other wording; unbiased noise needs the world's reword."
            )
        others = {"rejected": REWORDED}
    columns = {name + part: old + part for name, old in others.items() for part in PARTS}
    kept = {name: value for name, value in row.items() if name not in columns}
    return kept | {name: row[old] for name, old in columns.items() if old in row}


class NoisyRows(Sequence):
    """Rows of which some are noise; each is corrupted when it is read.

    Args:
        rows: clean rows, as `corrupted` takes them.
        noisy: whether each row is noise.
        kind: of the noise.

    Attributes:
        posterior: each row's probability of noise, for the loss that takes q from labels.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], noisy: Sequence[bool], kind: str) -> None:
        self.rows, self.noisy, self.kind = rows, noisy, kind
        self.posterior: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        row = corrupted(row, self.kind) if self.noisy[index] else dict(row)
        return row | {"rejected_noise": self.posterior[index]} if self.posterior else row


def posterior(rows: NoisyRows, seed: int) -> list[float]:
    """Each row's probability of noise, fitted to the known noise of 100 rows.

    As a user would: the labels of a sample and the reference's margins are known, the rest is not
    (`napo.noise.posterior`).

    Args:
        rows: with the reference's columns.
        seed: of the sample.
    """
    import numpy as np
    from scipy.special import expit

    from napo.noise.posterior import logistic

    margins = np.array([reference_margins(rows[place]) for place in range(len(rows))])
    sample = np.random.default_rng(seed).permutation(len(rows))[:LABELS]
    intercept, *slopes = logistic(margins[sample], np.array(rows.noisy)[sample])
    return expit(intercept + margins @ np.array(slopes)).tolist()


def reference_margins(row: Mapping[str, Any]) -> tuple[float, float]:
    """The reference's log-prob of chosen minus that of rejected, summed and per token, in nats."""
    chosen, rejected = row["chosen_logp"], row["rejected_logp"]
    tokens = row["chosen_tokens"], row["rejected_tokens"]
    return chosen - rejected, chosen / tokens[0] - rejected / tokens[1]


def step_averages(records: pd.DataFrame, noisy: Mapping[str, bool]) -> pd.DataFrame:
    """What a run's records say about each step: margins as trained, noise memorised, q.

    Args:
        records: from `napo.training.records.read_records`.
        noisy: id of each training row -> whether it is noisy.

    Returns:
        Columns step, psi (batch mean of psi_sum as trained), q (nan where the loss has none),
        noisy (noisy rows of the batch) and memorised (those with a positive margin as trained).
    """
    psi, is_noisy = records["rejected_psi_sum"], records["id"].map(noisy).astype(bool)
    frame = records[["step"]].assign(
        psi=psi,
        q=records.get("rejected_q", float("nan")),
        noisy=is_noisy.astype(int),
        memorised=(is_noisy & (psi > 0)).astype(int),
    )
    how = {"psi": "mean", "q": "mean", "noisy": "sum", "memorised": "sum"}
    return frame.groupby("step", as_index=False).agg(how)


class Metric(NamedTuple):
    """A measure of the study: the mean of a value over its items.

    `better` is 1 if larger is better, -1 if smaller is, 0 if neither.
    """

    title: str
    unit: str = "points"
    better: int = 1


METRICS = {
    "accuracy": Metric("held-out accuracy"),
    "clean": Metric("accuracy on the noisy pairs' clean side"),
    "memorised": Metric("memorised noise", better=-1),
    "psi": Metric("mean psi_sum, held out", "nats", 0),
    "LP": Metric("VLind LP"),
    "CB": Metric("VLind CB"),
    "LP true": Metric("LP, true statements", better=0),
    "LP false": Metric("LP, false statements", better=0),
    "CB true": Metric("CB, true statements", better=0),
    "CB false": Metric("CB, false statements", better=0),
}
VLIND = {"LP": "d", "CB": "C", "LP true": "d_true", "LP false": "d_false", "CB true": "c_true",
         "CB false": "c_false"}  # fmt: skip


def outcomes(margins: pd.DataFrame, vlind: pd.DataFrame | None = None) -> dict[str, pd.Series]:
    """What each item of a cell gives for each metric, shares in percent; indexed by item.

    Args:
        margins: columns split ("held_out" or "noisy"), id, psi (chosen against rejected) and
            trained_psi (the margin of the pair as trained; nan for held-out rows).
        vlind: the items of VLind-Bench (`napo.benchmarks.vlind.items`), if it was asked.
    """
    import pandas as pd

    held, noisy = (margins[margins["split"] == name].set_index("id")
                   for name in ("held_out", "noisy"))  # fmt: skip
    found: dict[str, np.ndarray | pd.Series] = {
        "accuracy": 100.0 * (held["psi"] > 0),
        "clean": 100.0 * (noisy["psi"] > 0),
        "memorised": 100.0 * (noisy["trained_psi"] > 0),
        "psi": held["psi"].astype(float),
    }
    if vlind is not None:
        by_instance = vlind.set_index(vlind["instance"].astype(str))
        found |= {name: 100.0 * by_instance[column] for name, column in VLIND.items()}
    return {name: pd.Series(values) for name, values in found.items()}
