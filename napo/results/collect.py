"""Measurements of runs: values over seeds, 95 % intervals and differences.

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
from typing_extensions import TypedDict

from napo.benchmarks.intervals import percentile, resampled
from napo.config.benchmarks import BENCHMARKS, Metric
from napo.config.runs import result_name, seeds_of
from napo.errors import NapoError
from napo.workspace.files import check_shape, read_json
from napo.workspace.folders import run_name
from napo.workspace.manifests import complete, differences, in_words, require

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")
NUMBERS = ("value", "low", "high", "n")  # of a metric in a result file
OWN = ("variant", "objective", "seed")  # settings of a run that others in its table do not share
DUST = 1e-9  # rounding error of percentages that cancel; real differences are larger


class TrainedRun(TypedDict):
    """The part of a run's settings that tables read."""

    variant: str
    seed: int
    tune: str
    objective: dict[str, Any]
    data: dict[str, Any]


class ContrastedRun(TypedDict):
    """The part of the settings of a variant without training that tables read."""

    variant: str
    contrast: dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds with its standard deviation and its 95 % interval, items resampled."""

    value: float
    sd: float  # nan for one seed
    low: float
    high: float
    seeds: int
    agree: bool = True  # of a difference: whether every seed has its sign

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
        """Whether a difference is decided: its interval excludes 0, and the seeds agree.

        The interval resamples items only, so it says nothing about other seeds.
        """
        return self.agree and (self.low > DUST or self.high < -DUST)


def numbers(name: str, estimate: Estimate | None) -> dict[str, float]:
    """An estimate as columns: its value under `name`, then `_sd`, `_low`, `_high`; nan if None."""
    e = estimate or Estimate(NAN, NAN, NAN, NAN, 0)
    return {name: e.value, f"{name}_sd": e.sd, f"{name}_low": e.low, f"{name}_high": e.high}


@dataclass(frozen=True)
class Results:
    """The finished runs of a results folder.

    Attributes:
        folder: the results folder.
        runs: variant -> names of its finished runs; what is not trained, as "base", has one.
        settings: the settings that all of them had, see `shared_settings`.
        departures: settings that differ from the profile, by name, as (the runs', the profile's).
    """

    folder: Path
    runs: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    departures: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    # Files and bootstrap samples that were read or drawn before.
    cache: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def names(self) -> list[str]:
        """The names of all runs."""
        return [run for runs in self.runs.values() for run in runs]

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

    def degenerate(self, variant: str) -> dict[tuple[str, str], float]:
        """The share of a variant's answers that are degenerate, over all seeds.

        Returns:
            (benchmark, task) -> share; task "" is the whole benchmark.
        """
        shares: dict[tuple[str, str], list[float]] = {}
        for name in BENCHMARKS:
            for run in self.ran(variant, name):
                answers = self.result(run, name).get("answers", {})
                parts = {"": answers, **answers.get("tasks", {})}
                for task, part in parts.items():
                    if "degenerate_share" in part:  # results of earlier versions lack it
                        shares.setdefault((name, task), []).append(part["degenerate_share"])
        return {key: float(np.mean(values)) for key, values in shares.items()}

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
        mean = float(np.mean(other_values))
        estimate = Estimate.of([value - mean for value in values], draws - other_draws)
        changes = seed_differences(dict(zip(runs, values, strict=True)),
                                   dict(zip(others, other_values, strict=True)))  # fmt: skip
        signs = {np.sign(change) for change in changes}
        return replace(estimate, agree=len(signs) < 2)

    def _check_same_data(self, runs: Sequence[str], benchmark: str) -> None:
        """Items of different runs can be paired only if all runs answered the same data."""
        runs_of_data = {}
        for run in runs:
            data = self.result(run, benchmark)["fingerprints"].get("benchmarks_data")
            runs_of_data[data, len(self.items(run, benchmark))] = run
        if len(runs_of_data) > 1:
            raise NapoError(
                f"{' and '.join(sorted(runs_of_data.values()))} answered different data of "
                f"{benchmark}; evaluate them again on the same benchmarks."
            )


def seed_differences(runs: Mapping[str, float], others: Mapping[str, float]) -> list[float]:
    """The differences of runs of the same seed; to a run without seed, such as the base, of all.

    Args:
        runs: run -> its value, such as "A1/seed-0".
        others: the same for the other variant.
    """
    ours, theirs = (
        {run.partition("/")[2]: value for run, value in part.items()} for part in (runs, others)
    )
    seeds = {*ours, *theirs} - {""}
    pairs = [(ours.get(seed, ours.get("")), theirs.get(seed, theirs.get(""))) for seed in seeds]
    return [one - other for one, other in pairs if one is not None and other is not None]


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
        names = [result_name(variant, seed, tune) for seed in seeds_of(variant, seeds)]
        finished = [run for run in names if complete(folder / run)]
        settings |= {run: require(folder / run)["settings"] for run in finished}
        for run in finished:
            if (of_run := name_in(settings[run])) != run:
                raise NapoError(
                    f"{folder / run} holds the result of {of_run}; delete it and evaluate again."
                )
        if finished:
            runs[variant] = finished
    return Results(folder, runs, shared_settings(settings))


def name_in(settings: Mapping[str, Any]) -> str:
    """The name of the run that a result's settings are from; "base" where they hold none."""
    if not (run := settings.get("run")):
        return "base"
    try:
        if "contrast" in run:
            return check_shape(run, "the run", ContrastedRun, "")["variant"]
        check_shape(run, "the run", TrainedRun, "")
    except NapoError:
        return "an unknown run"
    return run_name(run["variant"], run["seed"], run["tune"])


