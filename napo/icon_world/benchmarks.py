"""The icon world's editions of the four benchmarks, in the files of the official downloads.

The scenes are untypical on purpose: that is where a model that leans on its priors errs. The
`test` and `validation` splits draw from disjoint seeds, and never from those of pretraining or of
the preference rows.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napo.icon_world import questions, scenes
from napo.icon_world.questions import a, color_context, pair_context
from napo.icon_world.scenes import KINDS, MEMBERS, Scene, Thing, other_color, pick
from napo.workspace.files import atomic_file, make_folder, write_json

SIZES = {
    "vlind": 1000,
    "object_halbench": 200,
    "amber_generative": 200,
    "amber_discriminative": 400,
    "mmhal": 96,
}
_SPLITS = {"test": 0, "validation": 1}

# Other names of a kind, for answers of models that learnt their English elsewhere.
SYNONYMS = {
    "cow": ("bull", "calf"), "sheep": ("lamb",), "pig": ("piglet",), "horse": ("pony", "foal"),
    "cake": ("cupcake",), "cup": ("glass", "mug"), "car": ("automobile",), "bus": ("coach",),
    "truck": ("lorry",), "bicycle": ("bike",), "train": ("locomotive",),
    "sofa": ("couch", "settee"), "television": ("tv",), "cat": ("kitten",), "tree": ("pine",),
    "flower": ("tulip",), "dog": ("puppy",), "boat": ("ship", "sailboat"), "turtle": ("tortoise",),
    "duck": ("duckling",), "airplane": ("plane", "jet"), "umbrella": ("parasol",),
}  # fmt: skip


def make_benchmarks(
    folder: Path, *, sizes: Mapping[str, int] | None = None, seed: int = 1234, split: str = "test"
) -> None:
    """Write all four benchmarks below a folder.

    Args:
        folder: gets `vlind`, `object_halbench`, `amber` and `mmhal`.
        sizes: instances of each; what is left out has the size in `SIZES`.
        seed: of the scenes.
        split: "test" or "validation".
    """
    sizes = {**SIZES, **(sizes or {})}
    makers = {
        "vlind": lambda path, rng: _vlind(path, rng, sizes["vlind"]),
        "object_halbench": lambda path, rng: _objects(path, rng, sizes["object_halbench"]),
        "amber": lambda path, rng: _amber(
            path, rng, sizes["amber_generative"], sizes["amber_discriminative"]
        ),
        "mmhal": lambda path, rng: _mmhal(path, rng, sizes["mmhal"]),
    }
    for number, (name, make) in enumerate(makers.items()):
        path = folder / name
        make_folder(path)
        make(path, np.random.default_rng([seed, 77, _SPLITS[split], number]))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _save(path: Path, scene: Scene, rng: np.random.Generator) -> None:
    with atomic_file(path, flush=False) as temporary:
        temporary.write_bytes(_jpeg(scenes.draw(scene, rng)))


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# --- VLind-Bench: a counterfactual context, a factual one, and what is true in each


def _vlind(folder: Path, rng: np.random.Generator, count: int) -> None:
    instances = []
    for number in range(count):
        concept = "color" if rng.random() < 0.6 else "location"
        make = _color_instance if concept == "color" else _location_instance
        fields, factual, untypical = make(rng)
        good = 1 if rng.random() < 0.9 else 2
        votes = {str(image): 3 - image for image in range(good)}
        instance = {
            "global_id": number,
            "context_id": number,
            "concept": concept,
            **fields,
            "best_img_id": 0,
            "aggregated_human_label_good_images": votes,
        }
        instances.append(instance)
        root = folder / "images"
        named = f"{number}_{fields['factual_context']}"
        _save(root / "factual" / concept / named / "0.jpg", factual(), rng)
        named = f"{number}_{fields['context']}"
        for image in range(good):
            _save(root / "counterfactual" / concept / named / f"{image}.jpg", untypical(), rng)
    write_json(folder / "data.json", instances)
    write_json(folder / "benchmark.json", {"edition": "icon-world", "count": count})


def _color_instance(rng: np.random.Generator) -> tuple[dict[str, str], Any, Any]:
    kind = pick(rng, tuple(KINDS))
    typical = KINDS[kind].color
    odd = other_color(rng, typical)
    fields = {
        "context": color_context(kind, odd),
        "factual_context": color_context(kind, typical),
        "true_statement": f"The {kind} is {odd}.",
        "false_statement": f"The {kind} is {typical}.",
        "existent_noun": a(kind),
        "non-existent_noun": a(pick(rng, [k for k in KINDS if k != kind])),
    }
    return fields, lambda: _with(rng, kind, typical, fields), lambda: _with(rng, kind, odd, fields)


def _with(rng: np.random.Generator, kind: str, color: str, fields: Mapping[str, str]) -> Scene:
    """A scene of the kind's own place that shows it in a colour, others as they usually are."""
    absent = fields["non-existent_noun"].split(" ", 1)[1]
    scene = scenes.sample(rng, p_typical=0.9)
    others = [thing for thing in scene.things if thing.kind not in (kind, absent)][:2]
    free = [cell for cell in range(4) if cell not in {thing.cell for thing in others}]
    things = [*others, Thing(kind, color, pick(rng, free))]
    return Scene(KINDS[kind].place, tuple(sorted(things, key=lambda thing: thing.cell)))


