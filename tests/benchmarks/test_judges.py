"""Judges of MMHal-Bench: the rule, and the prompt for a model behind an endpoint."""

import hashlib

import pytest

from napo.benchmarks import judges, options
from napo.benchmarks.chat import Chat
from napo.benchmarks.judges import OpenAIJudge, Prompt, RuleJudge
from napo.config.profile import Evaluation
from napo.errors import NapoError

ITEM = {"image_content": ["Cat", "Mat"], "question": "What {is} it?", "gt_answer": "A cat."}
OPENAI = Evaluation(judge="openai", judge_model="big")


def test_a_request_has_the_official_settings_and_all_four_sections(tmp_path):
    judge = OpenAIJudge(Chat("judge", tmp_path / "x"))
    [request] = judge.requests([(ITEM, "It is {a} cat 5")])
    assert (request["temperature"], request["top_p"], request["max_tokens"]) == (0, 1, 512)
    [message] = request["messages"]
    assert message["role"] == "user"
    assert message["content"].endswith(
        "### Image Contents\nCat, Mat\n\n### Question\nWhat {is} it?\n\n### Standard "
        "Human-Generated Answer\nA cat.\n\n### LMM Response to Evaluate\nIt is {a} cat 5\n"
    )
    for score in range(7):
        assert f"\nRating: {score}, " in message["content"]


def test_a_result_names_the_model_that_answered_and_the_model_requested(server, tmp_path):
    judge = OpenAIJudge(Chat("judge", tmp_path / "x"))
    assert judge.replies([(ITEM, "My answer 4")]) == ["Because. Rating: 4"]
    assert judge.record == {
        "judge": "openai", "judge_model": "judge", "judge_prompt": str(Prompt(judges.PROMPT)),
        "answered_by": ["judge-2024"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("mmhal/judge_prompt.txt", "Rate this: {}", r"has 1 places \{\} instead of 4"),
        ("object_halbench/extractor_prompt.txt", "{question}", r"has 0 places \{answer\} instead"),
        ("object_halbench/extractor_prompt.txt", "{question} {answer} {answer}", "has 2 places"),
    ],
)
def test_a_prompt_that_lacks_or_repeats_a_place_is_refused(tmp_path, file, text, sentence):
    path = tmp_path / "benchmarks" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(NapoError, match=sentence):
        judges.make(OPENAI, tmp_path / "benchmarks", None)


def test_the_rule_of_the_world_is_the_judge_that_settings_call_rule(tmp_path):
    judge = judges.make(Evaluation(), tmp_path, lambda item, answer: "Rating: 6")
    assert isinstance(judge, RuleJudge) and judge.replies([(ITEM, "")]) == ["Rating: 6"]
    with pytest.raises(NapoError, match="world has no rule"):
        judges.make(Evaluation(), tmp_path, None)


def test_replies_are_kept_beside_the_benchmarks(tmp_path):
    judge = judges.make(OPENAI, tmp_path / "benchmarks", None)
    assert judge.chat.cache == tmp_path / "judge.sqlite"
    with pytest.raises(NapoError, match="judge_model"):
        judges.make(OPENAI.model_copy(update={"judge_model": ""}), tmp_path, None)


def test_an_official_prompt_beside_the_benchmark_is_used_and_recorded(tmp_path):
    path = tmp_path / "benchmarks/mmhal" / judges.PROMPT_FILE
    path.parent.mkdir(parents=True)
    path.write_text("Official. {} {} {} {}")
    judge = judges.make(OPENAI, tmp_path / "benchmarks", None)
    [request] = judge.requests([(ITEM, "It.")])
    assert request["messages"][0]["content"] == "Official. Cat, Mat What {is} it? A cat. It."
    assert judge.record["judge_prompt"] == (
        f"judge_prompt.txt (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]})"
    )


def test_the_extractors_prompt_beside_the_benchmark_is_used_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr("napo.benchmarks.words.tagger", lambda: (None, "tagger"))
    settings = OPENAI.model_copy(update={"extractor": "llm"})
    ours = options("object_halbench", settings, judges.make(settings, tmp_path / "b", None))
    assert ours.scoring["prompt"] == judges.LIST_OBJECTS
    assert ours.record["extractor_prompt"] == str(Prompt(judges.LIST_OBJECTS))
    assert ours.record["extractor_prompt"].startswith("ours (sha256 ")
    path = tmp_path / "b/object_halbench" / judges.EXTRACTOR_FILE
    path.parent.mkdir(parents=True)
    path.write_text("List: {question} {answer}")
    given = options("object_halbench", settings, judges.make(settings, tmp_path / "b", None))
    assert given.scoring["prompt"] == "List: {question} {answer}"
    assert given.record["extractor_prompt"] == (
        f"extractor_prompt.txt (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]})"
    )
