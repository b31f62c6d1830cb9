"""Object HalBench: the official rules, with the numbers of the worked example."""

import base64
import io
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napo.benchmarks import object_halbench as halbench
from napo.benchmarks.intervals import value
from napo.benchmarks.object_words import Vocabulary, merge_pairs
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError

RATIOS = BENCHMARKS["object_halbench"].ratios

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


def test_the_worked_example_matches_these_words():
    assert [word for word, _ in matched(LEMMAS[0])] == [
        "man", "woman", "couch", "dog", "cat", "tv", "dining table", "wine glass",
    ]  # fmt: skip
    assert matched(LEMMAS[1]) == [("train", "train")]


def test_the_packaged_lemmatiser_matches_the_same_classes_but_knows_men():
    found = halbench.match_words(ONE, WORDS, "vocabulary")
    assert [word for word, _ in found] == [
        "man", "woman", "couch", "dog", "cat", "man", "tv", "dining table", "wine glass",
    ]  # fmt: skip
    assert halbench.match_words(TWO, WORDS, "vocabulary") == [("train", "train")]


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


def test_pairs_are_taken_left_to_right_and_never_overlap():
    table = {"a b": "ab", "b c": "bc", "c d": "cd"}
    assert merge_pairs(["a", "b", "c", "d"], table) == ["ab", "cd"]


def test_a_seat_beside_a_toilet_is_no_object_anywhere_in_the_text():
    assert merge_pairs(["seat", "toilet", "bench", "seat"], {}) == ["toilet", "bench"]
    assert merge_pairs(["seat", "bench"], {}) == ["seat", "bench"]


def test_a_name_in_two_classes_is_refused():
    with pytest.raises(NapoError, match="'puppy' to dog and to cat"):
        Vocabulary.from_text("dog, puppy\ncat, puppy")


@pytest.mark.parametrize(
    ("reply", "objects"),
    [
        ('["dog", "cat"]', ["dog", "cat"]),
        ('[\n "dog",\n "cat"\n]', ["dog", "cat"]),
        ('Sure:\n["dog"]', ["dog"]),
        ('["dog"]\n["cat"]', ["cat"]),
        ("[]", []),
    ],
)
def test_a_list_of_objects_is_read_as_the_official_reader_reads_it(reply, objects):
    assert halbench.read_objects(reply) == objects


@pytest.mark.parametrize(
    "reply",
    ['["dog"]\nDone', '```json\n["dog"]\n```', "['dog']", 'Objects: ["dog"]', "No objects.\n[]",
     "()", ""],
)  # fmt: skip
def test_what_the_official_reader_cannot_read_is_a_failure(reply):
    with pytest.raises(ValueError):
        halbench.read_objects(reply)


