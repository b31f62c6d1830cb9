import pytest

from napo.config.benchmarks import (
    BENCHMARKS,
    EXTRA,
    Benchmark,
    Metric,
    Ratio,
    benchmarks_in,
    details,
    metrics,
)
from napo.errors import NapoError


def test_each_metric_is_a_ratio_of_its_own_benchmark():
    for metric in (*metrics(), *details()):
        assert metric.ratio.numerator == BENCHMARKS[metric.benchmark].ratios[metric.key].numerator


def test_a_metric_is_in_the_units_of_the_paper():
    chairs = next(metric for metric in metrics() if metric.name == "ObjHal CHAIRs")
    assert chairs.ratio == Ratio("has_hallucination", "has_match", 100)


def test_table_1_has_all_metrics_and_the_other_tables_four():
    assert metrics(1) == metrics()
    names = [metric.name for metric in metrics(2)]
    assert names == ["VLind CB", "VLind LP", "ObjHal CHAIRs", "ObjHal CHAIRi"]


def test_the_benchmarks_of_a_table_are_those_with_a_column():
    assert [benchmark.name for benchmark in benchmarks_in(2)] == ["vlind", "object_halbench"]
    assert "amber" in [benchmark.name for benchmark in benchmarks_in(EXTRA)]


@pytest.mark.parametrize(("better", "title"), [(1, "Acc ↑"), (-1, "Acc ↓")])
def test_a_title_has_an_arrow_towards_better_values(better, title):
    assert Metric("Acc", "acc", better=better).title == title


def test_a_metric_without_a_ratio_is_refused():
    with pytest.raises(NapoError, match=r"Unknown ratio of mine 'acc'.* Known: accuracy"):
        Benchmark("mine", "m", "Mine", {"accuracy": Ratio("a", "one")}, (Metric("Acc", "acc"),))
