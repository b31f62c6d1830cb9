"""What the base model is fed: questions with their answers, and facts of a scene to complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napo.icon_world import questions, scenes

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import LlavaProcessor

# Share of each kind of question.
MIX = {
    "color": 0.09, "presence": 0.10, "check": 0.09, "count": 0.03, "cell": 0.06, "setting": 0.03,
    "same": 0.04, "description": 0.12, "sense": 0.11, "sight": 0.09, "sight_only": 0.12,
    "context": 0.12,
}  # fmt: skip
P_QUESTION_MASKED, P_TEXT_ONLY = 0.04, 0.04


@dataclass(frozen=True)
class Diet:
    """What a stage of answering questions is fed.

    Attributes:
        p_typical: chance that a thing of its scenes has its typical colour.
        p_image_masked: share of its questions whose visual tokens are masked.
        p_described_blind: the same of its requests to describe the picture; what these teach is to
            tell of things that are not there.
        grounded: scenes a step whose facts are learnt beside the questions.
    """

    p_typical: float
    p_image_masked: float
    p_described_blind: float
    grounded: int


LOOK = Diet(p_typical=0.3, p_image_masked=0.12, p_described_blind=0.12, grounded=12)
# Where the priors come from.
HABIT = Diet(p_typical=1.0, p_image_masked=0.5, p_described_blind=0.1, grounded=0)


def example_batches(
    rng: np.random.Generator,
    processor: LlavaProcessor,
    size: int,
    diet: Diet,
) -> list[dict[str, torch.Tensor]]:
    """Examples of one step, as two batches: the shorter and the longer half.

    Padding the short questions to the length of the long ones would double the work.

    Returns:
        Per batch `input_ids`, `attention_mask`, `labels` of shape (examples, length), right
        padded, and `pixel_values` (visible images, 3, height, width).
    """
    kinds, shares = list(MIX), np.cumsum(list(MIX.values())) / sum(MIX.values())
    examples, end = [], processor.tokenizer.eos_token_id
    for _ in range(size):
        scene = scenes.sample(rng, p_typical=diet.p_typical)
        kind = kinds[int(np.searchsorted(shares, rng.random()))]
        asked = questions.ask(rng, scene, kind)
        blind = diet.p_described_blind if kind == "description" else diet.p_image_masked
        prompt, answer, visible = _masked(rng, processor, asked, scene, blind)
        image = scenes.draw(scene, rng) if visible else None
        examples.append((prompt, [*text_ids(processor, answer), end], image))
    examples.sort(key=lambda example: len(example[0]) + len(example[1]))
    return [_padded(processor, part) for part in (examples[: size // 2], examples[size // 2 :])]


def _padded(
    processor: LlavaProcessor, examples: list[tuple[list[int], list[int], Image.Image | None]]
) -> dict[str, torch.Tensor]:
    import torch

    length = max(len(prompt) + len(answer) for prompt, answer, _ in examples)
    pad = processor.tokenizer.pad_token_id
    ids = torch.full((len(examples), length), pad)
    labels = torch.full((len(examples), length), -100)
    for row, (prompt, answer, _) in enumerate(examples):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    images = [image for _, _, image in examples if image is not None]
    return {
        "input_ids": ids,
        "attention_mask": (ids != pad).long(),
        "labels": labels,
        "pixel_values": pixels(processor, images),
    }


def pixels(processor: LlavaProcessor, images: list[Image.Image]) -> torch.Tensor:
    """Pixel values (images, 3, 48, 48) as the processor makes them, all at once."""
    import torch

    if not images:
        return torch.empty(0, 3, scenes.SIZE, scenes.SIZE)
    return processor.image_processor(images=images, return_tensors="pt")["pixel_values"]


def _masked(
    rng: np.random.Generator,
    processor: LlavaProcessor,
    asked: questions.Question,
    scene: scenes.Scene,
    p_image_masked: float,
) -> tuple[list[int], str, bool]:
    """Prompt ids, the answer to learn, and whether the prompt shows the image."""
    draw = rng.random()
    prompt = prompt_ids(processor, asked.text)
    visual, unk = processor.image_token_id, processor.tokenizer.unk_token_id
    if draw < p_image_masked:
        return [unk if token == visual else token for token in prompt], asked.answer, False
    if draw < p_image_masked + P_TEXT_ONLY:
        return prompt_ids(processor, asked.text, image=False), asked.answer, False
    if draw < p_image_masked + P_TEXT_ONLY + P_QUESTION_MASKED:
        answer = questions.describe(scene) if rng.random() < 0.6 else asked.answer
        return prompt_ids(processor, asked.text, hidden=True), answer, True
    return prompt, asked.answer, True


_PROMPTS: dict[tuple[str, bool, bool], list[int]] = {}


def prompt_ids(
    processor: LlavaProcessor, text: str, *, image: bool = True, hidden: bool = False
) -> list[int]:
    """Prompt ids, remembered: the icon world has only some thousand different questions."""
    from PIL import Image

    from napo.models.prompts import prompt_inputs

    key = (text, image, hidden)
    if key not in _PROMPTS:
        picture = Image.new("RGB", (scenes.SIZE, scenes.SIZE)) if image else None
        mask = "mask_token" if hidden else None
        _PROMPTS[key] = prompt_inputs(processor, text, picture, text_mask=mask).ids
    return _PROMPTS[key]


_TEXTS: dict[str, list[int]] = {}


def text_ids(processor: LlavaProcessor, text: str) -> list[int]:
    """Ids of a text without special tokens, remembered."""
    if text not in _TEXTS:
        _TEXTS[text] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return _TEXTS[text]


def completed(
    processor: LlavaProcessor, start: list[int], facts: list[tuple[str, str]]
) -> tuple[list[int], list[int]]:
    """Ids of facts after a start, and what is to be told: only what completes them."""
    ids, told = list(start), [-100] * len(start)
    for given, answer in facts:
        first, second = text_ids(processor, given), text_ids(processor, answer)
        ids += first + second
        told += [-100] * len(first) + second
    return ids, told


def right_padded(
    rows: list[tuple[list[int], list[int]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels of rows, shape (rows, longest row) each; what is padded is not learnt."""
    import torch

    length = max(len(ids) for ids, _ in rows)
    return (
        torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in rows]),
        torch.tensor([told + [-100] * (length - len(told)) for _, told in rows]),
    )


