"""Results of runs: values, intervals, paired differences, measurements."""

import math

import numpy as np
import pandas as pd
import pytest
from results_fixtures import COUNT, drawn, items, write
from scipy import stats

from napo.config.benchmarks import BENCHMARKS, metrics
from napo.errors import NapoError
from napo.results.collect import (
    Estimate,
    collect,
    measurements,
    seed_differences,
    summary,
)
from napo.workspace.files import read_json

LP = next(metric for metric in metrics() if metric.name == "VLind LP")
CHAIRS = next(metric for metric in metrics() if metric.name == "ObjHal CHAIRs")
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    variants = {"base": 0.3, "dpo": 0.5, "A1": 0.8}
    return drawn(tmp_path_factory.mktemp("results"), variants, SEEDS)


@pytest.fixture(scope="module")
def results(folder):
    return collect(folder, ["dpo", "A1", "A2"], SEEDS)


def test_only_finished_runs_are_collected(folder, results):
    assert list(results.runs) == ["base", "dpo", "A1"]
    assert results.runs["base"] == ["base"]
    assert results.runs["A1"] == ["A1/seed-0", "A1/seed-1", "A1/seed-2"]
    assert collect(folder, ["A1"], (n for n in (2, 7))).runs["A1"] == ["A1/seed-2"]
    assert list(collect(folder, ["A1"], SEEDS, tune="lora").runs) == ["base"]


def test_a_changed_result_file_is_refused(tmp_path):
    drawn(tmp_path, {"base": 0.5})
    (tmp_path / "base" / "vlind.items.csv").write_text("d,one\n1,1\n")
    with pytest.raises(NapoError, match=r"vlind\.items\.csv is damaged"):
        collect(tmp_path, [], SEEDS)


def test_an_estimate_is_the_mean_over_seeds_with_standard_deviation(folder, results):
    estimate = results.estimate("A1", LP)
    official = [
        read_json(folder / f"A1/seed-{seed}" / "vlind.json")["metrics"]["d_macro"]["value"]
        for seed in SEEDS
    ]
    assert estimate.value == pytest.approx(np.mean(official))
    assert estimate.sd == pytest.approx(np.std(official, ddof=1))
    assert estimate.seeds == 3 and estimate.low < estimate.value < estimate.high
    assert math.isnan(results.estimate("base", LP).sd)  # a single run


def test_the_interval_is_scipys_percentile_bootstrap_of_the_seeds_mean(folder, results):
    estimate = results.estimate("A1", LP)
    per_item = np.mean(
        [pd.read_csv(folder / f"A1/seed-{seed}/vlind.items.csv")["d"] for seed in SEEDS], axis=0
    )
    theirs = stats.bootstrap(
        (per_item,), np.mean, method="percentile", n_resamples=4000, random_state=1
    ).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx(
        (100 * theirs.low, 100 * theirs.high), abs=1.5
    )


def test_official_units_are_converted_to_the_papers(folder, results):
    fraction = read_json(folder / "base/object_halbench.json")["metrics"]["CHAIRs_refine"]["value"]
    estimate = results.estimate("base", CHAIRS)
    assert estimate.value == pytest.approx(100 * fraction)
    assert estimate.low <= estimate.value <= estimate.high


def test_a_paired_difference_has_a_narrower_interval_than_each_value(tmp_path):
    same = {name: items(name, 0.5, 1) for name in BENCHMARKS}
    better = {name: frame.copy() for name, frame in same.items()}
    better["vlind"].loc[better["vlind"].index[better["vlind"]["d"] == 0][:6], "d"] = 1
    write(tmp_path, "base", 0, same)
    write(tmp_path, "A1/seed-0", 0, better)
    results = collect(tmp_path, ["A1"], [0])
    change = results.difference("A1", "base", LP)
    apart = [results.estimate(name, LP) for name in ("base", "A1")]
    assert change.value == pytest.approx(100 * 6 / COUNT)
    assert change.high - change.low < 0.8 * (apart[0].high - apart[0].low)
    assert change.decided and apart[0].high > apart[1].low


def test_a_difference_whose_seeds_have_different_signs_is_not_decided(tmp_path):
    base = {name: items(name, 0.5, 1) for name in BENCHMARKS}
    right = base["vlind"].index[base["vlind"]["d"] == 0]
    write(tmp_path, "base", 0, base)
    # Seed 0 gains 20 items; seed 1 gains three, or one less than none.
    for variant, lost in (("A1", 0), ("A2", 1)):
        for seed in (0, 1):
            made = {name: frame.copy() for name, frame in base.items()}
            answers = made["vlind"]
            if seed == 0:
                answers.loc[right[:20], "d"] = 1
            else:
                answers.loc[right[:3], "d"] = 1
                answers.loc[answers.index[base["vlind"]["d"] == 1][: 4 * lost], "d"] = 0
            write(tmp_path, f"{variant}/seed-{seed}", seed, made)
    results = collect(tmp_path, ["A1", "A2"], [0, 1])
    steady, mixed = (results.difference(name, "base", LP) for name in ("A1", "A2"))
    assert steady.low > 0 and steady.decided
    assert mixed.low > 0 and not mixed.decided  # 20 items up, and one down


def test_seeds_are_compared_with_their_own_and_with_a_run_without_seed():
    runs = {"A1/seed-0": 5.0, "A1/seed-1": 7.0}
    assert sorted(seed_differences(runs, {"base": 4.0})) == [1, 3]
    others = {"A2-lora/seed-1": 10.0, "A2-lora/seed-2": 0.0}
    assert seed_differences(runs, others) == [-3]


