"""The benchmarks of Tables 1 to 4, one entry each: names, metrics, ratios, notes.

A benchmark's own module scores the answers (`napo.benchmarks`). To add a benchmark, write its
module and `register` its entry; see docs/extend.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

from napo.config.registry import Entry, Registry, register
from napo.errors import unknown

EXTRA = "extra"  # the table of variants that the paper does not have


class Ratio(NamedTuple):
    """A metric as scale * sum(numerator) / sum(denominator) over a benchmark's items.

    Numerator and denominator are columns of the frame that `evaluate` returns; "one" is 1 in each
    row, which makes the metric a mean.
    """

    numerator: str
    denominator: str
    scale: float = 1.0


@dataclass(frozen=True)
class Metric:
    """A column of the tables.

    Attributes:
        name: the column's name, which contains the benchmark: two benchmarks have a HalRate.
        key: the key of the metric in what the scorer returns, and in `Benchmark.ratios`.
        scale: factor from the scorer's unit to the paper's.
        better: 1 if larger is better, -1 if smaller is, 0 if neither.
        digits: digits after the point.
        tables: the tables that show it: 1 to 4, and `EXTRA`.
        benchmark: the benchmark's name; `Benchmark` sets it.
    """

    name: str
    key: str
    scale: float = 1.0
    better: int = 1
    digits: int = 1
    tables: tuple[int | str, ...] = (EXTRA,)
    benchmark: str = ""

    @property
    def title(self) -> str:
        """The name with an arrow in the direction of better values."""
        return f"{self.name} {'↑' if self.better > 0 else '↓'}"

    @property
    def ratio(self) -> Ratio:
        """The metric as a ratio of sums, in the paper's units."""
        ratio = BENCHMARKS[self.benchmark].ratios[self.key]
        return ratio._replace(scale=ratio.scale * self.scale)


