"""Collect what runs measured: values, intervals, differences to the base, seeds pooled.

Every metric is a ratio of two sums over images or instances (`Ratio`), and every run
answers the same ones, so intervals come from one resampling of the items, the same for all
seeds and variants. Paired differences follow from it. Seeds are averaged and not resampled: three
are too few, and their spread is told beside the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napo.benchmarks.intervals import percentile, resampled
from napo.config.benchmarks import BENCHMARKS, Metric, metrics
from napo.errors import NapoError
from napo.workspace.files import read_json
from napo.workspace.folders import run_name
from napo.workspace.manifests import complete, require

if TYPE_CHECKING:
    import pandas as pd


DUST = 1e-9  # what is left of percentages that cancel; no benchmark tells so little apart


@dataclass(frozen=True)
class Estimate:
    """A value over seeds with its spread and its 95 % interval.

    Attributes:
        value: mean over seeds.
        sd: standard deviation over seeds (nan for one).
        low: lower end of the interval, items resampled.
        high: upper end.
        seeds: how many runs.
    """

    value: float
    sd: float
    low: float
    high: float
    seeds: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out (of a difference)."""
        return self.low > DUST or self.high < -DUST


@dataclass(frozen=True)
class Results:
    """The finished runs of a results folder.

    Attributes:
        folder: the results folder.
        runs: variant -> its finished runs' names; "base" has one.
    """

    folder: Path
    runs: Mapping[str, Sequence[str]]

    def only(self, variants: Iterable[str]) -> Results:
        """The base and these variants."""
        wanted = {"base", *variants}
        return Results(self.folder, {k: v for k, v in self.runs.items() if k in wanted})

    @cached_property
    def _known(self) -> dict[tuple[str, ...], Any]:
        return {}

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def items(self, run: str, benchmark: str) -> pd.DataFrame:
        """One row an image or instance, with the columns that metrics are ratios of."""
        import pandas as pd

        path = self.folder / run / f"{benchmark}.items.csv"
        return self._once(("items", run, benchmark), lambda: pd.read_csv(path))

    def result(self, run: str, benchmark: str) -> dict[str, Any]:
        """A run's result file."""
        path = self.folder / run / f"{benchmark}.json"
        return self._once(("result", run, benchmark), lambda: read_json(path))

    def ran(self, variant: str, benchmark: str) -> list[str]:
        """The runs of a variant that answered a benchmark."""
        there = self.runs.get(variant, ())
        return [run for run in there if (self.folder / run / f"{benchmark}.json").is_file()]

    def measured(self, run: str, metric: Metric) -> float:
        """A run's value as its scorer gives it, in the paper's units; nan where undefined."""
        found = self.result(run, metric.benchmark)["metrics"][metric.key]["value"]
        return float("nan") if found is None else found * metric.scale

    def samples(self, variant: str, metric: Metric) -> tuple[list[float], np.ndarray]:
        """Each seed's value, and the bootstrap samples of their mean: (draws,)."""
        return self._once(("samples", variant, metric.name), lambda: self._samples(variant, metric))

    def _samples(self, variant: str, metric: Metric) -> tuple[list[float], np.ndarray]:
        runs = self.ran(variant, metric.benchmark)
        self._same_questions(runs, metric.benchmark)
        frames = [self.items(run, metric.benchmark) for run in runs]
        draws = np.mean([resampled(frame, metric.ratio) for frame in frames], axis=0)
        return [self.measured(run, metric) for run in runs], draws

    def estimate(self, variant: str, metric: Metric) -> Estimate | None:
        """A variant's metric over its seeds; None if it did not run.

        Raises:
            NapoError: when its seeds answered different questions.
        """
        if not self.ran(variant, metric.benchmark):
            return None
        return _estimate(*self.samples(variant, metric))

    def difference(self, variant: str, other: str, metric: Metric) -> Estimate | None:
        """One variant minus another, paired by item; None if either did not run.

        Raises:
            NapoError: when they answered different questions.
        """
        runs = [self.ran(name, metric.benchmark) for name in (variant, other)]
        if not all(runs):
            return None
        self._same_questions([run for part in runs for run in part], metric.benchmark)
        values, draws = self.samples(variant, metric)
        base, base_draws = self.samples(other, metric)
        return _estimate([v - float(np.mean(base)) for v in values], draws - base_draws)

    def _same_questions(self, runs: Sequence[str], benchmark: str) -> None:
        """Stop unless all runs answered the same data: only then items can be paired."""
        asked = {}
        for run in runs:
            prints = self.result(run, benchmark)["fingerprints"]
            asked[prints.get("benchmarks_data"), len(self.items(run, benchmark))] = run
        if len(asked) > 1:
            raise NapoError(
                f"{' and '.join(sorted(asked.values()))} answered different data of {benchmark}; "
                "evaluate them again on the same benchmarks."
            )


def _estimate(values: Sequence[float], draws: np.ndarray) -> Estimate:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Estimate(float(np.mean(values)), spread, *percentile(draws), len(values))


def collect(
    folder: Path, variants: Iterable[str], seeds: Iterable[int], tune: str = "full"
) -> Results:
    """The finished runs among those that were asked for.

    Args:
        folder: the results folder.
        variants: names in `napo.config.variants.VARIANTS`; "base" is looked for too.
        seeds: the seeds of the trained variants.
        tune: "full", "lora" or "qlora".

    Raises:
        NapoError: when a finished run's files are missing or damaged.
    """
    seeds = list(seeds)
    names = {"base": ["base"]} | {
        variant: [run_name(variant, seed, tune) for seed in seeds]
        for variant in variants
        if variant != "base"
    }
    runs = {}
    for variant, wanted in names.items():
        there = [run for run in wanted if complete(folder / run)]
        for run in there:
            require(folder / run)
        if there:
            runs[variant] = there
    return Results(folder, runs)