def _location_instance(rng: np.random.Generator) -> tuple[dict[str, str], Any, Any]:
    beside = pick(rng, tuple(KINDS))
    place = KINDS[beside].place
    odd = pick(rng, [k for k in KINDS if KINDS[k].place != place])
    usual = pick(rng, [k for k in MEMBERS[place] if k != beside])
    fields = {
        "context": pair_context(odd, beside),
        "factual_context": pair_context(usual, beside),
        "true_statement": f"There is {a(odd)} beside the {beside}.",
        "false_statement": f"There is {a(usual)} beside the {beside}.",
        "existent_noun": a(odd),
        "non-existent_noun": a(usual),
    }
    return (
        fields,
        lambda: _pair(rng, place, beside, usual, absent=odd),
        lambda: _pair(rng, place, beside, odd, absent=usual),
    )


def _pair(rng: np.random.Generator, place: str, beside: str, kind: str, *, absent: str) -> Scene:
    kinds = [beside, kind]
    if rng.random() < 0.5:
        kinds.append(pick(rng, [k for k in MEMBERS[place] if k not in (beside, kind, absent)]))
    cells = rng.permutation(4)[: len(kinds)].tolist()
    things = [Thing(k, KINDS[k].color, cell) for k, cell in zip(kinds, cells, strict=True)]
    return Scene(place, tuple(sorted(things, key=lambda thing: thing.cell)))


# --- Object HalBench: descriptions of untypical scenes against COCO-style annotations


def _untypical(rng: np.random.Generator) -> Scene:
    return scenes.sample(rng, p_typical=0.4, p_belongs=0.4, count=int(rng.integers(2, 4)))


def _objects(folder: Path, rng: np.random.Generator, count: int) -> None:
    categories = [{"id": number, "name": kind} for number, kind in enumerate(KINDS, 1)]
    number_of = {category["name"]: category["id"] for category in categories}
    lines, instances, captions = [], [], []
    for number in range(1, count + 1):
        scene = _untypical(rng)
        picture = base64.b64encode(_jpeg(scenes.draw(scene, rng))).decode()
        asked = questions.DESCRIBE[number % len(questions.DESCRIBE)]
        lines.append(
            {"org_idx": number - 1, "image_id": number, "question": asked, "image": picture}
        )
        for thing in scene.things:
            box = {
                "image_id": number,
                "category_id": number_of[thing.kind],
                "id": len(instances) + 1,
            }
            instances.append(box)
        captions.append({"image_id": number, "id": number, "caption": questions.describe(scene)})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    _write(folder / "questions.jsonl", text)
    names = (", ".join((kind, *SYNONYMS.get(kind, ()))) for kind in KINDS)
    _write(folder / "synonyms.txt", "".join(f"{line}\n" for line in names))
    images = [{"id": number} for number in range(1, count + 1)]
    notes = folder / "annotations"
    write_json(
        notes / "instances_val2014.json",
        {"images": images, "annotations": instances, "categories": categories},
    )
    write_json(notes / "captions_val2014.json", {"images": images, "annotations": captions})
    write_json(folder / "benchmark.json", {"edition": "icon-world", "count": count})


