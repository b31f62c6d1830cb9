"""AMBER: the official bookkeeping, with the numbers of the worked examples."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from napo.benchmarks import amber

WORDS = (
    "man woman hat ground sign dog cat toy grass forest ball tree road sky cloud sun person "
    "frisbee tent tie bird"
)
# "ground" is associated with grass, hence marks grass.
ASSOCIATION = {word: [] for word in WORDS.split()} | {"grass": ["ground"]}
SAFE = ("orange", "snack", "line", "camera", "light", "shoe", "sign", "range", "individual")
NOTES = [
    {"id": 44, "type": "generative",
     "truth": ["man", "grass", "road", "ground", "forest", "hat"],
     "hallu": ["sun", "sky", "dog", "sign", "cloud"]},
    {"id": 188, "type": "generative", "truth": ["dog", "toy", "frisbee", "forest", "grass"],
     "hallu": ["cat", "person", "sun", "cloud", "tent"]},
    {"id": 10, "type": "generative", "truth": ["ball", "man", "hat", "sky", "tie"],
     "hallu": ["sun", "bird", "grass", "tree", "woman"]},
]  # fmt: skip
NOUNS = {
    44: ["man", "hat", "ground", "sign"],
    188: ["dog", "cat", "play", "toy", "grass", "People", "forest"],
    10: ["man", "woman", "ball", "Trees"],
}
NEAR = {frozenset(("man", "woman")), frozenset(("dog", "cat"))}
SIMILAR = {
    "identity": lambda a, b: a == b,
    "md371": lambda a, b: a == b or frozenset((a, b)) in NEAR,
}


@pytest.mark.parametrize(
    ("ids", "similarity", "printed"),
    [
        ([44], "identity", (0.0, 50.0, 0.1, 0.0)),
        ([44], "md371", (0.0, 50.0, 0.1, 0.0)),
        ([188], "identity", (20.0, 80.0, 100.0, 20.0)),
        ([188], "md371", (0.0, 80.0, 0.1, 20.0)),
        ([10], "identity", (33.3, 40.0, 100.0, 20.0)),
        ([44, 188, 10], "identity", (16.7, 56.2, 66.7, 13.3)),
        ([44, 188, 10], "md371", (0.0, 56.2, 0.0, 13.3)),
    ],
)
def test_the_generative_examples_give_the_official_numbers(ids, similarity, printed):
    told = [{"id": number, "nouns": NOUNS[number]} for number in ids]
    scores = amber.score_generative(told, NOTES, ASSOCIATION, SAFE, SIMILAR[similarity])
    assert tuple(scores[name] for name in ("CHAIR", "Cover", "Hal", "Cog")) == printed


def counts(nouns, truth, hallu, similarity="identity"):
    note = {"truth": truth, "hallu": hallu}
    found = amber.judge_nouns(nouns, note, ASSOCIATION, SAFE, SIMILAR[similarity])
    return found["covered"], found["hallu_covered"], found["hallucinated"]


def test_the_rules_of_the_official_bookkeeping():
    # A safe word marks nothing and is no hallucination.
    assert counts(["sign"], ["man"], ["sign"]) == (0, 0, 0)
    # A similar word is no hallucination, though it marks what people expect.
    assert counts(["cat"], ["dog"], ["cat"], "md371") == (1, 1, 0)
    assert counts(["cat"], ["dog"], ["cat"]) == (0, 1, 1)
    # One noun marks two slots: it is similar to the first and equal to the second.
    assert counts(["cat"], [], ["dog", "cat"], "md371") == (0, 2, 1)
    # The first of equal items is marked, however often it is named.
    assert counts(["man", "man"], ["man", "man"], []) == (1, 0, 0)
    # "ground" marks grass, so it cannot be marked by its own name.
    assert counts(["ground", "grass"], ["ground", "grass"], []) == (1, 0, 0)


def test_no_responses_show_the_officials_starting_values():
    assert amber.score_generative([], NOTES, ASSOCIATION, SAFE, SIMILAR["identity"]) == {
        "CHAIR": 0.0, "Cover": 0.0, "Hal": 100.0, "Cog": 0.0,
    }  # fmt: skip


# --- discriminative

KINDS = {
    1005: ("discriminative-attribute-state", "yes"),
    1006: ("discriminative-attribute-state", "no"),
    1013: ("discriminative-attribute-number", "yes"),
    1014: ("discriminative-attribute-number", "no"),
    1017: ("discriminative-attribute-action", "yes"),
    1018: ("discriminative-attribute-action", "no"),
    8633: ("discriminative-hallucination", "no"),
    13557: ("discriminative-relation", "yes"),
    13558: ("relation", "no"),
}
QUESTIONS = [
    {"id": number, "type": kind, "truth": truth} for number, (kind, truth) in KINDS.items()
]
ANSWERS = {1005: "Yes", 1006: "No", 1013: "No", 1014: "Yes.", 1017: "No", 1018: "Yes", 8633: "No",
           13557: "Yes", 13558: "No"}  # fmt: skip


def test_the_discriminative_example_gives_the_official_numbers():
    told = [{"id": number, "response": text} for number, text in ANSWERS.items()]
    blocks = amber.score_discriminative(told, NOTES + QUESTIONS)
    assert {name: list(block.values()) for name, block in blocks.items()} == {
        "whole": [55.5, 60.0, 60.0, 60.0],
        "Existence": [99.9, 99.9, 99.9, 99.9],
        "Attribute": [33.3, 33.3, 33.3, 33.3],
        "State": [100.0, 99.9, 99.9, 99.9],
        "Number": [0.0, 0.0, 0.0, 0.0],
        "Action": [0.0, 0.0, 0.0, 0.0],
        "Relation": [100.0, 99.9, 99.9, 99.9],
    }
    assert list(blocks["whole"]) == ["Accuracy", "Precision", "Recall", "F1"]


@pytest.mark.parametrize("text", ["yes", "no", "No.", " No", "Yes ", ""])
def test_only_the_exact_words_count_and_the_rest_stay_in_the_denominators(text):
    told = [{"id": 1005, "response": text}, {"id": 1006, "response": "No"}]
    whole = amber.score_discriminative(told, QUESTIONS)["whole"]
    assert whole["Accuracy"] == 50.0 and whole["Recall"] == 99.9


REFERENCE = os.environ.get("NAPO_REFERENCE", "")
needs_reference = pytest.mark.skipif(
    not REFERENCE, reason="NAPO_REFERENCE names no folder of official files"
)


@needs_reference
def test_the_examples_come_out_the_same_with_the_official_files(tmp_path):
    folder = Path(REFERENCE) / "amber"
    (tmp_path / "similarity.json").write_text((folder / "similarity_md371.json").read_text())
    notes, association = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("annotations", "relation")
    )
    safe = (folder / "safe_words.txt").read_text().split()
    assert sorted(safe) == sorted(SAFE) and len(amber.vocabulary(association)) == 418
    told = [{"id": number, "nouns": nouns} for number, nouns in NOUNS.items()]
    for choice, printed in (
        ("identity", [16.7, 56.2, 66.7, 13.3]),
        ("table", [0.0, 56.2, 0.0, 13.3]),
        ("table-own", [0.0, 56.2, 0.0, 13.3]),
    ):
        near = amber.similar_words(choice, tmp_path)
        scores = amber.score_generative(told, notes, association, safe, near)
        assert list(scores.values()) == printed
    told = [{"id": number, "response": text} for number, text in ANSWERS.items()]
    assert list(amber.score_discriminative(told, notes)["whole"].values()) == [55.5, 60, 60, 60]


@needs_reference
def test_349_truth_and_71_hallu_slots_cannot_be_marked_by_their_own_name():
    folder = Path(REFERENCE) / "amber"
    notes = json.loads((folder / "annotations.json").read_text())
    association = json.loads((folder / "relation.json").read_text())
    lost = dict.fromkeys(("truth", "hallu"), 0)
    for note in (note for note in notes if note["type"] == "generative"):
        for side in lost:
            slots = amber._slots(note[side], association)
            first = {word: slot for word, slot in reversed(slots)}
            lost[side] += sum(first[name] != index for index, name in enumerate(note[side]))
    assert lost == {"truth": 349, "hallu": 71}


# --- the download, asking and evaluating


@pytest.fixture
def folder(tmp_path):
    queries = [{"id": n["id"], "image": f"AMBER_{n['id']}.jpg", "query": "Describe this image."}
               for n in NOTES]  # fmt: skip
    checks = [{"id": n, "image": "AMBER_10.jpg", "query": f"Is it {n}?"} for n in KINDS]
    for name, content in (
        ("query_generative", queries), ("query_discriminative", checks),
        ("annotations", NOTES + QUESTIONS), ("relation", ASSOCIATION),
        ("benchmark", {"count": {"generative": 3, "discriminative": 9}}),
    ):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "safe_words.txt").write_text("\n".join(SAFE) + "\n")
    (tmp_path / "image").mkdir()
    for note in NOTES:
        Image.new("RGB", (2, 2)).save(tmp_path / "image" / f"AMBER_{note['id']}.jpg")
    return tmp_path


def told():
    return {"44": "A man with a hat walks on the ground near a sign.",
            "188": "A dog and a cat play with a toy on the grass. It is a forest.",
            "10": "A man and a woman hold a ball.",
            **{str(number): text for number, text in ANSWERS.items()}}  # fmt: skip


def test_both_tasks_are_asked_and_scored_together(folder):
    benchmark = amber.load(folder)
    asked = amber.requests(benchmark)
    assert [request.id for request in asked] == list(told())
    assert asked[-1].open().size == (2, 2)
    metrics, frame = amber.evaluate(benchmark, told(), extractor="vocabulary")
    whole = {"CHAIR": 16.7, "Cover": 56.2, "Hal": 66.7, "Cog": 13.3, "d_Accuracy": 55.5,
             "d_Precision": 60.0, "d_Recall": 60.0, "d_F1": 60.0}  # fmt: skip
    assert {name: metrics[name] for name in whole} == whole
    assert metrics["d_State_Accuracy"] == 100.0 and metrics["d_Attribute_F1"] == 33.3
    assert len(metrics) == 4 + 7 * 4
    assert frame["task"].value_counts().to_dict() == {
        "generative": 3, "State": 2, "Number": 2, "Action": 2, "Relation": 2, "Existence": 1,
    }  # fmt: skip
    assert frame["image"].nunique() == 3  # intervals resample by image
    assert (frame["right"].sum(), frame["asked"].sum(), frame["one"].sum()) == (5, 9, 3)