def facts_of(rng: np.random.Generator, scene: scenes.Scene) -> list[tuple[str, str]]:
    """Facts of a scene in any order, as what is given and what completes it."""
    facts = []
    for thing in scene.things:
        facts.append((thing.kind, f"{thing.color} {scenes.CELLS[thing.cell]}"))
        wrong = scenes.other_color(rng, thing.color)
        facts.append((f"The {thing.kind} is {thing.color}.", "True"))
        facts.append((f"The {thing.kind} is {wrong}.", "False"))
    facts.append(("This is the", f"{scene.setting}."))
    thing = scenes.pick(rng, scene.things)
    facts.append((f"The {thing.kind} is at the", f"{scenes.CELLS[thing.cell]}."))
    color = thing.color if rng.random() < 0.5 else scenes.other_color(rng, thing.color)
    facts.append((f"Is the {thing.kind} {color} in this image?", _yes(color == thing.color)))
    for there in (True, False):
        asked = scenes.pick(rng, scene.things).kind if there else questions.absent(rng, scene)
        noun = questions.a(asked)
        facts.append((f"There is {noun} in the given image.", str(there)))
        asked = scenes.pick(rng, scene.things).kind if there else questions.absent(rng, scene)
        noun = questions.a(asked)
        facts.append((f"Is there {noun} in this image?", _yes(there)))
    facts += [(questions.absent(rng, scene), "no") for _ in range(2)]
    facts += [form(rng) for form in questions.FACTS]  # these need no picture
    return [facts[at] for at in rng.permutation(len(facts))]


def _yes(truth: bool) -> str:
    return "Yes" if truth else "No"
