"""Object HalBench: the official rules, with the numbers of the worked example."""

import base64
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from napo.benchmarks import object_halbench as halbench
from napo.benchmarks.object_words import Vocabulary, merge_pairs
from napo.errors import NapoError

SYNONYMS = """\
person, man, woman, people, child
dog, puppy
couch, sofa
elephant
toilet
tv, television
train
cat
dining table, coffee table
wine glass
bench,  motor bench
tie
"""
WORDS = Vocabulary.from_text(SYNONYMS)
ONE = (
    "A man and a woman sit on a couch with two dogs and a cat. The men watch TV near a dining "
    "table with wine glasses."
)
TWO = "A train on the train tracks near home plate.  No one."
TRUTH = [{"couch", "dog", "elephant", "person", "toilet", "tv"}, {"train"}]
# What the official tokeniser and lemmatiser leave of the two responses, worked out by hand.
LEMMAS = [
    "a man and a woman sit on a couch with two dog and a cat . the men watch tv near a dining "
    "table with wine glass .",
    "a train on the train track near home plate . no one .",
]


def matched(lemmas):
    merged = merge_pairs(lemmas.split(), WORDS.pairs)
    return [(word, WORDS.entries[word]) for word in merged if word in WORDS.entries]


def test_the_worked_example_gives_the_official_numbers():
    scores = halbench.score([matched(lemmas) for lemmas in LEMMAS], TRUTH, [ONE, TWO])
    assert scores == {
        "CHAIRs": 0.5,
        "CHAIRs_refine": 0.5,
        "CHAIRi": pytest.approx(1 / 3),
        "correct_rate": 0.5,
        "object_correct_rate": pytest.approx(2 / 3),
        "obj_rec": pytest.approx(5 / 7),
        "sentence_num": 2,
        "coco_sentence_num": 2,
        "coco_word_count": 5,
        "gt_word_count": 7,
        "avg_word_len": 19.0,
    }


def test_words_are_counted_after_the_official_cleaning():
    raw = [f" Assistant: {ONE} ", f"Assistant:{TWO}\n"]
    scores = halbench.score([matched(lemmas) for lemmas in LEMMAS], TRUTH, raw)
    assert scores["avg_word_len"] == 19.0  # 26 and 12 pieces, as of the worked example
    once = "AssistantAssistant:: one two"  # cleaning twice would take the rest away
    assert halbench.score([[]], [{"dog"}], [once])["avg_word_len"] == 3.0


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("A toilet seat and a seat", ["toilet"]),
        ("Baby elephants beside an adult elephant", ["elephant", "elephant"]),
        ("a passenger train on the train track", ["train"]),
        ("A man in a bow tie", ["person", "tie"]),
        ("Sofas, PUPPIES; a television!", ["couch", "dog", "tv"]),
        ("a motor bench", ["bench"]),
        ("nothing of the kind", []),
    ],
)
def test_two_word_names_count_as_the_table_says(text, classes):
    assert [name for _, name in halbench.match_words(text, WORDS, "vocabulary")] == classes


def test_pairs_are_taken_left_to_right_and_a_seat_beside_a_toilet_is_no_object():
    table = {"a b": "ab", "b c": "bc", "c d": "cd"}
    assert merge_pairs(["a", "b", "c", "d"], table) == ["ab", "cd"]
    assert merge_pairs(["seat", "toilet", "bench", "seat"], {}) == ["toilet", "bench"]
    assert merge_pairs(["seat", "bench"], {}) == ["seat", "bench"]


def test_a_name_in_two_classes_is_refused():
    with pytest.raises(NapoError, match="'puppy' to dog and to cat"):
        Vocabulary.from_text("dog, puppy\ncat, puppy")


@pytest.mark.parametrize(
    ("reply", "objects"),
    [
        ('["dog", "cat"]', ["dog", "cat"]),
        ('Sure:\n["dog"]', ["dog"]),
        ('["dog"]\n["cat"]', ["cat"]),
        ("[]", []),
    ],
)
def test_a_list_of_objects_is_read_as_the_official_reader_reads_it(reply, objects):
    assert halbench.read_objects(reply) == objects


