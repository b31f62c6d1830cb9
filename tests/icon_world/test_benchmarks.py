import json

import pytest

from napo.icon_world import benchmarks
from napo.icon_world.benchmarks import MMHAL_TYPES, SYNONYMS, make_benchmarks
from napo.icon_world.scenes import KINDS

SIZES = {
    "vlind": 12,
    "object_halbench": 5,
    "amber_generative": 5,
    "amber_discriminative": 40,
    "mmhal": 16,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    make_benchmarks(folder, sizes=SIZES)
    return folder


def read(path):
    return json.loads(path.read_text())


def test_the_same_seed_gives_the_same_bytes_and_the_splits_share_nothing(folder, tmp_path):
    make_benchmarks(tmp_path / "again", sizes=SIZES)
    make_benchmarks(tmp_path / "validation", sizes=SIZES, split="validation")
    images = {path.read_bytes() for path in folder.rglob("*.jpg")}
    assert images == {path.read_bytes() for path in (tmp_path / "again").rglob("*.jpg")}
    assert not images & {path.read_bytes() for path in (tmp_path / "validation").rglob("*.jpg")}


def test_vlind_has_the_official_layout_and_every_image(folder):
    data = read(folder / "vlind/data.json")
    assert len(data) == 12
    for instance in data:
        name = f"{instance['concept']}/{instance['context_id']}_"
        images = folder / "vlind/images"
        assert (images / "factual" / f"{name}{instance['factual_context']}" / "0.jpg").is_file()
        good = [k for k, v in instance["aggregated_human_label_good_images"].items() if v >= 2]
        assert 1 <= len(good) <= 2
        for image in good:
            path = images / "counterfactual" / f"{name}{instance['context']}" / f"{image}.jpg"
            assert path.is_file()


def test_every_statement_of_vlind_is_as_its_images_show(monkeypatch, tmp_path):
    shown, scenes = {}, []
    monkeypatch.setattr(benchmarks, "jpeg", lambda scene, rng: scenes.append(scene) or b"")
    monkeypatch.setattr(
        benchmarks, "write", lambda path, *_, **__: shown.update({path: scenes[-1]})
    )
    make_benchmarks(tmp_path, sizes={**SIZES, "vlind": 150})
    for instance in read(tmp_path / "vlind/data.json"):
        name = f"/{instance['concept']}/{instance['context_id']}_"
        true, false = instance["true_statement"], instance["false_statement"]
        for path, scene in shown.items():
            if f"vlind/images/factual{name}" in str(path):
                assert holds(scene, false) and not holds(scene, true)
            elif f"vlind/images/counterfactual{name}" in str(path):
                assert holds(scene, true) and not holds(scene, false)
                assert scene.thing(instance["existent_noun"].split(" ", 1)[1])
                assert not scene.thing(instance["non-existent_noun"].split(" ", 1)[1])


def holds(scene, statement):
    words = statement.rstrip(".").split()
    if words[-2] == "is":  # The cow is brown.
        return scene.thing(words[1]).color == words[-1]
    return bool(scene.thing(words[3]) and scene.thing(words[-1]))  # There is a cow beside the pig.


def test_object_halbench_has_questions_with_images_and_coco_annotations(folder):
    lines = (folder / "object_halbench/questions.jsonl").read_text().splitlines()
    assert {"org_idx", "image_id", "question", "image"} == set(json.loads(lines[0]))
    notes = read(folder / "object_halbench/annotations/instances_val2014.json")
    assert {note["image_id"] for note in notes["annotations"]} == set(range(1, 6))


def test_ambers_existence_questions_are_all_about_absent_things(folder):
    notes = read(folder / "amber/annotations.json")
    assert [note["id"] for note in notes] == list(range(1, 46))
    existence = [n["truth"] for n in notes if n["type"] == "discriminative-hallucination"]
    assert existence and set(existence) == {"no"}


def test_ambers_expected_things_belong_to_the_place_and_are_not_in_the_picture(folder):
    for note in read(folder / "amber/annotations.json"):
        if note["type"] == "generative":
            assert not set(note["truth"]) & set(note["hallu"])
            places = {KINDS[kind].place for kind in note["truth"]}
            assert {KINDS[kind].place for kind in note["hallu"]} <= places


def test_mmhal_cycles_through_its_eight_types(folder):
    items = read(folder / "mmhal/response_template.json")
    assert [item["question_type"] for item in items[:8]] == list(MMHAL_TYPES)
    assert all((folder / "mmhal" / item["image_src"]).is_file() for item in items)


def test_other_names_name_one_kind_each():
    names = [*KINDS, *(name for others in SYNONYMS.values() for name in others)]
    assert len(names) == len(set(names)) and set(SYNONYMS) <= set(KINDS)
