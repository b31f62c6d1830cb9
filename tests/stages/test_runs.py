from dataclasses import replace

import pytest

from napo import stages
from napo.benchmarks import runner
from napo.config.variants import VARIANTS, Term, Variant
from napo.errors import NapoError
from napo.stages.session import open_session
from napo.workspace.manifests import read_settings

MINE = Variant("mine", (Term("rejected", "napo"),), "none", title="My variant")


def test_a_variant_is_trained_once_and_an_edited_one_is_refused(tmp_path, monkeypatch):
    session = open_session("smoke", str(tmp_path))
    stages.make_rows(session)
    stages.build_rows(session)
    stages.score_reference(session)
    monkeypatch.setitem(VARIANTS, "mine", MINE)
    stages.train(session, "mine", 0)
    records = stages.records(session, "mine", "0")
    assert set(records["variant"]) == {"mine"} and set(records["seed"]) == {0}
    assert {"rejected_psi_sum", "rejected_q", "rejected_gamma"} <= set(records.columns)
    # A title decides no result.
    monkeypatch.setitem(VARIANTS, "mine", replace(MINE, title="Ours", colour="#000000"))
    monkeypatch.setattr("napo.stages.launch.shared", lambda *_, **__: pytest.fail("trained again"))
    assert stages.train(session, "mine", 0) == session.workspace.run("mine", 0, "full")
    edited = replace(MINE, terms=(Term("rejected", "napo", alpha=0.02),))
    monkeypatch.setitem(VARIANTS, "mine", edited)
    with pytest.raises(NapoError, match=r"other settings \(objective\.terms differ\)"):
        stages.train(session, "mine", 0)
    with pytest.raises(NapoError, match=r"runs/A2/seed-5 is missing or unfinished"):
        stages.records(session, "A2", "5")


def test_a_variant_without_training_is_not_trained_and_decodes_the_base(tmp_path, monkeypatch):
    session = open_session("smoke", str(tmp_path))
    with pytest.raises(NapoError, match="vcd is not trained: it decodes the base model"):
        stages.train(session, "vcd", 0)
    with pytest.raises(NapoError, match="vcd decodes the base model, and model names"):
        stages.evaluate_all(session, "vcd", model=session.profile.model.location)
    stages.make_benchmarks(session)
    decodings = []
    original = runner.evaluate_run

    def watched(*given, settings, **named):
        decodings.append(settings.decoding)
        return original(*given, settings=settings, **named)

    monkeypatch.setattr(runner, "evaluate_run", watched)
    (base,) = stages.evaluate_all(session, "base", "0,1")
    (vcd,) = stages.evaluate_all(session, "vcd", "0,1", "lora")
    assert vcd == session.workspace.result("vcd")
    contrast = VARIANTS["vcd"].contrast
    assert decodings == [
        session.profile.evaluation.decoding,
        session.profile.evaluation.decoding.model_copy(update={"contrast": contrast}),
    ]
    ours, theirs = read_settings(vcd), read_settings(base)
    assert ours.pop("run") == {"variant": "vcd", "contrast": contrast.model_dump()}
    assert theirs.pop("run") == {} and ours == theirs
    assert stages.evaluate_all(session, "vcd") == [vcd] and len(decodings) == 2
