"""The paper's claims: which differences answer them, and how the answers read."""

from dataclasses import replace

import pytest
from results_fixtures import drawn

from napo.config.benchmarks import metrics
from napo.results.claims import CLAIMS, claims, claims_to_read, published_differences
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


def test_claims_to_read_sort_the_metrics_by_answer(results):
    table = claims_to_read(claims(results))
    assert table.shape == (len(CLAIMS), 4)
    full, mdpo, *_ = table.to_dict("records")
    assert full["the paper, 7B"] == "better on 10 of 10"
    assert full["better here"].startswith("VLind CB +")
    assert "ObjHal CHAIRs +" in full["worse here"] and "MMHal Hal +0." in full["worse here"]
    assert "not run" not in str(full)
    assert mdpo["better here"] == mdpo["worse here"] == "–"
    assert mdpo["not decided here"] == "not run"


def test_the_papers_own_differences_come_from_its_tables():
    by_pair = {(claim.variant, claim.other): claim for claim in CLAIMS}
    full = published_differences(by_pair["A1", "dpo"])  # Table 1: 58.9 - 39.4 and 44.0 - 25.4
    assert full["VLind CB"] == pytest.approx(19.5) and full["VLind LP"] == pytest.approx(18.6)
    assert published_differences(by_pair["random", "dpo"])["VLind CB"] == pytest.approx(51.3 - 39.4)


def test_what_the_paper_did_not_find_is_named(results):
    # Table 2: both kinds together (A2) have more hallucination and less CB than VB1 alone.
    table = claims_to_read(claims(results))
    (both,) = [row for row in table.index if "(A2 over VB1)" in row]
    cell = table.loc[both, "the paper, 7B"]
    assert cell == "better on 1 of 4, not on VLind CB, ObjHal CHAIRs, ObjHal CHAIRi"
