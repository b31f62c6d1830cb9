"""What runs measured: values over seeds, 95 % intervals, differences, and the paper's claims.

Every metric is a ratio of two sums over images or instances (`Ratio`). All runs answer the same
items, so one resampling of the items serves all seeds and variants, and differences are paired.
Seeds are averaged, not resampled: three are too few. Their standard deviation stands beside the
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napo.benchmarks.intervals import percentile, resampled
from napo.config.benchmarks import BENCHMARKS, Metric, metrics
from napo.errors import NapoError
from napo.workspace.files import read_json
from napo.workspace.folders import run_name
from napo.workspace.manifests import complete, differences, in_words, require

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")
NUMBERS = ("value", "low", "high", "n")  # of a metric in a result file
OWN = ("variant", "objective", "seed")  # settings of a run that others in its table do not share
DUST = 1e-9  # rounding error of percentages that cancel; real differences are larger


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds with its standard deviation and its 95 % interval, items resampled."""

    value: float
    sd: float  # nan for one seed
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float], draws: np.ndarray) -> Estimate:
        """The estimate of the seeds' values, with bootstrap samples of their mean: (draws,)."""
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else NAN
        return cls(float(np.mean(values)), sd, *percentile(draws), len(values))

    def minus(self, number: float) -> Estimate:
        """The difference to a fixed number, such as a published one."""
        ends = {"low": self.low - number, "high": self.high - number}
        return replace(self, value=self.value - number, **ends)

    @property
    def decided(self) -> bool:
        """Whether the interval of a difference excludes 0."""
        return self.low > DUST or self.high < -DUST


def numbers(name: str, estimate: Estimate | None) -> dict[str, float]:
    """An estimate as columns: its value under `name`, then `_sd`, `_low`, `_high`; nan if None."""
    e = estimate or Estimate(NAN, NAN, NAN, NAN, 0)
    return {name: e.value, f"{name}_sd": e.sd, f"{name}_low": e.low, f"{name}_high": e.high}


@dataclass(frozen=True)
class Results:
    """The finished runs of a results folder.

    Attributes:
        folder: the results folder.
        runs: variant -> names of its finished runs; "base" has one.
        settings: the settings that all of them had, see `shared_settings`.
        departures: settings that differ from the profile, by name, as (the runs', the profile's).
    """

    folder: Path
    runs: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    departures: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    # Files and bootstrap samples that were read or drawn before.
    cache: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False, compare=False)

    def only(self, variants: Iterable[str]) -> Results:
        """The base and these variants."""
        kept = {"base", *variants}
        return replace(self, runs={name: self.runs[name] for name in self.runs if name in kept})

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """The cached value of a key; made by `make` the first time."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def items(self, run: str, benchmark: str) -> pd.DataFrame:
        """One row for each image or instance, with the columns whose sums make the metrics."""
        import pandas as pd

        path = self.folder / run / f"{benchmark}.items.csv"
        return self._once(("items", run, benchmark), lambda: pd.read_csv(path))

    def result(self, run: str, benchmark: str) -> dict[str, Any]:
        """A run's result file."""
        path = self.folder / run / f"{benchmark}.json"
        return self._once(("result", run, benchmark), lambda: read_json(path))

    def ran(self, variant: str, benchmark: str) -> list[str]:
        """The runs of a variant that answered a benchmark."""
        runs = self.runs.get(variant, ())
        return [run for run in runs if (self.folder / run / f"{benchmark}.json").is_file()]

    def samples(self, metric: Metric, runs: Sequence[str]) -> tuple[list[float], np.ndarray]:
        """The runs' values as scored, in the paper's units, and the bootstrap of their mean.

        Returns:
            Values (runs,), nan where undefined, and samples (draws,).
        """
        name = metric.benchmark

        def draw() -> tuple[list[float], np.ndarray]:
            scores = [self.result(run, name)["metrics"][metric.key]["value"] for run in runs]
            values = [NAN if score is None else score * metric.scale for score in scores]
            draws = [resampled(self.items(run, name), metric.ratio) for run in runs]
            return values, np.mean(draws, axis=0)

        return self._once(("samples", metric.name, *runs), draw)

    def estimate(self, variant: str, metric: Metric) -> Estimate | None:
        """A variant's metric over its seeds; None if it did not run.

        Raises:
            NapoError: when its seeds answered different data.
        """
        runs = self.ran(variant, metric.benchmark)
        self._check_same_data(runs, metric.benchmark)
        return Estimate.of(*self.samples(metric, runs)) if runs else None

    def difference(self, variant: str, other: str, metric: Metric) -> Estimate | None:
        """One variant minus another, paired by item; None if either did not run."""
        runs, others = (self.ran(name, metric.benchmark) for name in (variant, other))
        if not runs or not others:
            return None
        self._check_same_data([*runs, *others], metric.benchmark)
        values, draws = self.samples(metric, runs)
        other_values, other_draws = self.samples(metric, others)
        return Estimate.of([v - float(np.mean(other_values)) for v in values], draws - other_draws)

    def _check_same_data(self, runs: Sequence[str], benchmark: str) -> None:
        """Items of different runs can be paired only if all runs answered the same data.

        Raises:
            NapoError: when the data's fingerprints or the numbers of items differ.
        """
        runs_of_data = {}
        for run in runs:
            data = self.result(run, benchmark)["fingerprints"].get("benchmarks_data")
            runs_of_data[data, len(self.items(run, benchmark))] = run
        if len(runs_of_data) > 1:
            raise NapoError(
                f"{' and '.join(sorted(runs_of_data.values()))} answered different data of "
                f"{benchmark}; evaluate them again on the same benchmarks."
            )