def test_differences_are_antisymmetric(results):
    one, two = results.difference("A1", "dpo", LP), results.difference("dpo", "A1", LP)
    assert one.value == pytest.approx(-two.value)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))


@pytest.mark.parametrize("change", ["data", "count"])
def test_runs_on_different_data_are_not_paired(tmp_path, change):
    base, other = items("vlind", 0.5, 0), items("vlind", 0.5, 1)
    write(tmp_path, "base", 0, {"vlind": base})
    if change == "data":
        write(tmp_path, "A1/seed-0", 0, {"vlind": other}, fingerprints={"benchmarks_data": "e"})
    else:
        write(tmp_path, "A1/seed-0", 0, {"vlind": other[:-1]})
    results = collect(tmp_path, ["A1"], [0])
    with pytest.raises(NapoError, match=r"A1/seed-0 and base answered different data of vlind"):
        results.difference("A1", "base", LP)


def test_an_undefined_value_stays_undefined(tmp_path):
    frame = items("object_halbench", 0.0, 0).assign(has_match=0, matched=0)
    undefined = {"CHAIRs_refine": {"value": None, "low": None, "high": None}}
    write(tmp_path, "base", 0, {"object_halbench": frame}, metrics=undefined)
    estimate = collect(tmp_path, [], [0]).estimate("base", CHAIRS)
    assert math.isnan(estimate.value) and math.isnan(estimate.low) and not estimate.decided


def test_the_summary_has_a_row_for_each_variant_and_metric(results):
    frame = summary(results, metrics())
    assert len(frame) == 3 * len(metrics())
    row = frame[(frame["variant"] == "A1") & (frame["metric"] == "VLind LP")].iloc[0]
    assert row["difference"] == pytest.approx(row["value"] - results.estimate("base", LP).value)
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_measurements_have_a_row_for_each_run_benchmark_and_metric(results):
    frame = measurements(results)
    official = frame[frame["metric"] != "degenerate"]
    assert len(official) == 7 * sum(len(BENCHMARKS[name].ratios) for name in BENCHMARKS)
    assert len(frame) - len(official) == 7 * len(BENCHMARKS)
    assert not frame.duplicated(["run", "benchmark", "metric"]).any()
    assert set(frame["seed"]) == set(SEEDS)


ANSWERS = {"count": 8, "degenerate_share": 0.25, "unreadable": 2}


@pytest.mark.kind("an unreadable reply counts as an answer")
def test_measurements_hold_lenient_scores_under_their_own_name(tmp_path):
    score = {"value": 4.5, "low": 4.0, "high": 5.0, "n": 8}
    lenient = {"texts": 8, "differing": 2, "unreadable": 0, "metrics": {"score": score}}
    frames = {"mmhal": items("mmhal", 0.5, 0)}
    write(tmp_path, "base", 0, frames, answers=ANSWERS, lenient=lenient)
    frame = measurements(collect(tmp_path, [], [0])).set_index("metric")
    assert frame.loc["lenient score", ["value", "low", "high", "n"]].tolist() == [4.5, 4, 5, 8]
    assert frame.loc["unreadable", ["value", "n"]].tolist() == [0.25, 8]
    assert frame.loc["degenerate", ["value", "n"]].tolist() == [0.25, 8]
    assert frame.loc["score", "value"] != 4.5


def test_degenerate_shares_are_means_over_seeds_for_each_benchmark_and_task(tmp_path):
    frames = {"amber": items("amber", 0.5, 0)}
    for seed, share in enumerate((0.2, 0.4)):
        tasks = {"generative": {"count": 4, "degenerate_share": 2 * share}}
        answers = {**ANSWERS, "degenerate_share": share, "tasks": tasks}
        write(tmp_path, f"A1/seed-{seed}", seed, frames, answers=answers)
    results = collect(tmp_path, ["A1"], [0, 1])
    assert results.degenerate("A1") == pytest.approx(
        {("amber", ""): 0.3, ("amber", "generative"): 0.6}
    )
    assert results.degenerate("base") == {}


@pytest.mark.parametrize(
    ("low", "high", "decided"),
    [(1, 2, True), (-2, -1, True), (-1, 1, False), (0, 1, False), (1e-15, 1, False)],
)
def test_a_difference_is_decided_if_its_interval_excludes_zero(low, high, decided):
    assert Estimate(0, 0, low, high, 1).decided is decided


def test_an_evaluated_run_is_shown_with_undefined_metrics(tmp_path):
    from napo import stages
    from napo.lab import views
    from napo.stages.session import open_session

    session = open_session("smoke", str(tmp_path))
    scores = {"CHAIRi": {"value": 0.5374, "low": 0.41, "high": 0.66}}
    scores["CHAIRs_refine"] = {"value": None, "low": None, "high": None}
    frame = items("object_halbench", 0.5, 0)
    write(session.workspace.results, "base", 0, {"object_halbench": frame}, metrics=scores)
    assert set(stages.all_results(session).runs) == {"base"}
    with pytest.raises(NapoError, match="no finished results of tune lora, seeds 0; run"):
        stages.all_results(session, tune="lora")
    shown = views.result([session.workspace.results / "base"])["base"]
    assert shown["ObjHal CHAIRi ↓"] == "53.7 [41.0, 66.0]"
    assert shown.str.fullmatch("not defined").any() and shown["VLind LP ↑"] == "not run"
