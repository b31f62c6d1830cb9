"""The icon world's editions of the four benchmarks, in the files of the official downloads.

Most scenes are untypical: a model that leans on its priors errs there. The splits `test` and
`validation` have seeds of their own, different from those of pretraining and of the rows.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from napo.config.benchmarks import BENCHMARKS
from napo.icon_world import questions, scenes
from napo.icon_world.questions import color_context, companions, pair_context, pair_statement
from napo.icon_world.scenes import KINDS, MEMBERS, Scene, Thing, other_color, pick
from napo.icon_world.wordings import a, color_statement, describe
from napo.workspace.files import atomic_file, make_folder, write_json

SPLITS = ("test", "validation")

# Other names of a kind, for answers of models that learnt their English elsewhere.
SYNONYMS = {
    "cow": ("bull", "calf"), "sheep": ("lamb",), "pig": ("piglet",), "horse": ("pony", "foal"),
    "cake": ("cupcake",), "cup": ("glass", "mug"), "car": ("automobile",), "bus": ("coach",),
    "truck": ("lorry",), "bicycle": ("bike",), "train": ("locomotive",),
    "sofa": ("couch", "settee"), "television": ("tv",), "cat": ("kitten",), "tree": ("pine",),
    "flower": ("tulip",), "dog": ("puppy",), "boat": ("ship", "sailboat"), "turtle": ("tortoise",),
    "duck": ("duckling",), "airplane": ("plane", "jet"), "umbrella": ("parasol",),
}  # fmt: skip


AMBER_TYPES = {
    "existence": "discriminative-hallucination",
    "color": "discriminative-attribute-state",
    "number": "discriminative-attribute-number",
    "relation": "discriminative-relation",
}
MMHAL_TYPES = {  # MMHal-Bench's types of question, in its order, and the icon world's kinds
    "attribute": "color",
    "adversarial": "absent",
    "comparison": "same",
    "counting": "count",
    "relation": "cell",
    "environment": "setting",
    "holistic": "description",
    "other": "presence",
}


def make_benchmarks(
    folder: Path, *, sizes: Mapping[str, int] | None = None, seed: int = 1234, split: str = "test"
) -> None:
    """Write all four benchmarks below a folder.

    Args:
        folder: gets `vlind`, `object_halbench`, `amber` and `mmhal`.
        sizes: how many instances; a missing name has the size in `napo.config.benchmarks`.
        seed: of the scenes.
        split: "test" or "validation".
    """
    makers = {
        "vlind": make_vlind,
        "object_halbench": make_object_halbench,
        "amber": make_amber,
        "mmhal": make_mmhal,
    }
    for number, (name, make) in enumerate(makers.items()):
        counts = {key: (sizes or {}).get(key, n) for key, n in BENCHMARKS[name].sizes.items()}
        make_folder(folder / name)
        rng = np.random.default_rng([seed, 77, SPLITS.index(split), number])
        count = make(folder / name, rng, *counts.values())
        write_json(folder / name / "benchmark.json", {"edition": "icon-world", "count": count})


def untypical(rng: np.random.Generator) -> Scene:
    """A scene of two or three things, most of them in a wrong colour or place."""
    return scenes.sample(rng, p_typical=0.4, p_belongs=0.4, count=int(rng.integers(2, 4)))


def jpeg(scene: Scene, rng: np.random.Generator) -> bytes:
    """A picture of a scene, as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    scenes.draw(scene, rng).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def write(path: Path, content: bytes, flush: bool = True) -> None:
    """Write a file in one piece."""
    with atomic_file(path, flush=flush) as temporary:
        temporary.write_bytes(content)


def make_vlind(folder: Path, rng: np.random.Generator, count: int) -> int:
    """VLind-Bench: a counterfactual context, a factual context, and what is true in each."""
    instances = []
    for number in range(count):
        concept = "color" if rng.random() < 0.6 else "location"
        fields, draw = color_instance(rng) if concept == "color" else location_instance(rng)
        good = 1 if rng.random() < 0.9 else 2
        instances.append(
            {
                "global_id": number,
                "context_id": number,
                "concept": concept,
                **fields,
                "best_img_id": 0,
                "aggregated_human_label_good_images": {str(i): 3 - i for i in range(good)},
            }
        )
        path = folder / "images/factual" / concept / f"{number}_{fields['factual_context']}"
        write(path / "0.jpg", jpeg(draw(False), rng), flush=False)
        path = folder / "images/counterfactual" / concept / f"{number}_{fields['context']}"
        for image in range(good):
            write(path / f"{image}.jpg", jpeg(draw(True), rng), flush=False)
    write_json(folder / "data.json", instances)
    return count


Instance = tuple[dict[str, str], Callable[[bool], Scene]]


def color_instance(rng: np.random.Generator) -> Instance:
    """Fields of an instance about a colour, and a function that samples its (odd) scenes."""
    kind = pick(rng, tuple(KINDS))
    usual = KINDS[kind].color
    odd = other_color(rng, usual)
    absent = pick(rng, [other for other in KINDS if other != kind])

    def draw(counterfactual: bool) -> Scene:
        scene = scenes.sample(rng, p_typical=0.9)
        others = [thing for thing in scene.things if thing.kind not in (kind, absent)][:2]
        free = [cell for cell in range(4) if cell not in {thing.cell for thing in others}]
        things = [*others, Thing(kind, odd if counterfactual else usual, pick(rng, free))]
        return Scene(KINDS[kind].place, tuple(sorted(things, key=lambda thing: thing.cell)))

    fields = {
        "context": color_context(kind, odd),
        "factual_context": color_context(kind, usual),
        "true_statement": color_statement(kind, odd),
        "false_statement": color_statement(kind, usual),
        "existent_noun": a(kind),
        "non-existent_noun": a(absent),
    }
    return fields, draw


