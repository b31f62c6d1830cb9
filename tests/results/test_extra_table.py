"""The extra table: a row for each robust loss, beside A1."""

import pandas as pd
import pytest
from results_fixtures import drawn

from napo.config.benchmarks import EXTRA, metrics
from napo.config.profile import known_profiles, load_profile
from napo.config.variants import VARIANTS
from napo.results.collect import collect
from napo.results.extra_table import DIFFERENCE, extra_table

NAMES = {name: entry.row for name, entry in VARIANTS.items() if entry.row}
VALUES = {"base": 0.3, "A1": 0.5, "A3": 0.4, "ropo": 0.8}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return collect(drawn(tmp_path_factory.mktemp("results"), VALUES), list(VARIANTS), (0, 1, 2))


@pytest.mark.parametrize("profile", known_profiles())
def test_every_baseline_of_a_profile_has_a_row_and_every_row_is_a_variant(profile):
    assert set(load_profile(profile).baselines) <= set(NAMES) <= set(VARIANTS)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"A1", "A1-sft", "A1-original"}))
def test_a_row_differs_from_a1_in_its_loss_alone(name):
    changed, full = VARIANTS[name], VARIANTS["A1"]
    assert changed.gamma == full.gamma and changed.responses == full.responses
    assert changed.terms[0] == full.terms[0]
    assert all(a != b for a, b in zip(changed.terms[1:], full.terms[1:], strict=True))


def test_cells_show_what_ran_its_difference_to_a1_and_what_did_not_run(results):
    made = extra_table(results)
    frame, metric = made.frame, metrics()[0]
    wanted = results.estimate("ropo", metric)
    ours, change = frame[(metric.title, "ours")], frame[(metric.title, DIFFERENCE)]
    assert ours[NAMES["ropo"]].startswith(f"{wanted.value:.1f} ± ")
    difference = results.difference("ropo", "A1", metric).value
    assert change[NAMES["ropo"]].startswith(f"{difference:+.1f} [")
    assert ours[NAMES["ipo"]] == "not run" and change[NAMES["ipo"]] == "–"
    assert change[NAMES["A1"]] == "–"
    assert "published" not in frame.columns.get_level_values(1)


def test_the_files_are_called_extra_and_hold_every_number(results, tmp_path):
    made = extra_table(results)
    made.write(tmp_path)
    long = pd.read_csv(tmp_path / "extra.csv")
    assert len(long) == len(NAMES) * len(metrics(EXTRA))
    row = long[(long["variant"] == "ropo") & (long["metric"] == "VLind LP")].iloc[0]
    assert row["ours"] == pytest.approx(results.estimate("ropo", metrics()[1]).value, rel=1e-5)
    assert row["minus_a1_low"] <= row["minus_a1"] <= row["minus_a1_high"] and row["seeds"] == 3
    assert (tmp_path / "extra.tex").read_text().isascii()
    assert made.heading.startswith("Extra. ")


def test_the_papers_part_leaves_baselines_out(results):
    part = results.only(["A1"])
    assert list(part.runs) == ["base", "A1"]
    assert part.estimate("A1", metrics()[0]) == results.estimate("A1", metrics()[0])
