"""Compare the losses of the noise study: values, paired differences with intervals, sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napo.benchmarks.intervals import DRAWS, percentile, weights
from napo.config.study import LOSSES, Noise
from napo.noise.study import METRICS, Cell

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "dpo"
# Beyond the baseline: a loss, the loss it is compared with, and what the comparison asks about.
QUESTIONS = (
    ("napo", "q-0.5", "adapting q by Eq. 12"),
    ("pair", "napo", "DPO with a weight for each pair"),
    ("pair-q", "q-0.5", "a q for each pair"),
)
SAME = 1.0  # points: an interval within this on both sides of 0 says that nothing changes
VERDICTS = ("better", "worse", "no change", "not decided")
KEYS = ["budget", "kind", "rate", "loss"]


class Group(NamedTuple):
    """Cells that differ in their seed only."""

    budget: str
    kind: str
    rate: float
    loss: str


# metric -> values, indexed by seed, a column for each item; nan where a seed lacks the item
Values = Mapping[str, "pd.DataFrame"]


def grouped(cells: Mapping[Cell, Mapping[str, pd.Series]]) -> dict[Group, Values]:
    """The outcomes of cells (`napo.noise.study.outcomes`) as tables of seeds by items.

    Without noise all kinds are the same, so every kind gets the cells of rate 0.
    """
    import pandas as pd

    by_group: dict[Group, dict[int, Mapping[str, pd.Series]]] = {}
    for cell, outcome in cells.items():
        budget, noise, seed = cell.job
        by_group.setdefault(Group(budget, noise.kind, noise.rate, cell.loss), {})[seed] = outcome
    for kind in {group.kind for group in by_group}:
        for group in [group for group in by_group if group.rate == 0]:
            by_group.setdefault(group._replace(kind=kind), by_group[group])
    tables = {}
    for group, seeds in sorted(by_group.items(), key=lambda item: place(item[0])):
        metrics = {name for outcome in seeds.values() for name in outcome if len(outcome[name])}
        tables[group] = {
            name: pd.DataFrame({seed: seeds[seed][name] for seed in sorted(seeds)}).T
            for name in METRICS
            if name in metrics
        }
    return tables


def place(group: Group) -> tuple[str, str, float, int]:
    """The place of a group in tables: losses in the order of their entries."""
    return (group.budget, group.kind, group.rate, list(LOSSES).index(group.loss))


def resampled(values: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """The mean of the values in each bootstrap sample: (draws,).

    Items and seeds are drawn independently, and a seed brings all its items with it. Two things
    are corrected, so that a 95 % interval holds the truth in 92 to 97 % of simulations with five
    seeds. Of n seeds n - 1 are drawn and their part is widened as Student's t asks: so few seeds
    would else seem to agree too well. And what belongs to single values is counted once: both
    drawings contain it.

    Args:
        values: shape (seeds, items); nan where a seed lacks an item.
        draws: number of samples.
        seed: of the draws.
    """
    known = np.isfinite(values)
    sums, number = np.where(known, values, 0.0), len(values)
    mean = sums.sum() / known.sum()
    items = weights(values.shape[1], draws, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_items = (items @ sums.sum(0)) / (items @ known.sum(0)) - mean
        if number == 1:
            return mean + by_items
        rng = np.random.default_rng([seed, number])
        seeds = rng.multinomial(number - 1, np.full(number, 1 / number), size=draws)
        by_seeds = (seeds @ sums.sum(1)) / (seeds @ known.sum(1)) - mean
        both = by_items + widening(number) * by_seeds
    variance = np.nanvar(both)
    kept = 1 - single_variance(sums, known, mean) / variance if variance else 1.0
    return mean + both * np.sqrt(max(0.0, kept))


def widening(seeds: int) -> float:
    """How much wider an interval from few seeds is under Student's t than under the normal."""
    from scipy.stats import norm, t

    return float(t.ppf(0.975, seeds - 1) / norm.ppf(0.975))


def single_variance(sums: np.ndarray, known: np.ndarray, mean: float) -> float:
    """The variance of the mean from what neither its item nor its seed explains in a value.

    Args:
        sums: values, 0 where unknown; shape (seeds, items).
        known: where there is a value, same shape.
        mean: of all values.
    """
    measured, count = known.any(0), known.sum()
    sums, known = sums[:, measured], known[:, measured]
    of_items, of_seeds = sums.sum(0) / known.sum(0), sums.sum(1) / known.sum(1)
    residuals = np.where(known, sums - of_items - of_seeds[:, None] + mean, 0.0)
    freedom = count - measured.sum() - len(sums) + 1
    return float((residuals**2).sum() / freedom / count) if freedom > 0 else 0.0