@dataclass(frozen=True)
class Benchmark(Entry):
    """A benchmark.

    Attributes:
        name: its name in profiles, and of its folder and files.
        module: the module with its `load`, `requests` and `evaluate` (see `napo.benchmarks`).
        title: its name in words.
        ratios: key of a metric -> the ratio that resampling estimates the interval from.
        metrics: the metrics in tables.
        details: metrics that explain those in tables, for notebook 06 and the report.
        sizes: its keys of `evaluation.sizes`, and how many instances the icon world makes.
        coverage: key of the metric, among those above, that says how much of a picture its
            descriptions name; tables mark a row that names much less than the base.
        notes: how to read its columns, below each table that has them.
    """

    registry: ClassVar[Registry] = Registry("benchmark")

    name: str
    module: str
    title: str
    ratios: Mapping[str, Ratio]
    metrics: tuple[Metric, ...] = ()
    details: tuple[Metric, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    coverage: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("metrics", "details"):
            own = tuple(replace(metric, benchmark=self.name) for metric in getattr(self, name))
            for metric in own:
                if metric.key not in self.ratios:
                    raise unknown(f"ratio of {self.name}", metric.key, self.ratios)
            object.__setattr__(self, name, own)


BENCHMARKS = Benchmark.registry


def metrics(table: int | str | None = None) -> tuple[Metric, ...]:
    """The metrics of a table, in the order of its columns; None: of all tables."""
    return tuple(
        metric
        for benchmark in BENCHMARKS.values()
        for metric in benchmark.metrics
        if table is None or table in metric.tables
    )


def details() -> tuple[Metric, ...]:
    """The metrics that explain those in tables."""
    return tuple(metric for benchmark in BENCHMARKS.values() for metric in benchmark.details)


def benchmarks_in(table: int | str) -> tuple[Benchmark, ...]:
    """The benchmarks that have a column in a table."""
    return tuple(BENCHMARKS[name] for name in dict.fromkeys(m.benchmark for m in metrics(table)))


_EVERYWHERE = (1, 2, 3, 4, EXTRA)

for _benchmark in (
    Benchmark(
        "vlind",
        "napo.benchmarks.vlind",
        "VLind-Bench",
        ratios={
            "a_pass_ratio": Ratio("A", "one", 100),
            "b_pass_ratio": Ratio("B", "one", 100),
            "c_pass_ratio": Ratio("c_pass", "A", 100),
            "d_pass_ratio_macro": Ratio("d_pass", "bc_pass", 100),
            "c": Ratio("C", "one", 100),
            "d_macro": Ratio("d", "one", 100),
            "c_true": Ratio("c_true", "one", 100),
            "c_false": Ratio("c_false", "one", 100),
            "d_true": Ratio("d_true", "one", 100),
            "d_false": Ratio("d_false", "one", 100),
            "d_says_true": Ratio("d_says_true", "one", 100),
        },
        metrics=(
            Metric("VLind CB", "c", tables=_EVERYWHERE),
            Metric("VLind LP", "d_macro", tables=_EVERYWHERE),
        ),
        # Both halves of each true/false pair, and the shift towards "true".
        details=(
            Metric("CB true", "c_true"),
            Metric("CB false", "c_false"),
            Metric("LP true", "d_true"),
            Metric("LP false", "d_false"),
            Metric("says true", "d_says_true", better=0),
            Metric("LP pipeline", "d_pass_ratio_macro"),
            Metric("CB pipeline", "c_pass_ratio"),
        ),
        sizes={"vlind": 1000},
        notes=(
            "VLind CB and LP: the scorer's raw accuracies c and d_macro, percent. The paper does "
            "not define them; every CB that it prints is some k/302, as c is. The pipeline ratios "
            "are in summary.csv.",
            "VLind image of stages b and c: upstream's best image, or, in the released code, the "
            "one with most votes.",
        ),
    ),
    Benchmark(
        "object_halbench",
        "napo.benchmarks.object_halbench",
        "Object HalBench",
        ratios={
            "CHAIRs": Ratio("has_hallucination", "one"),
            "CHAIRs_refine": Ratio("has_hallucination", "has_match"),
            "CHAIRi": Ratio("hallucinated", "matched"),
            "obj_rec": Ratio("recalled", "truth"),
        },
        metrics=(
            Metric("ObjHal CHAIRs", "CHAIRs_refine", 100, better=-1, tables=_EVERYWHERE),
            Metric("ObjHal CHAIRi", "CHAIRi", 100, better=-1, tables=_EVERYWHERE),
        ),
        details=(Metric("ObjHal recall", "obj_rec", 100),),
        sizes={"object_halbench": 200},
        coverage="obj_rec",
        notes=(
            "ObjHal CHAIRs: the share of hallucinating responses among those that name an object "
            "(CHAIRs_refine); CHAIRi: the share of hallucinated mentions. The paper does not name "
            "its extractor; the released scripts match words exactly, while most borrowed rows "
            "look scored by an LLM, which counts each word once.",
        ),
    ),
    Benchmark(
        "amber",
        "napo.benchmarks.amber",
        "AMBER",
        ratios={
            "CHAIR": Ratio("hallucinated", "nouns", 100),
            "Cover": Ratio("covered", "truth", 100),
            "Hal": Ratio("has_hallucination", "one", 100),
            "Cog": Ratio("hallu_covered", "hallu", 100),
            "d_Accuracy": Ratio("right", "asked", 100),
        },
        metrics=(
            Metric("AMBER CHAIR", "CHAIR", better=-1, tables=(1,)),
            Metric("AMBER Cover", "Cover", tables=(1, EXTRA)),
            Metric("AMBER Hal", "Hal", better=-1, tables=(1,)),
            Metric("AMBER Cog", "Cog", better=-1, tables=(1,)),
        ),
        sizes={"amber_generative": 200, "amber_discriminative": 400},
        coverage="Cover",
        notes=("AMBER CHAIR and Hal are the paper's columns CHAIRs and HalRate.",),
    ),
    Benchmark(
        "mmhal",
        "napo.benchmarks.mmhal",
        "MMHal-Bench",
        ratios={
            "score": Ratio("rating", "one"),
            "hallucination_rate": Ratio("hallucination", "one"),
            "informativeness": Ratio("informative", "three", 100),
        },
        metrics=(
            Metric("MMHal Score", "score", digits=2, tables=(1,)),
            Metric("MMHal Hal", "hallucination_rate", better=-1, digits=2, tables=(1,)),
        ),
        sizes={"mmhal": 96},
        notes=(
            'MMHal Hal is the paper\'s second HalRate. Its judge is "GPT-4", gpt-4-0613 in the '
            "released code. Scores of different judges are not comparable.",
        ),
    ),
):
    register(_benchmark)