def collect(
    folder: Path, variants: Iterable[str], seeds: Iterable[int], tune: str = "full"
) -> Results:
    """The finished runs of these variants and seeds, and of the base.

    Raises:
        NapoError: when files of a finished run are missing or damaged, when a result lacks the
            settings of its run, or when runs had different settings.
    """
    seeds, runs, settings = list(seeds), {}, {}
    for variant in dict.fromkeys(["base", *variants]):
        names = ["base"] if variant == "base" else [run_name(variant, n, tune) for n in seeds]
        finished = [run for run in names if complete(folder / run)]
        settings |= {run: require(folder / run)["settings"] for run in finished}
        for run in finished if variant != "base" else ():
            if not settings[run].get("run"):
                raise NapoError(
                    f"{folder / run} does not hold the settings of its run (an earlier napo made "
                    "it); delete it and evaluate again."
                )
        if finished:
            runs[variant] = finished
    return Results(folder, runs, shared_settings(settings))


def shared_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all these runs had: sections `evaluation`, `training` and `rows`.

    Raises:
        NapoError: when they differ, naming two runs and the settings.
    """
    shared: dict[str, Any] = {}
    first: dict[str, str] = {}  # section -> the run that its settings are from
    for run, own in settings.items():
        trained = own.get("run") or {}
        sections = {"evaluation": (own, ("evaluated", "run"))}
        if trained:
            sections |= {"training": (trained, (*OWN, "data")), "rows": (trained["data"], ())}
        for section, (values, left_out) in sections.items():
            kept = {name: value for name, value in values.items() if name not in left_out}
            other = first.setdefault(section, run)
            if pairs := differences(shared.setdefault(section, kept), kept):
                raise NapoError(
                    f"The {section} settings of {other} and {run} differ ({in_words(pairs)}), so "
                    "they cannot share a table; delete the results of one of them and evaluate "
                    "again."
                )
    return shared


def summary(results: Results, columns: Sequence[Metric]) -> pd.DataFrame:
    """Every variant's metrics with intervals, and the paired differences to the base.

    Returns:
        Columns variant, metric, value, sd, low, high, seeds, difference, difference_low,
        difference_high.
    """
    import pandas as pd

    rows = []
    for variant in results.runs:
        for metric in columns:
            estimate = results.estimate(variant, metric)
            if estimate:
                change = numbers("difference", results.difference(variant, "base", metric))
                rows.append({"variant": variant, "metric": metric.name, **vars(estimate), **change})
    ends = ["difference", "difference_low", "difference_high"]
    names = ["variant", "metric", "value", "sd", "low", "high", "seeds", *ends]
    return pd.DataFrame(rows, columns=names)


def summary_to_read(frame: pd.DataFrame) -> pd.DataFrame:
    """A summary for reading: a row for each variant, a column for each metric."""
    cells = [f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in frame.itertuples()]
    return _pivot(frame.assign(cell=cells), "variant")


def _pivot(frame: pd.DataFrame, index: str) -> pd.DataFrame:
    """The texts of the column `cell`: a column for each metric, all in the frame's order."""
    table = frame.pivot(index=index, columns="metric", values="cell")
    return table.loc[frame[index].unique(), frame["metric"].unique()]


