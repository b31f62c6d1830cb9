from dataclasses import replace

import pytest

from napo import stages
from napo.config.variants import VARIANTS, Term, Variant
from napo.errors import NapoError
from napo.stages.session import open_session

MINE = Variant("mine", (Term("rejected", "napo"),), "none", title="My variant")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A session with one run of a user's own variant."""
    session = open_session("smoke", str(tmp_path_factory.mktemp("runs")))
    stages.make_rows(session)
    stages.build_rows(session)
    stages.score_reference(session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "mine", MINE)
        stages.train(session, "mine", 0)
    return session


def test_an_edited_variant_is_not_taken_for_the_trained_one(trained, monkeypatch):
    edited = replace(MINE, terms=(Term("rejected", "napo", alpha=0.02),))
    monkeypatch.setitem(VARIANTS, "mine", edited)
    with pytest.raises(NapoError, match=r"other settings \(objective differ\)"):
        stages.train(trained, "mine", 0)


def test_a_new_title_does_not_train_a_variant_again(trained, monkeypatch):
    monkeypatch.setitem(VARIANTS, "mine", replace(MINE, title="Ours", colour="#000000"))
    monkeypatch.setattr("napo.stages.launch.shared", lambda *_, **__: pytest.fail("trained again"))
    assert stages.train(trained, "mine", 0) == trained.workspace.run("mine", 0, "full")


def test_records_of_runs_carry_variant_and_seed(trained):
    records = stages.records(trained, "mine", "0")
    assert set(records["variant"]) == {"mine"} and set(records["seed"]) == {0}
    assert {"rejected_psi_sum", "rejected_q", "rejected_gamma"} <= set(records.columns)


def test_records_of_a_run_that_is_not_finished_are_refused(trained):
    with pytest.raises(NapoError, match=r"runs/A2/seed-5 is missing or unfinished"):
        stages.records(trained, "A2", "5")


def test_requests_have_ids_of_their_own(trained):
    stages.make_benchmarks(trained)
    ids = [request.id for request in stages.requests(trained, "vlind")]
    assert ids and len(set(ids)) == len(ids)