# --- AMBER: what is there, and what a place makes one expect


def _amber(folder: Path, rng: np.random.Generator, generative: int, discriminative: int) -> None:
    annotations, describe, ask = [], [], []
    drawn = []
    for number in range(1, generative + 1):
        scene = _untypical(rng)
        drawn.append(scene)
        _save(folder / "image" / f"AMBER_{number}.jpg", scene, rng)
        there = [thing.kind for thing in scene.things]
        expected = [kind for kind in MEMBERS[scene.setting] if kind not in there]
        annotations.append({"id": number, "type": "generative", "truth": there, "hallu": expected})
        describe.append(
            {"id": number, "image": f"AMBER_{number}.jpg", "query": "Describe this image."}
        )
    for number in range(generative + 1, generative + discriminative + 1):
        at = int(rng.integers(generative))
        query, kind, truth = _amber_query(rng, drawn[at])
        annotations.append({"id": number, "type": kind, "truth": truth})
        ask.append({"id": number, "image": f"AMBER_{at + 1}.jpg", "query": query})
    write_json(folder / "annotations.json", annotations)
    write_json(folder / "relation.json", {kind: SYNONYMS.get(kind, ()) for kind in KINDS})
    _write(folder / "safe_words.txt", "object\n")
    write_json(folder / "query_generative.json", describe)
    write_json(folder / "query_discriminative.json", ask)
    count = {"generative": generative, "discriminative": discriminative}
    write_json(folder / "benchmark.json", {"edition": "icon-world", "count": count})


def _amber_query(rng: np.random.Generator, scene: Scene) -> tuple[str, str, str]:
    """A query, AMBER's name of its type, and the truth; existence is always "no", as in AMBER."""
    what = pick(rng, questions.CHECKS)
    asked = questions.check(rng, scene, what, want=False if what == "existence" else None)
    kind = _AMBER_TYPES[what]
    if what == "relation" and not asked.about["truth"]:
        kind = "relation"  # AMBER's own name for the relations that do not hold
    return asked.text, kind, "yes" if asked.about["truth"] else "no"


_AMBER_TYPES = {
    "existence": "discriminative-hallucination",
    "color": "discriminative-attribute-state",
    "number": "discriminative-attribute-number",
    "relation": "discriminative-relation",
}


# --- MMHal-Bench: eight types of question, twelve topics


MMHAL_TYPES = (
    "attribute", "adversarial", "comparison", "counting",
    "relation", "environment", "holistic", "other",
)  # fmt: skip
_ASK = {
    "attribute": "color",
    "comparison": "same",
    "counting": "count",
    "relation": "cell",
    "environment": "setting",
    "holistic": "description",
    "other": "presence",
}


def _mmhal(folder: Path, rng: np.random.Generator, count: int) -> None:
    items = []
    for number in range(count):
        kind = MMHAL_TYPES[number % 8]
        scene = _untypical(rng)
        asked = (
            _adversarial(rng, scene)
            if kind == "adversarial"
            else questions.ask(rng, scene, _ASK[kind])
        )
        name = f"icon{number:04d}"
        _save(folder / "images" / f"{name}.jpg", scene, rng)
        about = {"kind": asked.kind, "group": asked.group, "about": dict(asked.about)}
        items.append(
            {
                "question_type": kind,
                "question_topic": scene.setting,
                "image_id": name,
                "image_src": f"images/{name}.jpg",
                "image_content": [thing.kind for thing in scene.things],
                "question": asked.text,
                "gt_answer": asked.answer,
                "model_answer": "",
                "scene": scene.to_json(),
                "truth": about,
            }
        )
    write_json(folder / "response_template.json", items)
    write_json(folder / "benchmark.json", {"edition": "icon-world", "count": count})


def _adversarial(rng: np.random.Generator, scene: Scene) -> questions.Question:
    """A question about a thing that is not there, though one would expect it."""
    kind = questions.absent(rng, scene)
    text = f"What color is the {kind}?"
    return questions.Question("absent", text, f"There is no {kind}.", {"kind": kind})
