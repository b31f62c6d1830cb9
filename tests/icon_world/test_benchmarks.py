import json

import pytest

from napo.icon_world.benchmarks import MMHAL_TYPES, make_benchmarks
from napo.icon_world.judge import judge_by_truth
from napo.icon_world.scenes import Scene, Thing

SIZES = {
    "vlind": 12,
    "object_halbench": 5,
    "amber_generative": 5,
    "amber_discriminative": 40,
    "mmhal": 16,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    make_benchmarks(folder, sizes=SIZES)
    return folder


def test_vlind_has_the_official_layout_and_every_image(made):
    data = json.loads((made / "vlind/data.json").read_text())
    assert len(data) == 12
    for instance in data:
        where = f"{instance['concept']}/{instance['context_id']}_"
        images = made / "vlind/images"
        assert (images / "factual" / f"{where}{instance['factual_context']}" / "0.jpg").is_file()
        good = [k for k, v in instance["aggregated_human_label_good_images"].items() if v >= 2]
        assert 1 <= len(good) <= 2
        for image in good:
            folder = images / "counterfactual" / f"{where}{instance['context']}"
            assert (folder / f"{image}.jpg").is_file()
        assert instance["true_statement"] != instance["false_statement"]


def test_object_halbench_has_questions_with_images_and_coco_annotations(made):
    lines = (made / "object_halbench/questions.jsonl").read_text().splitlines()
    assert {"org_idx", "image_id", "question", "image"} == set(json.loads(lines[0]))
    notes = json.loads((made / "object_halbench/annotations/instances_val2014.json").read_text())
    assert {a["image_id"] for a in notes["annotations"]} == set(range(1, 6))


def test_ambers_existence_questions_are_all_about_what_is_not_there(made):
    notes = json.loads((made / "amber/annotations.json").read_text())
    assert [note["id"] for note in notes] == list(range(1, 46))
    existence = [n["truth"] for n in notes if n["type"] == "discriminative-hallucination"]
    assert existence and set(existence) == {"no"}


def test_mmhal_cycles_through_its_eight_types(made):
    items = json.loads((made / "mmhal/response_template.json").read_text())
    assert [item["question_type"] for item in items[:8]] == list(MMHAL_TYPES)
    assert all((made / "mmhal" / item["image_src"]).is_file() for item in items)


def test_the_same_seed_gives_the_same_bytes_and_the_splits_share_nothing(made, tmp_path):
    make_benchmarks(tmp_path / "again", sizes=SIZES)
    make_benchmarks(tmp_path / "validation", sizes=SIZES, split="validation")
    images = {path.read_bytes() for path in made.rglob("*.jpg")}
    assert images == {path.read_bytes() for path in (tmp_path / "again").rglob("*.jpg")}
    assert not images & {path.read_bytes() for path in (tmp_path / "validation").rglob("*.jpg")}


ITEM = {
    "scene": Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3))).to_json(),
    "truth": {"kind": "color", "group": "question", "about": {"kind": "cow"}},
}


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("The cow is purple.", 5),
        ("The cow is purple and the pig is pink.", 6),
        ("There is a pink pig.", 4),
        ("I do not know.", 3),
        ("The cow is brown.", 1),
        ("The cow is purple. There is a red dog.", 2),
    ],
)
def test_the_rule_judge_rates_by_the_scene(answer, rating):
    assert judge_by_truth(ITEM, answer).endswith(f"Rating: {rating}")


def test_every_statement_of_vlind_is_as_its_images_show(made, monkeypatch, tmp_path):
    from napo.icon_world import benchmarks

    drawn = []
    monkeypatch.setattr(benchmarks, "_save", lambda path, scene, rng: drawn.append((path, scene)))
    benchmarks.make_benchmarks(tmp_path, sizes={**SIZES, "vlind": 150})
    for instance in json.loads((tmp_path / "vlind/data.json").read_text()):
        here = f"/{instance['concept']}/{instance['context_id']}_"
        for path, scene in drawn:
            if here not in str(path) or "vlind" not in str(path):
                continue
            factual = "/factual/" in str(path)
            keys = (
                ("false_statement", "true_statement")
                if factual
                else ("true_statement", "false_statement")
            )
            assert shows(scene, instance[keys[0]]) and not shows(scene, instance[keys[1]])
            if not factual:
                assert scene.thing(instance["existent_noun"].split(" ", 1)[1])
                assert not scene.thing(instance["non-existent_noun"].split(" ", 1)[1])


def shows(scene, statement):
    words = statement.rstrip(".").split()
    if words[-2] == "is":  # The cow is brown.
        return scene.thing(words[1]).color == words[-1]
    return bool(scene.thing(words[3]) and scene.thing(words[-1]))  # There is a cow beside the pig.


def test_ambers_expected_things_belong_where_the_picture_is_and_are_not_in_it(made):
    from napo.icon_world.scenes import KINDS

    for note in json.loads((made / "amber/annotations.json").read_text()):
        if note["type"] == "generative":
            assert not set(note["truth"]) & set(note["hallu"])
            assert {KINDS[k].place for k in note["hallu"]} <= {
                KINDS[k].place for k in note["truth"]
            }


def test_other_names_name_one_kind_each():
    from napo.icon_world.benchmarks import SYNONYMS
    from napo.icon_world.scenes import KINDS

    names = [*KINDS, *(name for others in SYNONYMS.values() for name in others)]
    assert len(names) == len(set(names)) and set(SYNONYMS) <= set(KINDS)
