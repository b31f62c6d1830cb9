import json

import pytest

from napo.icon_world import benchmarks
from napo.icon_world.benchmarks import make_benchmarks
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
