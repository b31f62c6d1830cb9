import json

import pytest
from source_fixtures import published, write

from napo import stages
from napo.config.variants import BIASED
from napo.data.rows import load_rows, skipped
from napo.errors import NapoError
from napo.models.generate import Generated
from napo.stages import build, ranks
from napo.stages.session import open_session


def test_only_the_ranks_of_a_stages_own_processes_count(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # as a shell under torchrun passes them on
    monkeypatch.setenv("WORLD_SIZE", "2")
    with monkeypatch.context() as patch:
        patch.setenv(ranks.WORKER, "1")
        ranks.alone()
        assert ranks.worker() == (1, 2)
    session = open_session("smoke", str(tmp_path))
    stages.make_rows(session)
    assert len(load_rows(stages.build_rows(session))) == session.profile.data.count


def test_a_folder_with_missing_parts_is_not_sealed(tmp_path, monkeypatch):
    session = open_session("smoke", str(tmp_path))
    stages.make_rows(session)
    monkeypatch.setattr("napo.stages.build.launch.shared", lambda session, work: work(session))
    monkeypatch.setattr("napo.stages.build.worker", lambda: (1, 2))
    with pytest.raises(NapoError, match=r"has 1 of 3 parts; run it again, the finished"):
        stages.build_rows(session)
    assert not (session.workspace.rows / "manifest.json").exists()


SPOILT = {  # row -> what spoils it, and why it is left out
    "1": ({"chosen": "</s>"}, "empty chosen"),
    "2": ({"question": "<image>"}, "question holds special tokens only"),
    "3": ({"question": "what " * 600}, "its prompt alone has"),
    "4": ({"rejected": "\u200b"}, "empty rejected"),
    "5": ({}, "the model's language_biased is empty (' ')"),
    "6": ({"question_only": "<unk>", "image_only": "It is red."}, "empty language_biased"),
    "7": ({}, "the model's language_biased is empty ('</s>')"),  # written in other tokens
}


def session_of(tmp_path, rows):
    write(tmp_path / "source", rows)
    settings = {
        "extends": "smoke",
        "data": {"source": "source", "count": 0, "bad_rows": "skip", "shard_rows": 4},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(settings))
    return open_session(str(tmp_path / "mine.yaml"), str(tmp_path))


def generator(profile, folder):
    """A model whose answers to two rows are blank."""
    texts = {"5": " ", "7": "</s>"}

    def biased(rows):
        answers = [Generated(texts.get(row["id"], "It is blue."), 3, False) for row in rows]
        return {name: answers for name in BIASED}

    return biased


@pytest.mark.kind("a stage seals what the next one refuses")
def test_every_row_that_is_sealed_can_be_scored(tmp_path, monkeypatch, result):
    monkeypatch.setattr(build, "load_generator", generator)
    rows = [published(n, question_only=None, image_only=None) for n in range(9)]
    for id, (changes, _) in SPOILT.items():
        rows[int(id)] |= changes
    session = session_of(tmp_path, rows)
    folder = stages.build_rows(session)
    assert load_rows(folder)["id"][:] == ["0", "8"]
    reasons = {entry["id"]: entry["reason"] for entry in skipped(folder)}
    assert reasons.keys() == SPOILT.keys()
    for id, (_, reason) in SPOILT.items():
        assert reason in reasons[id]
    scores = load_rows(folder, stages.score_reference(session))
    assert all(count > 1 for name in BIASED for count in scores[f"{name}_tokens"])
    result("; ".join(reasons.values()))


def test_rows_of_which_none_can_be_used_are_not_sealed(tmp_path):
    session = session_of(tmp_path, [published(n, chosen="</s>") for n in range(2)])
    with pytest.raises(NapoError, match=r"No row can be used; the first: Row 0 has an empty cho"):
        stages.build_rows(session)
    assert not (session.workspace.rows / "manifest.json").exists()