def estimate(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of the values (seeds, items), and its 95 % interval over seeds and items."""
    low, high = percentile(resampled(values))
    return float(np.nanmean(values)), low, high


def difference(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, float] | None:
    """Mean difference and its 95 % interval, paired by seed and item; None without common ones."""
    one, other = one.align(other, join="inner")
    values = (one - other).to_numpy(float)
    return estimate(values) if np.isfinite(values).any() else None


def verdict(low: float, high: float, better: int = 1, same: float = SAME) -> str:
    """What an interval of a difference says: one of `VERDICTS`; empty where nothing is better."""
    if not better:
        return ""
    if low > 0 or high < 0:
        return "better" if (low > 0) == (better > 0) else "worse"
    return "no change" if -same <= low and high <= same else "not decided"


def summary(groups: Mapping[Group, Values]) -> pd.DataFrame:
    """Every metric of every loss, and its difference to the baseline.

    Returns:
        Columns budget, kind, rate, loss, metric, seeds (their number), value, low, high,
        difference, difference_low, difference_high (nan for the baseline, or without it) and
        verdict. Shares are in percent, differences in points.
    """
    import pandas as pd

    rows = []
    for group, values in groups.items():
        others = groups.get(group._replace(loss=BASELINE), {})
        for name, frame in values.items():
            change = None
            if group.loss != BASELINE and name in others:
                change = difference(frame, others[name])
            numbers = (*estimate(frame.to_numpy(float)), *(change or [float("nan")] * 3))
            word = verdict(*change[1:], METRICS[name].better) if change else ""
            rows.append((*group, name, len(frame), *numbers, word))
    ends = ["value", "low", "high", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=[*KEYS, "metric", "seeds", *ends, "verdict"])


def noise_in_words(kind: str, rate: float) -> str:
    """Such as "at 40 % flips"."""
    if not rate:
        return "without noise"
    return f"at {100 * rate:g} % {'flips' if kind == 'flip' else 'unbiased pairs'}"


class Comparison(NamedTuple):
    """A loss against another one: its name in words, the verdict, and the numbers behind it."""

    subject: str
    other: str
    verdict: str
    numbers: str  # such as "−2.6 [−4.4, −0.5]"
    seeds: int


def comparisons(by_loss: Mapping[str, pd.DataFrame], better: int) -> list[Comparison]:
    """Each loss against the baseline, then the further questions; without cells that did not run.

    Args:
        by_loss: loss -> values of a metric, seeds by items.
        better: as of a `Metric`.
    """
    pairs = [(loss, BASELINE, LOSSES[loss].title) for loss in by_loss if loss != BASELINE]
    compared = []
    for loss, other, subject in (*pairs, *QUESTIONS):
        if not {loss, other} <= set(by_loss):
            continue
        one, two = by_loss[loss], by_loss[other]
        if change := difference(one, two):
            numbers = "{:+.1f} [{:.1f}, {:.1f}]".format(*change).replace("-", "−")
            seeds = len(one.index.intersection(two.index))
            word = verdict(*change[1:], better)
            compared.append(Comparison(subject, other, word, numbers, seeds))
    return compared


def sentences(groups: Mapping[Group, Values], metric: str = "accuracy") -> list[str]:
    """What the study says about a metric: for each noise the losses by verdict, then the questions.

    Such as "Held-out accuracy at 40 % flips (long, 5 seeds), in points against DPO. Worse: IPO
    −2.6 [−4.4, −0.5]. Not decided: MAE (q = 1) +0.2 [−0.9, 1.3]."
    """
    texts, measure = [], METRICS[metric]
    for budget, kind, rate in dict.fromkeys(group[:3] for group in groups):
        if rate == 0 and kind != "flip":  # the same cells as without noise
            continue
        here = {g.loss: values[metric] for g, values in groups.items()
                if g[:3] == (budget, kind, rate) and metric in values}  # fmt: skip
        compared = comparisons(here, measure.better)
        if not compared:
            continue
        seeds = sorted({min(c.seeds for c in compared), max(c.seeds for c in compared)})
        count = " to ".join(map(str, seeds)) + f" seed{'s' * (seeds[-1] > 1)}"
        where = f"{noise_in_words(kind, rate)} ({budget}, {count}), in {measure.unit} against DPO."
        parts = [f"{measure.title} {where}"]
        for word in VERDICTS:
            losses = [f"{c.subject} {c.numbers}" for c in compared
                      if c.other == BASELINE and c.verdict == word]  # fmt: skip
            parts += [f"{word}: {', '.join(losses)}."] if losses else []
        parts += [f"{c.subject} against {LOSSES[c.other].title}: {c.verdict}, {c.numbers}."
                  for c in compared if c.other != BASELINE]  # fmt: skip
        texts.append(" ".join(part[0].upper() + part[1:] for part in parts))
    return texts


def budget_sentences(steps: Mapping[Cell, pd.DataFrame]) -> list[str]:
    """The margin that DPO reaches without noise, a sentence for each budget.

    It is the mean psi_sum of the training pairs in the last twelfth of the steps, over seeds.
    """
    ends: dict[str, list[float]] = {}
    for cell, frame in steps.items():
        if cell.loss == BASELINE and not cell.job.noise.rate:
            last = frame["psi"].tail(max(1, len(frame) // 12))
            ends.setdefault(cell.job.budget, []).append(float(last.mean()))
    return [
        f"Without noise, DPO ends at a mean psi_sum of {np.mean(values):.2f} nats ({budget})."
        for budget, values in ends.items()
    ]


def q_sentences(steps: Mapping[Cell, pd.DataFrame]) -> list[str]:
    """The range of q over all steps and runs, a sentence for each loss whose q follows a rule."""
    ranges: dict[tuple[str, str], list[float]] = {}
    for cell, frame in steps.items():
        if LOSSES[cell.loss].term.q is None and frame["q"].notna().any():
            ends = [frame["q"].min(), frame["q"].max()]
            ranges.setdefault((cell.job.budget, cell.loss), []).extend(ends)
    return [
        f"The mean q of a step lay between {min(ends):.3f} and {max(ends):.3f} in all runs of "
        f"{LOSSES[loss].title} ({budget})."
        for (budget, loss), ends in ranges.items()
    ]


def not_run(missing: Iterable[Cell]) -> list[str]:
    """Cells that have not run, a line for each noise and loss."""
    seeds: dict[tuple[str, Noise, str], list[int]] = {}
    for cell in missing:
        budget, noise, seed = cell.job
        seeds.setdefault((budget, noise, cell.loss), []).append(seed)
    return [
        f"Not run: {loss} {noise_in_words(*noise)} ({budget}), seeds "
        f"{', '.join(map(str, sorted(numbers)))}"
        for (budget, noise, loss), numbers in seeds.items()
    ]


def by_part(steps: Mapping[Cell, pd.DataFrame], parts: int = 12) -> pd.DataFrame:
    """The share of noise that is memorised over a run, in parts of equally many steps.

    Args:
        steps: of each cell, from `napo.noise.study.step_averages`.
        parts: how many parts; a run of fewer steps has a part for each step.

    Returns:
        Columns budget, kind, rate, loss, progress (the middle of the part, as a share of the run),
        value (percent of the noisy rows in these steps, mean over seeds), low, high (the lowest and
        the highest seed). Cells without noise are left out.
    """
    import pandas as pd

    frames = []
    for cell, frame in steps.items():
        if not cell.job.noise.rate:
            continue
        total = len(frame)
        count = min(parts, total)
        part = frame["step"] * count // total
        sums = frame.groupby(part)[["memorised", "noisy"]].sum()
        budget, noise, seed = cell.job
        frames.append(
            pd.DataFrame(
                {
                    "budget": budget,
                    "kind": noise.kind,
                    "rate": noise.rate,
                    "loss": cell.loss,
                    "seed": seed,
                    "progress": (sums.index + 0.5) / count,
                    "share": 100 * sums["memorised"] / sums["noisy"],
                }
            )
        )
    if not frames:
        return pd.DataFrame(columns=[*KEYS, "progress", "value", "low", "high"])
    together = pd.concat(frames, ignore_index=True)
    shares = together.groupby([*KEYS, "progress"], sort=False)["share"]
    return shares.agg(value="mean", low="min", high="max").reset_index()
