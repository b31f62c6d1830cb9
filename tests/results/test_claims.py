"""The paper's claims: which differences answer them, and how the answers read."""

from dataclasses import replace

import pytest
from results_fixtures import drawn

from napo.config.benchmarks import metrics
from napo.results.claims import CLAIMS, claims, claims_to_read
from napo.results.collect import collect
from napo.results.tables import published

TITLES = {metric.name: metric.title for metric in metrics()}
LP, CHAIRS = TITLES["VLind LP"], TITLES["ObjHal CHAIRs"]
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    variants = {"base": 0.3, "dpo": 0.5, "A1": 0.8, "LB1": 0.4, "VB1": 0.6}
    folder = drawn(tmp_path_factory.mktemp("results"), variants, SEEDS)
    return collect(folder, ["dpo", "mdpo", "A1", "A2", "LB1", "VB1"], SEEDS)


@pytest.fixture(scope="module")
def answers(results):
    return claims(results).set_index(["variant", "other", "metric"]).sort_index()


def test_a_claim_is_better_worse_undecided_or_not_run(answers):
    assert len(answers) == sum(len(claim.metrics) for claim in CLAIMS)
    assert answers.loc[("A1", "dpo", LP), "answer"] == "better"
    # More hallucination is no gain.
    assert answers.loc[("A1", "dpo", CHAIRS), "answer"] == "worse"
    assert answers.loc[("A1", "A2", LP), "answer"] == "not run"


@pytest.mark.parametrize("other", ["dpo", "mdpo"])
@pytest.mark.parametrize("name", ["AMBER CHAIR", "AMBER Hal", "AMBER Cog", "MMHal Hal"])
def test_hallucination_on_amber_and_mmhal_is_a_claim_about_the_full_method(answers, other, name):
    answer = answers.loc[("A1", other, TITLES[name]), "answer"]
    assert answer == ("worse" if other == "dpo" else "not run")


def test_lb1_is_claimed_to_be_better_for_lp_and_vb1_for_the_rest(answers):
    assert set(answers.loc[("LB1", "VB1")].index) == {LP}
    rest = {TITLES[name] for name in ("VLind CB", "ObjHal CHAIRs", "ObjHal CHAIRi")}
    assert set(answers.loc[("VB1", "LB1")].index) == rest
    paper = published(2).set_index("variant")
    assert paper.loc["LB1", "VLind LP"] > paper.loc["VB1", "VLind LP"]
    assert paper.loc["VB1", "VLind CB"] > paper.loc["LB1", "VLind CB"]
    assert paper.loc["VB1", "ObjHal CHAIRs"] < paper.loc["LB1", "ObjHal CHAIRs"]


def test_every_claim_compares_two_rows_of_its_table():
    for claim in CLAIMS:
        tables = (claim.table, 3, 4)
        pairs = [set(published(number)["variant"]) for number in tables]
        assert any({claim.variant, claim.other} <= rows for rows in pairs), claim.question


def test_a_claim_about_runs_with_equal_scores_says_the_same(results):
    runs = {"A1": results.runs["A1"], "dpo": results.runs["A1"]}
    row = claims(replace(results, runs=runs)).set_index(["variant", "other", "metric"])
    row = row.loc["A1", "dpo", LP]
    assert row["answer"] == "the same"
    assert row[["difference", "low", "high"]].tolist() == [0, 0, 0]


def test_claims_to_read_show_difference_interval_and_answer(results):
    table = claims_to_read(claims(results))
    assert table.shape == (len(CLAIMS), len(metrics(1)))
    assert table[LP].iloc[0].endswith("] better")
    assert table[LP].iloc[0].startswith("+")
    assert set(table.iloc[1]) == {"not run"}
    # A rate from 0 to 1 has two decimals, and a claim of Table 2 says nothing about MMHal.
    assert table[TITLES["MMHal Hal"]].iloc[0].startswith("+0.")
    assert set(table[TITLES["MMHal Hal"]].iloc[2:]) == {"–"}