def test_what_the_official_reader_cannot_read_is_a_failure():
    with pytest.raises(ValueError, match="no JSON list"):  # test_lenient.py has other such replies
        halbench.read_objects('["dog"]\nDone')


TAGGED = {
    "men": [("man", "NNS")], "TV": [("tv", "NN")],
    "dining table": [("dining", "NN"), ("table", "NN")],
    "wine glasses": [("wine", "NN"), ("glass", "NNS")],
    "train tracks": [("train", "NN"), ("track", "NNS")],
    "home plate": [("home", "NN"), ("plate", "NN")],
    "kitchen couch": [("kitchen", "NN"), ("couch", "NN")],  # a compound is all or nothing
    "dogs by a cat": [("dog", "NNS"), ("by", "IN"), ("a", "DT"), ("cat", "NN")],
}  # fmt: skip


def tags(text):
    phrase = text.removeprefix("a ")
    return [("a", "DT"), *TAGGED.get(phrase, [(phrase, "NN")])]


class Lists:
    """A model that fails once, as with the reply "()" of the official prompt."""

    model = "lists"

    def __init__(self, *rounds):
        self.rounds, self.asked = list(rounds), []

    def ask(self, requests):
        self.asked.append(requests)
        return self.rounds.pop(0)


def test_llm_mode_gives_the_numbers_of_the_worked_example():
    first = ["man", "woman", "couch", "kitchen couch", "dogs by a cat", "men", "TV",
             "dining table", "wine glasses"]  # fmt: skip
    second = 'Here:\n["train","train tracks","home plate"]'
    model = Lists([json.dumps(first), "()"], [second])
    lists = halbench.llm_objects(["Describe."] * 3, [ONE, TWO, "A big dog"], model)
    assert [len(requests) for requests in model.asked] == [2, 1]  # a short answer is not sent
    assert lists.pop() == []
    found = [halbench.match_phrases(phrases, WORDS, tags) for phrases in lists]
    assert [word for word, _ in found[0]] == [word for word, _ in matched(LEMMAS[0])]
    scores = halbench.score(found, TRUTH, [ONE, TWO])
    assert (scores["CHAIRs"], scores["CHAIRs_refine"]) == (0.5, 0.5)
    assert (scores["CHAIRi"], scores["obj_rec"]) == pytest.approx((1 / 3, 5 / 7))


@pytest.mark.kind("an unreadable reply counts as an answer")
def test_lenient_lists_are_those_of_the_first_reply_that_holds_one():
    rounds = [['```json\n["dog"]\n```', '{"objects": ["cat"]}'], ['["puppy"]']]
    questions, texts = ["Describe."] * 2, [ONE, ONE]
    official = halbench.llm_objects(questions, texts, Lists(*rounds))
    assert official == [["puppy"], ["objects"]]
    again = halbench.llm_objects(questions, texts, Lists(*rounds), lenient=True)
    assert again == [["dog"], ["cat"]]


def test_a_given_prompt_is_filled_question_first():
    model = Lists(["[]"])
    halbench.llm_objects(["What {answer}?"], [ONE], model, "Q {question} A {answer}")
    [[request]] = model.asked
    assert request["messages"][0]["content"] == f"Q What {ONE}? A {ONE}"


def test_a_retry_is_another_request_and_failing_for_ever_stops(monkeypatch):
    monkeypatch.setattr(halbench, "ATTEMPTS", 3)
    model = Lists(["()"], ["null"], ["4"])
    with pytest.raises(NapoError, match="no list of objects for 1 responses"):
        halbench.llm_objects(["What?"], ["A dog and a cat"], model)
    assert len({json.dumps(requests) for requests in model.asked}) == 3


# --- the download, asking and evaluating