TAGGED = {
    "dogs": [("dog", "NNS")], "men": [("man", "NNS")], "TV": [("tv", "NN")],
    "dining table": [("dining", "NN"), ("table", "NN")],
    "wine glasses": [("wine", "NN"), ("glass", "NNS")],
    "train tracks": [("train", "NN"), ("track", "NNS")],
    "home plate": [("home", "NN"), ("plate", "NN")],
    "kitchen couch": [("kitchen", "NN"), ("couch", "NN")],
    "couch by a bench": [("couch", "NN"), ("by", "IN"), ("a", "DT"), ("bench", "NN")],
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
    first = '["man","woman","couch","dogs","cat","men","TV","dining table","wine glasses"]'
    model = Lists([first, "()"], ['Here:\n["train","train tracks","home plate"]'])
    lists = halbench.llm_objects(["Describe.", "Describe."], [ONE, TWO], model)
    assert [len(requests) for requests in model.asked] == [2, 1]
    found = [halbench.match_phrases(phrases, WORDS, tags) for phrases in lists]
    assert [word for word, _ in found[0]] == [word for word, _ in matched(LEMMAS[0])]
    scores = halbench.score(found, TRUTH, [ONE, TWO])
    assert (scores["CHAIRs"], scores["CHAIRs_refine"]) == (0.5, 0.5)
    assert (scores["CHAIRi"], scores["obj_rec"]) == pytest.approx((1 / 3, 5 / 7))


def test_a_compound_is_all_or_nothing_and_each_run_of_nouns_is_a_word():
    assert halbench.match_phrases(["kitchen couch"], WORDS, tags) == []
    found = halbench.match_phrases(["couch by a bench"], WORDS, tags)
    assert [word for word, _ in found] == ["couch", "bench"]


def test_a_short_answer_has_no_objects_and_is_not_sent():
    model = Lists([])
    assert halbench.llm_objects(["What?"], ["A big dog"], model) == [[]]
    assert model.asked == [[]]


def test_a_retry_is_another_request_and_failing_for_ever_stops(monkeypatch):
    monkeypatch.setattr(halbench, "ATTEMPTS", 3)
    model = Lists(["()"], ["null"], ["4"])
    with pytest.raises(NapoError, match="no list of objects for 1 responses"):
        halbench.llm_objects(["What?"], ["A dog and a cat"], model)
    assert len({json.dumps(requests) for requests in model.asked}) == 3


NAMES = sorted(set(WORDS.entries.values()))


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(sorted(WORDS.entries)), max_size=6),
            st.sets(st.sampled_from(NAMES), min_size=1),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_rates_stay_between_0_and_1_and_truth_only_lowers_them(drawn):
    found = [[(word, WORDS.entries[word]) for word in names] for names, _ in drawn]
    truth = [set(names) for _, names in drawn]
    texts = ["x"] * len(drawn)
    frame = halbench.items(found, truth, texts)
    rates = {name: value(frame, ratio) for name, ratio in RATIOS.items()}
    assert all(0 <= rate <= 1 for rate in rates.values())
    assert rates["CHAIRs"] <= rates["CHAIRs_refine"]
    knowing = halbench.items(found, [names | {found[0][0][1]} if found[0] else names
                                     for names in truth], texts)  # fmt: skip
    assert value(knowing, RATIOS["CHAIRi"]) <= rates["CHAIRi"]


def test_without_any_object_a_rate_is_nan():
    scores = halbench.score([[]], [{"dog"}], ["Nothing."])
    assert scores["CHAIRs"] == 0 and math.isnan(scores["CHAIRi"])


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
    write(tmp_path, "instances_train2014", {
        "images": [{"id": 7}], "categories": [{"id": n, "name": x} for n, x in enumerate(names)],
        "annotations": [{"image_id": 7, "category_id": n} for n in (0, 1, 2, 0)],
    })  # fmt: skip
    write(tmp_path, "instances_val2014", {
        "images": [{"id": 9}], "categories": [{"id": n, "name": x} for n, x in enumerate(names)],
        "annotations": [{"image_id": 9, "category_id": 3}, {"image_id": 1, "category_id": 0}],
    })  # fmt: skip
    captions = ["A man sits on a sofa with his dog.", "Two men watching TV",
                "A baby elephant toy near the toilet seat"]  # fmt: skip
    write(tmp_path, "captions_train2014", {
        "annotations": [{"image_id": 7, "caption": caption} for caption in captions]
    })  # fmt: skip
    write(tmp_path, "captions_val2014", {
        "annotations": [{"image_id": 9, "caption": "A passenger train on the train track"}]
    })  # fmt: skip
    (tmp_path / "benchmark.json").write_text('{"edition": "test", "count": 2}')
    return tmp_path


def write(folder, name, content):
    path = folder / "annotations" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


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
    assert halbench.unreadable({"0": "Yes.", "1": ""}) == 1


def test_an_image_without_annotations_is_named(folder):
    (folder / "annotations/instances_val2014.json").unlink()
    with pytest.raises(NapoError, match=r"1 images \(9\)"):
        halbench.load(folder)


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