def summary(results: Results, columns: Sequence[Metric] | None = None) -> pd.DataFrame:
    """Every variant's metrics with interval, and the paired difference to the base.

    Args:
        results: what ran.
        columns: the metrics; by default all that tables show.

    Columns: variant, metric, value, sd, low, high, seeds, difference, difference_low,
    difference_high.
    """
    import pandas as pd

    rows = []
    for variant in results.runs:
        for metric in metrics() if columns is None else columns:
            found = results.estimate(variant, metric)
            if found is None:
                continue
            change = results.difference(variant, "base", metric)
            rows.append(
                {
                    "variant": variant,
                    "metric": metric.name,
                    **vars(found),
                    "difference": change.value if change else np.nan,
                    "difference_low": change.low if change else np.nan,
                    "difference_high": change.high if change else np.nan,
                }
            )
    return pd.DataFrame(rows)


def measurements(results: Results) -> pd.DataFrame:
    """What every run measured, a row a run, benchmark and metric, in the scorers' own units.

    Columns: variant, run, seed, benchmark, metric, value, low, high, n.
    """
    import pandas as pd

    rows = []
    for variant, runs in results.runs.items():
        for run in runs:
            for name in BENCHMARKS:
                if run not in results.ran(variant, name):
                    continue
                content = results.result(run, name)
                place = {"variant": variant, "run": run, "seed": content["seed"], "benchmark": name}
                rows += [
                    {**place, "metric": metric, **numbers}
                    for metric, numbers in content["metrics"].items()
                ]
    names = ["variant", "run", "seed", "benchmark", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=names)


# The paper's claims as questions: (question, variant, compared with).
CLAIMS = (
    ("Does the full method (A1) raise LP and CB over DPO?", "A1", "dpo"),
    ("Do the weights gamma help (A1 over A2, the plain sum)?", "A1", "A2"),
    ("Does NaPO beat DPO on the same three pairs (A1 over A3, both with gamma)?", "A1", "A3"),
    ("Does NaPO beat DPO on language-biased pairs (LB1 over LB2)?", "LB1", "LB2"),
    ("Does NaPO beat DPO on vision-biased pairs (VB1 over VB2)?", "VB1", "VB2"),
    ("Do both kinds together beat one (A2 over LB1)?", "A2", "LB1"),
    ("Do both kinds together beat one (A2 over VB1)?", "A2", "VB1"),
    ("Does as much data from all three kinds (random) beat RLAIF-V alone (dpo)?", "random", "dpo"),
    ("Is psi_mean the better margin for language bias (LB1 over LB-sum)?", "LB1", "LB-sum"),
    ("Is psi_sum the better margin for vision bias (VB1 over VB-mean)?", "VB1", "VB-mean"),
)


def claims(results: Results) -> pd.DataFrame:
    """What these runs say to the paper's claims, each difference with its 95 % interval.

    Columns: question, variant, other, metric, difference, low, high (nan where not run), answer:
    "better", "worse", "not decided" (the interval holds 0), "the same" (no item's score
    differs, seeds averaged),
    "undefined", or "not run".
    """
    import pandas as pd

    rows = []
    for question, variant, other in CLAIMS:
        for metric in metrics(table=2):
            change = results.difference(variant, other, metric)
            row = {"question": question, "variant": variant, "other": other, "metric": metric.title}
            if change is None:
                numbers = dict.fromkeys(("difference", "low", "high"), float("nan"))
                answer = "not run"
            else:
                found = (change.value, change.low, change.high)
                value, low, high = (0.0 if abs(x) < DUST else x for x in found)
                numbers = {"difference": value, "low": low, "high": high}
                better = change.value * metric.better > 0
                answer = ("better" if better else "worse") if change.decided else "not decided"
                if value == low == high == 0:
                    answer = "the same"
                if np.isnan(change.value):  # such as CHAIRi of a model that names no object
                    answer = "undefined"
            rows.append({**row, **numbers, "answer": answer})
    return pd.DataFrame(rows)


def claims_to_read(found: pd.DataFrame) -> pd.DataFrame:
    """Claims for reading: a row a question, a column a metric, "+3.1 [+1.0, +5.2] better"."""

    def cell(row: pd.Series) -> str:
        if row["answer"] in ("not run", "undefined", "the same"):
            return row["answer"]
        span = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
        return f"{span} {row['answer']}".replace("-", "−")

    table = found.assign(cell=found.apply(cell, axis=1))
    order = list(dict.fromkeys(found["question"]))
    metrics = list(dict.fromkeys(found["metric"]))
    return table.pivot(index="question", columns="metric", values="cell").loc[order, metrics]


def comparison(results: Results) -> pd.DataFrame:
    """LP, CB and their halves of every variant with intervals, as `figures.comparison` reads it."""
    vlind = BENCHMARKS["vlind"]
    names = {"VLind LP": "LP", "VLind CB": "CB"}
    halves = [m for m in vlind.details if m.name in ("CB true", "CB false", "LP true", "LP false")]
    return summary(results, [*vlind.metrics, *halves]).replace({"metric": names})