def location_instance(rng: np.random.Generator) -> Instance:
    """Fields of an instance about a place, and a function that samples its (odd) scenes."""
    beside = pick(rng, tuple(KINDS))
    odd = pick(rng, companions(beside, False))
    usual = pick(rng, companions(beside, True))
    place = KINDS[beside].place

    def draw(counterfactual: bool) -> Scene:
        kinds = [beside, odd if counterfactual else usual]
        if rng.random() < 0.5:
            kinds.append(pick(rng, [k for k in MEMBERS[place] if k not in (beside, odd, usual)]))
        cells = rng.permutation(4)[: len(kinds)].tolist()
        things = [Thing(k, KINDS[k].color, cell) for k, cell in zip(kinds, cells, strict=True)]
        return Scene(place, tuple(sorted(things, key=lambda thing: thing.cell)))

    fields = {
        "context": pair_context(odd, beside),
        "factual_context": pair_context(usual, beside),
        "true_statement": pair_statement(odd, beside),
        "false_statement": pair_statement(usual, beside),
        "existent_noun": a(odd),
        "non-existent_noun": a(usual),
    }
    return fields, draw


def make_object_halbench(folder: Path, rng: np.random.Generator, count: int) -> int:
    """Object HalBench: descriptions of untypical scenes, with COCO-style annotations."""
    category_of = {kind: number for number, kind in enumerate(KINDS, 1)}
    lines, instances, captions = [], [], []
    requests = questions.TEMPLATES["description"]
    for number in range(1, count + 1):
        scene = untypical(rng)
        image = base64.b64encode(jpeg(scene, rng)).decode()
        question = requests[number % len(requests)]
        line = {"org_idx": number - 1, "image_id": number, "question": question, "image": image}
        lines.append(json.dumps(line))
        for thing in scene.things:
            category, box = category_of[thing.kind], len(instances) + 1
            instances.append({"image_id": number, "category_id": category, "id": box})
        captions.append({"image_id": number, "id": number, "caption": describe(scene)})
    names = [", ".join((kind, *SYNONYMS.get(kind, ()))) for kind in KINDS]
    for name, texts in (("questions.jsonl", lines), ("synonyms.txt", names)):
        write(folder / name, "".join(f"{text}\n" for text in texts).encode())
    images = [{"id": number} for number in range(1, count + 1)]
    categories = [{"id": number, "name": kind} for kind, number in category_of.items()]
    content = {"images": images, "annotations": instances, "categories": categories}
    write_json(folder / "annotations/instances_val2014.json", content)
    content = {"images": images, "annotations": captions}
    write_json(folder / "annotations/captions_val2014.json", content)
    return count


def make_amber(
    folder: Path, rng: np.random.Generator, generative: int, discriminative: int
) -> dict[str, int]:
    """AMBER: descriptions, with the things that a place suggests, and yes-or-no questions.

    The answer to an existence question is always "no", as in AMBER.
    """
    annotations, descriptions, checks, drawn = [], [], [], []
    for number in range(1, generative + 1):
        scene, image = untypical(rng), f"AMBER_{number}.jpg"
        drawn.append(scene)
        write(folder / "image" / image, jpeg(scene, rng), flush=False)
        truth = [thing.kind for thing in scene.things]
        hallu = [kind for kind in MEMBERS[scene.setting] if kind not in truth]
        annotations.append({"id": number, "type": "generative", "truth": truth, "hallu": hallu})
        descriptions.append({"id": number, "image": image, "query": "Describe this image."})
    for number in range(generative + 1, generative + discriminative + 1):
        index = int(rng.integers(generative))
        fact = pick(rng, questions.CHECKS)
        question = questions.check(
            rng, drawn[index], fact, want=False if fact == "existence" else None
        )
        true = question.about["truth"]
        # AMBER calls the relations that do not hold just "relation".
        kind = "relation" if fact == "relation" and not true else AMBER_TYPES[fact]
        annotations.append({"id": number, "type": kind, "truth": "yes" if true else "no"})
        checks.append({"id": number, "image": f"AMBER_{index + 1}.jpg", "query": question.text})
    write_json(folder / "annotations.json", annotations)
    write_json(folder / "relation.json", {kind: SYNONYMS.get(kind, ()) for kind in KINDS})
    write(folder / "safe_words.txt", b"object\n")
    write_json(folder / "query_generative.json", descriptions)
    write_json(folder / "query_discriminative.json", checks)
    return {"generative": generative, "discriminative": discriminative}


def make_mmhal(folder: Path, rng: np.random.Generator, count: int) -> int:
    """MMHal-Bench: eight types of question in turn, with the scene for the rule judge."""
    items = []
    for number in range(count):
        kind = list(MMHAL_TYPES)[number % 8]
        scene, name = untypical(rng), f"icon{number:04d}"
        question = questions.ask(rng, scene, MMHAL_TYPES[kind])
        write(folder / "images" / f"{name}.jpg", jpeg(scene, rng), flush=False)
        items.append(
            {
                "question_type": kind,
                "question_topic": scene.setting,
                "image_id": name,
                "image_src": f"images/{name}.jpg",
                "image_content": [thing.kind for thing in scene.things],
                "question": question.text,
                "gt_answer": question.answer,
                "model_answer": "",
                "scene": scene.to_json(),
                "truth": question.to_dict(),
            }
        )
    write_json(folder / "response_template.json", items)
    return count
