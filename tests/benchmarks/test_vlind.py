"""VLind-Bench: the official rules, with numbers worked out by the official scorer."""

import json

import pytest
from PIL import Image

from napo.benchmarks import vlind
from napo.benchmarks.intervals import value
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError

RATIOS = BENCHMARKS["vlind"].ratios

LETTERS = {"T": "True", "F": "False", "N": "NA"}


def entry(letter):
    return {"response": LETTERS[letter], "answer": LETTERS[letter]}


def instance(concept, votes, a, b, c, d):
    made = {"concept": concept, "aggregated_human_label_good_images": votes}
    for stage, answers, suffix in (("a", a, "_image"), ("b", b, ""), ("c", c, "_image")):
        for half, letter in zip("12", answers, strict=True):
            made[f"m_pred_{stage}{half}{suffix}"] = entry(letter)
    for half in (0, 1):
        made[f"m_pred_d{half + 1}"] = {image: entry(both[half]) for image, both in d.items()}
    return made


EXAMPLE = [
    instance("color", {"0": 3, "1": 2, "4": 1, "8": 3}, "TF", "TF", "TF",
             {"0": "TF", "1": "TT", "8": "TF"}),
    instance("color", {"0": 0, "1": 2, "5": 2}, "TT", "TF", "TF", {"1": "TF", "5": "TF"}),
    instance("size", {"2": 2}, "TF", "NF", "FF", {"2": "TT"}),
    instance("size", {"0": 1, "3": 0}, "TF", "TF", "TF", {}),
]  # fmt: skip
PRINTED = ("a_pass_ratio", "b_pass_ratio", "c_pass_ratio", "d_pass_ratio_macro", "c", "d_macro")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("True, because the sky is blue.", "True"),
        ("true,false", "NA"),
        ("true, false", "True"),
        ("t.r.u.e", "True"),
        ("True!", "NA"),
        ("TRUE\n", "True"),
        ("true\tfalse", "NA"),
    ],
)  # more texts: test_lenient.py
def test_an_answer_is_read_as_the_official_scorer_reads_it(text, read):
    assert vlind.read_answer(text) == read


@pytest.mark.parametrize(
    ("style", "printed"),
    [
        ("all", "66.7 66.7 50.0 66.7 66.7 55.6"),
        ("photorealistic", "66.7 66.7 50.0 50.0 66.7 50.0"),
        ("illustration", "0.0 100.0 0.0 0.0 100.0 100.0"),
        ("cartoon", "100.0 100.0 100.0 100.0 100.0 100.0"),
    ],
)
def test_the_worked_example_gives_the_six_official_numbers(style, printed):
    scores = vlind.score(EXAMPLE, style=style)
    assert " ".join(f"{scores[name]:.1f}" for name in PRINTED) == printed
    assert (scores["CB"], scores["LP"]) == (scores["c"], scores["d_macro"])


def test_the_worked_example_counts_images_and_gives_each_concept_its_numbers():
    named = [{key.replace("m_pred", "z"): x for key, x in fields.items()} for fields in EXAMPLE]
    scores = vlind.score(named, key="z")
    assert (scores["instances"], scores["images"], scores["d_micro"]) == (3, 6, 4)
    assert scores["d_pass_ratio_micro"] == pytest.approx(100 * 2 / 3)
    concepts = scores["per_concept"]
    found = {name: [numbers[key] for key in PRINTED[:4]] for name, numbers in concepts.items()}
    assert found["color"] == pytest.approx([50, 100, 100, 200 / 3])
    assert found["size"] == pytest.approx([100, 0, 0, 0])


def test_the_ratios_of_the_items_are_the_scores():
    frame, scores = vlind.items(EXAMPLE), vlind.score(EXAMPLE)
    for name in PRINTED:
        assert value(frame, RATIOS[name]) == pytest.approx(scores[name])


def test_without_a_good_image_scoring_stops_with_a_sentence():
    with pytest.raises(NapoError, match="no instance has an image"):
        vlind.score(EXAMPLE, vote_threshold=4)


# --- the download, asking and evaluating

VOTES = [{"0": 3, "1": 2, "4": 1, "8": 3}, {"0": 0, "1": 2, "5": 3}, {"0": 1}]


def pixel(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)


@pytest.fixture
def folder(tmp_path):
    listed = []
    for number, votes in enumerate(VOTES):
        fields = {
            "concept": "color", "context_id": number, "global_id": number, "best_img_id": 1,
            "context": "The sky is green.", "factual_context": "The sky is blue.",
            "true_statement": "The sky is green", "false_statement": "The sky is blue",
            "existent_noun": "a sky", "non-existent_noun": "a cow",
            "aggregated_human_label_good_images": votes,
        }  # fmt: skip
        listed.append(fields)
        images = tmp_path / "images"
        pixel(images / f"factual/color/{number}_The sky is blue./0.jpg")
        for image in votes:  # a release that writes the sentence in another way
            pixel(images / f"counterfactual/color/{number}_The sky is green/{image}.jpg")
    (tmp_path / "data.json").write_text(json.dumps(listed))
    (tmp_path / "benchmark.json").write_text('{"edition": "test", "count": 3}')
    return tmp_path


def test_every_stage_asks_its_own_prompt_about_its_own_image(folder):
    asked = {request.id: request for request in vlind.requests(vlind.load(folder))}
    assert len(asked) == 2 * 6 + 2 * 3 + 2 * 2  # the third instance has no good image
    assert asked["0/a1"].text == (
        "Statement: The sky is blue\nBased on common sense, is the given statement true or false? "
        "Only respond in True or False."
    )
    assert asked["0/a1"].image.parts[-4:] == ("factual", "color", "0_The sky is blue.", "0.jpg")
    assert asked["0/b2"].text == (
        "Statement: There is a cow in the given image.\nBased on the image, is the given statement "
        "true or false? Only respond in True or False."
    )
    assert asked["0/c1"].text == (
        "Context: The sky is green.\nStatement: The sky is green\nBased on the context, is the "
        "given statement true or false? Forget real-world common sense and just follow the "
        "information provided in the context. Only respond in True or False."
    )
    assert asked["0/d2/8"].text == (
        "Statement: The sky is blue\nBased on the image, is the given statement true or false? "
        "Forget real-world common sense and just follow the information provided in the image. "
        "Only respond in True or False."
    )
    assert asked["0/d2/8"].image.name == "8.jpg"
    assert asked["0/d2/8"].open().mode == "RGB"


@pytest.mark.parametrize(("choice", "images"), [("best", "11"), ("most_votes", "05")])
def test_stages_b_and_c_show_the_image_of_upstream_or_of_the_released_copy(folder, choice, images):
    asked = {r.id: r for r in vlind.requests(vlind.load(folder), vlind_image=choice)}
    shown = {f"{n}/{stage}": f"{images[n]}.jpg" for n in (0, 1) for stage in ("b1", "c2")}
    assert {name: asked[name].image.name for name in shown} == shown


def test_right_answers_score_100_and_swapped_ones_0(folder):
    benchmark = vlind.load(folder)
    right = {r.id: "True." if r.id.split("/")[1][1] == "1" else "False."
             for r in vlind.requests(benchmark)}  # fmt: skip
    metrics, frame = vlind.evaluate(benchmark, right)
    assert {metrics[name] for name in PRINTED} == {100.0}
    assert metrics["d_says_true"] == 50.0 and len(frame) == 2
    swapped = {name: {"True.": "False.", "False.": "True."}[text] for name, text in right.items()}
    metrics, _ = vlind.evaluate(benchmark, swapped)
    assert {metrics[name] for name in PRINTED} == {0.0}