def shared_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all these runs had: `evaluation`, `training`, `rows`, each objective.

    Raises:
        NapoError: when they differ, naming two runs and the settings.
    """
    shared: dict[str, Any] = {}
    first: dict[str, str] = {}  # section -> the run that its settings are from
    for run, own in settings.items():
        trained = own.get("run") or {}
        sections = {"evaluation": (own, ("evaluated", "run"))}
        if "contrast" in trained:
            sections[f"{trained['variant']}'s"] = ({"contrast": trained["contrast"]}, ())
        elif trained:
            sections |= {"training": (trained, (*OWN, "data")), "rows": (trained["data"], ())}
            sections[f"{trained['variant']}'s"] = (trained["objective"], ())
        for section, (values, left_out) in sections.items():
            kept = {name: value for name, value in values.items() if name not in left_out}
            other = first.setdefault(section, run)
            if pairs := differences(shared.setdefault(section, kept), kept):
                again = "its result and evaluate it again"
                if section != "evaluation":
                    again = "its run and its result, and train it again"
                raise NapoError(
                    f"The {section} settings of {other} and {run} differ ({in_words(pairs)}), so "
                    f"they cannot share a table; choose one of them, delete {again}."
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


def signed(value: float, low: float, high: float, digits: int = 1) -> str:
    """A difference with its interval, such as "+3.1 [−0.2, +6.4]"."""
    texts = []
    for number in (value, low, high):
        text = f"{number:+.{digits}f}"
        # A number that rounds to 0 has no sign; a minus sign is as wide as a plus, a hyphen is not.
        texts.append(text[1:] if float(text) == 0 else text.replace("-", "−"))
    ends = "not defined" if np.isnan(low) else f"{texts[1]}, {texts[2]}"
    return f"{texts[0]} [{ends}]"


def interval(low: float, high: float, form: str = ".1f") -> str:
    """An interval in brackets; "[not defined]" where there is none."""
    return "[not defined]" if np.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def measurements(results: Results) -> pd.DataFrame:
    """Every run's metrics in the scorers' own units, and measurements of its answers.

    Beside the official metrics: `degenerate` (share of answers, also for each task), `unreadable`
    (share of answers or replies that the official reader cannot read) and, where the lenient reader
    reads any otherwise, `lenient <metric>`.

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
                    scores = {**result["metrics"], **_answers(result)}.items()
                    rows += [(*key, name, *map(score.get, NUMBERS)) for name, score in scores]
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "benchmark", "metric", *NUMBERS])


def _answers(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The measurements of a result's answers."""
    answers, lenient = result.get("answers", {}), result.get("lenient", {})
    rows: dict[str, Mapping[str, Any]] = {}
    for task, part in {"": answers, **answers.get("tasks", {})}.items():
        share = part.get("degenerate_share")
        rows[f"degenerate {task}".strip()] = {"value": share, "n": part.get("count")}
    if lenient.get("texts"):
        share = answers["unreadable"] / lenient["texts"]
        rows["unreadable"] = {"value": share, "n": lenient["texts"]}
    if lenient.get("differing"):
        rows |= {f"lenient {name}": score for name, score in lenient["metrics"].items()}
    return rows


def comparison(results: Results) -> pd.DataFrame:
    """LP, CB and their halves of every variant with intervals, for `figures.comparison`."""
    vlind = BENCHMARKS["vlind"]
    names = {"VLind LP": "LP", "VLind CB": "CB"}
    halves = [m for m in vlind.details if m.name in ("CB true", "CB false", "LP true", "LP false")]
    return summary(results, [*vlind.metrics, *halves]).replace({"metric": names})
