"""MMHal-Bench: asking and averaging by the official rules; test_lenient.py reads ratings."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napo.benchmarks import mmhal
from napo.benchmarks.chat import Cut
from napo.benchmarks.intervals import value
from napo.benchmarks.lenient import Reading
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError

RATIOS = BENCHMARKS["mmhal"].ratios


def replies():
    blocks = [[f"Rating: {score}" for score in (6, 0, 3, 2, 5, 1, 4, 3)] for _ in range(12)]
    blocks[4][1] = "no rating given"
    return [reply for block in blocks for reply in block]


def test_the_worked_example_gives_the_official_numbers():
    scores = mmhal.score(replies())
    assert f"{scores['score']:.2f}" == "3.00"
    assert scores["hallucination_rate"] == 0.375
    assert ",".join(map(str, scores["by_type"])) == "6.0,0.0,3.0,2.0,5.0,1.0,4.0,3.0"
    assert scores["informativeness"] == pytest.approx(37.5)


@given(st.lists(st.integers(0, 6), min_size=8, max_size=40))
def test_the_ratios_of_the_items_are_the_scores(ratings):
    told = [f"Because.\nRating: {rating}" for rating in ratings]
    frame, scores = mmhal.items(told), mmhal.score(told)
    for name, ratio in RATIOS.items():
        assert value(frame, ratio) == pytest.approx(scores[name])
    assert scores["score"] == pytest.approx(sum(ratings) / len(ratings))


@pytest.fixture
def folder(tmp_path):
    items = [
        {"image_id": f"i{n}", "image_src": source, "question": f"Question {n}?",
         "image_content": ["Cat"], "gt_answer": "A cat."}
        for n, source in enumerate(("pictures/here.jpg", "https://example.org/there.jpg"))
    ]  # fmt: skip
    (tmp_path / "response_template.json").write_text(json.dumps(items))
    (tmp_path / "benchmark.json").write_text('{"edition": "test", "count": 2}')
    for name in ("pictures/here.jpg", "images/i1.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    return tmp_path


def test_images_are_found_by_their_source_or_by_their_id(folder):
    asked = mmhal.requests(mmhal.load(folder))
    assert [request.image.name for request in asked] == ["here.jpg", "i1.jpg"]
    assert [request.text for request in asked] == ["Question 0?", "Question 1?"]
    (folder / "images/i1.jpg").rename(folder / "images/there.jpg")  # as its address names it
    assert mmhal.requests(mmhal.load(folder))[1].image.name == "there.jpg"


def test_the_judge_sees_the_item_and_the_cleaned_answer(folder):
    seen = []

    def judge(item, answer):
        seen.append((item["image_id"], answer))
        return "Rating: 4"

    answers = {"1": "two", "0": "Assistant: one "}
    metrics, frame = mmhal.evaluate(mmhal.load(folder), answers, judge=judge)
    assert seen == [("i0", "one"), ("i1", "two")]  # matched by id, not by position
    assert metrics["score"] == 4 and metrics["hallucination_rate"] == 0 and len(frame) == 2


@pytest.mark.kind("an unreadable reply counts as an answer")
@pytest.mark.parametrize(
    ("reply", "official", "both"),
    [
        (Cut("<think>It may deserve Rating: 6, but"), 6, Reading(None, None)),
        (Cut("Rating: 6, very"), 6, Reading(None, None)),
        ("<think>It may deserve Rating: 6, but", 6, Reading(6, None)),
        ("<think>Rating: 6?</think>Rating: 5", 0, Reading(None, 5)),
        ("Rating: 6?</THINKING>\nRating: 5", 0, Reading(None, 5)),
        ("Rating: 6", 6, Reading(6, 6)),
    ],
)
def test_a_cut_reply_counts_as_unreadable_and_a_thought_is_no_rating(
    folder, result, reply, official, both
):
    benchmark, answers = mmhal.load(folder), {"0": "one", "1": "two"}

    def judge(item, answer):
        return reply

    assert mmhal.readings(benchmark, answers, judge=judge) == [both] * 2
    assert mmhal.evaluate(benchmark, answers, judge=judge)[0]["score"] == official
    lenient = mmhal.evaluate(benchmark, answers, judge=judge, lenient=True)[0]["score"]
    assert lenient == (official if both.lenient is None else both.lenient)
    result(f"{reply!r}: official score {official}, read {both}")


def test_without_a_judge_nothing_is_rated(folder):
    with pytest.raises(NapoError, match="needs a judge"):
        mmhal.evaluate(mmhal.load(folder), {"0": "one", "1": "two"}, judge=None)


def test_an_image_outside_the_folder_is_not_read(folder):
    path = folder / "response_template.json"
    items = json.loads(path.read_text())
    Image.new("RGB", (2, 2)).save(folder.parent / "outside.jpg")
    items[0]["image_src"] = "../outside.jpg"
    path.write_text(json.dumps(items))
    with pytest.raises(NapoError, match=r"1 ids have no image \(0\)"):
        mmhal.requests(mmhal.load(folder))


REFERENCE = os.environ.get("NAPO_REFERENCE", "")


@pytest.mark.skipif(not REFERENCE, reason="NAPO_REFERENCE names no folder of official files")
def test_the_official_template_has_96_questions_in_eight_cycling_types():
    benchmark = mmhal.load(Path(REFERENCE) / "mmhal")
    types = [item["question_type"] for item in benchmark.items]
    assert len(types) == 96 and types == types[:8] * 12 and len(set(types)) == 8