@pytest.fixture
def folder(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "JPEG")
    coded = base64.b64encode(picture.getvalue()).decode()
    lines = [
        {"org_idx": n, "image_id": image, "question": f"Question {n}?", "image": coded}
        for n, image in enumerate((7, 9))
    ]
    name = "chair_instruction2_img_diversify_8_noemo_test_300.jsonl"
    (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "synonyms.txt").write_text(SYNONYMS)
    names = ["person", "dog", "couch", "train"]
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    captions = {
        7: ["A man sits on a sofa with his dog.", "Two men watching TV",
            "A baby elephant toy near the toilet seat"],
        9: ["A passenger train on the train track"],
    }  # fmt: skip
    (tmp_path / "annotations").mkdir()
    for split, image, kinds in (("train", 7, (0, 1, 2, 0)), ("val", 9, (3,))):
        boxes = [{"image_id": image, "category_id": kind} for kind in kinds]
        boxes.append({"image_id": 1, "category_id": 0})  # no question is about image 1
        notes = [{"image_id": image, "caption": caption} for caption in captions[image]]
        for name, content in (
            ("instances", {"images": [{"id": image}], "annotations": boxes}),
            ("captions", {"annotations": notes}),
        ):
            path = tmp_path / "annotations" / f"{name}_{split}2014.json"
            path.write_text(json.dumps({"categories": categories, **content}))
    (tmp_path / "benchmark.json").write_text('{"edition": "test", "count": 2}')
    return tmp_path


def test_ground_truth_unites_instances_and_captions_of_both_splits(folder):
    benchmark = halbench.load(folder)
    assert [halbench.ground_truth(benchmark, n, "vocabulary") for n in (7, 9)] == TRUTH


def test_evaluating_reads_answers_as_the_official_script_does(folder):
    benchmark = halbench.load(folder)
    asked = halbench.requests(benchmark)
    assert [request.text for request in asked] == ["Question 0?", "Question 1?"]
    assert asked[0].open().size == (2, 2)
    answers = {"0": f" Assistant: {ONE} ", "1": TWO}
    metrics, frame = halbench.evaluate(benchmark, answers, extractor="vocabulary")
    assert metrics["CHAIRi"] == 3 / 10  # "men" is one more man here than with WordNet
    assert metrics["avg_word_len"] == 19.0
    assert list(frame["hallucinated"]) == [3, 0]


def test_a_run_that_names_nothing_has_no_rate_instead_of_no_result(folder):
    metrics, _ = halbench.evaluate(
        halbench.load(folder), {"0": "Yes.", "1": ""}, extractor="vocabulary"
    )
    assert metrics["CHAIRs"] == 0 and metrics["CHAIRi"] != metrics["CHAIRi"]  # nan


def test_missing_files_are_named(folder):
    (folder / "synonyms.txt").unlink()
    with pytest.raises(NapoError, match="synonyms_refine"):
        halbench.load(folder)
    with pytest.raises(NapoError, match="lacks its questions"):
        halbench.load(folder / "annotations")


REFERENCE = os.environ.get("NAPO_REFERENCE", "")


@pytest.mark.skipif(not REFERENCE, reason="NAPO_REFERENCE names no folder of official files")
def test_the_official_synonyms_with_the_refined_ones_have_407_entries_in_80_classes():
    text = (Path(REFERENCE) / "objhal" / "synonyms.txt").read_text()
    added = {"person": ", brother, pedestrian", "dining table": ", coffee table",
             "remote": ", remote control"}  # fmt: skip
    lines = [line + added.get(line.split(",")[0].strip(), "") for line in text.strip().splitlines()]
    words = Vocabulary.from_text("\n".join(lines))
    assert len(words.entries) == 407 and len(set(words.entries.values())) == 80
    assert sum(" " in name for name in words.entries) == 28


def test_with_nltk_data_the_official_words_are_matched(folder):
    from napo.benchmarks import words

    try:
        words.wordnet()
    except NapoError as error:
        pytest.skip(str(error))
    assert halbench.match_words(ONE, WORDS) == matched(LEMMAS[0])