def measurements(results: Results) -> pd.DataFrame:
    """Every run's metrics in the scorers' own units.

    Returns:
        Columns variant, run, seed, benchmark, metric, value, low, high, n.
    """
    import pandas as pd

    rows = []
    for variant in results.runs:
        for run in results.runs[variant]:
            for benchmark in BENCHMARKS:
                if run in results.ran(variant, benchmark):
                    result = results.result(run, benchmark)
                    key = (variant, run, result["seed"], benchmark)
                    scores = result["metrics"].items()
                    rows += [(*key, name, *map(score.get, NUMBERS)) for name, score in scores]
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "benchmark", "metric", *NUMBERS])


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

NO_NUMBERS = ("not run", "undefined", "the same")  # answers that stand alone


def claims(results: Results) -> pd.DataFrame:
    """The answers of these runs to the paper's claims, each a difference with its 95 % interval.

    Returns:
        Columns question, variant, other, metric, difference, low, high (nan where not run), answer:
        "better", "worse", "not decided" (the interval holds 0), "the same" (every item has the
        same score, seeds averaged), "undefined" or "not run".
    """
    import pandas as pd

    rows = []
    for question, variant, other in CLAIMS:
        for metric in metrics(table=2):
            change = results.difference(variant, other, metric)
            ends = [change.value, change.low, change.high] if change else [NAN] * 3
            ends = [0.0 if abs(number) < DUST else number for number in ends]
            if change is None:
                answer = "not run"
            elif np.isnan(change.value):  # such as CHAIRi of a model that names no object
                answer = "undefined"
            elif not any(ends):
                answer = "the same"
            elif change.decided:
                answer = "better" if change.value * metric.better > 0 else "worse"
            else:
                answer = "not decided"
            rows.append((question, variant, other, metric.title, *ends, answer))
    names = ["question", "variant", "other", "metric", "difference", "low", "high", "answer"]
    return pd.DataFrame(rows, columns=names)


def claims_to_read(frame: pd.DataFrame) -> pd.DataFrame:
    """Claims for reading: a row for each question, a column for each metric.

    A cell is such as "+3.1 [+1.0, +5.2] better".
    """
    cells = []
    for row in frame.itertuples():
        ends = f"{row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}] ".replace("-", "−")
        cells.append(row.answer if row.answer in NO_NUMBERS else ends + row.answer)
    return _pivot(frame.assign(cell=cells), "question")


def comparison(results: Results) -> pd.DataFrame:
    """LP, CB and their halves of every variant with intervals, for `figures.comparison`."""
    vlind = BENCHMARKS["vlind"]
    names = {"VLind LP": "LP", "VLind CB": "CB"}
    halves = [m for m in vlind.details if m.name in ("CB true", "CB false", "LP true", "LP false")]
    return summary(results, [*vlind.metrics, *halves]).replace({"metric": names})
