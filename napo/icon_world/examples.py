"""Examples for the base model: questions with their answers, and facts of a scene to complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from napo.config.settings import Masks
from napo.icon_world import questions, scenes, wordings

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import LlavaProcessor

MIX = {  # share of each kind of question
    "color": 0.09, "presence": 0.10, "check": 0.08, "count": 0.04, "cell": 0.05, "setting": 0.03,
    "same": 0.04, "description": 0.14, "sense": 0.10, "sight": 0.08, "sight_only": 0.12,
    "context": 0.13,
}  # fmt: skip
P_QUESTION_MASKED, P_TEXT_ONLY = 0.04, 0.04
MASKS = Masks()  # the defaults hide a modality as Eqs. 7 and 8 do
NOT_LEARNT = -100  # label of a token that has no loss

Row = tuple[list[int], list[int]]  # ids and labels of a sequence


@dataclass(frozen=True)
class Diet:
    """The examples of a lesson on answering.

    Attributes:
        p_typical: chance that a thing of a scene has its typical colour.
        p_image_masked: share of the questions whose image is masked.
        p_described_blind: the same for requests to describe the picture; these teach the model to
            name things that are not there.
        grounded: scenes in each step whose facts are learnt beside the questions.
        mix: share of each kind of question.
    """

    p_typical: float
    p_image_masked: float
    p_described_blind: float
    grounded: int
    mix: Mapping[str, float]


LOOK = Diet(p_typical=0.3, p_image_masked=0.12, p_described_blind=0.12, grounded=12, mix=MIX)
HABIT = Diet(  # the priors; more about texts, so that the model does not unlearn to follow them
    p_typical=1.0,
    p_image_masked=0.35,
    p_described_blind=0.1,
    grounded=0,
    mix=MIX | {"context": 0.22, "sight": 0.10},
)


def question_batches(
    rng: np.random.Generator, processor: LlavaProcessor, size: int, diet: Diet
) -> list[dict[str, torch.Tensor]]:
    """The questions of one step, as two batches: the shorter half and the longer half.

    One batch would pad the short questions to the length of the long ones and double the work.

    Returns:
        For each batch `input_ids`, `attention_mask`, `labels` of shape (examples, length), right
        padded, and `pixel_values` (visible images, 3, height, width).
    """
    pad, end = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    examples: list[tuple[Row, Image.Image | None]] = []
    for _ in range(size):
        scene = scenes.sample(rng, p_typical=diet.p_typical)
        question = questions.ask(rng, scene, scenes.pick_share(rng, diet.mix))
        prompt, answer, visible = masked(rng, processor, question, scene, diet)
        image = scenes.draw(scene, rng) if visible else None
        learnt = [*text_ids(processor, answer), end]
        examples.append(((prompt + learnt, [NOT_LEARNT] * len(prompt) + learnt), image))
    examples.sort(key=lambda example: len(example[0][0]))
    batches = []
    for part in (examples[: size // 2], examples[size // 2 :]):
        ids, labels = right_padded([row for row, _ in part], pad)
        images = [image for _, image in part if image is not None]
        batches.append(
            {
                "input_ids": ids,
                "attention_mask": (ids != pad).long(),
                "labels": labels,
                "pixel_values": pixels(processor, images),
            }
        )
    return batches


def masked(
    rng: np.random.Generator,
    processor: LlavaProcessor,
    question: questions.Question,
    scene: scenes.Scene,
    diet: Diet,
) -> tuple[list[int], str, bool]:
    """Prompt ids, the answer to learn, and whether the prompt shows the image."""
    blind = diet.p_described_blind if question.kind == "description" else diet.p_image_masked
    draw = rng.random()
    if draw < blind:
        return prompt_ids(processor, question.text, image_mask=MASKS.image), question.answer, False
    if draw < blind + P_TEXT_ONLY:
        return prompt_ids(processor, question.text, image=False), question.answer, False
    if draw < blind + P_TEXT_ONLY + P_QUESTION_MASKED:
        answer = wordings.description(rng, scene) if rng.random() < 0.75 else question.answer
        return prompt_ids(processor, question.text, text_mask=MASKS.text), answer, True
    return prompt_ids(processor, question.text), question.answer, True


def facts_of(rng: np.random.Generator, scene: scenes.Scene) -> list[tuple[str, str]]:
    """Facts of a scene in any order, each as its beginning and its completion."""
    facts = []
    for thing in scene.things:
        cell = scenes.CELLS[thing.cell]
        facts.append((thing.kind, f"{thing.color} {cell}"))
        facts.append((f"At the {cell} there is", f"{wordings.a(f'{thing.color} {thing.kind}')}."))
        wrong = scenes.other_color(rng, thing.color)
        facts.append((wordings.color_statement(thing.kind, thing.color), "True"))
        facts.append((wordings.color_statement(thing.kind, wrong), "False"))
    facts.append(("This is the", f"{scene.setting}."))
    thing = scenes.pick(rng, scene.things)
    facts.append((f"The {thing.kind} is at the", f"{scenes.CELLS[thing.cell]}."))
    color = thing.color if rng.random() < 0.5 else scenes.other_color(rng, thing.color)
    verdict = "Yes" if color == thing.color else "No"
    facts.append((f"Is the {thing.kind} {color} in this image?", verdict))
    for verdicts in (("True", "Yes"), ("False", "No")):
        for form, verdict in zip(
            ("There is {} in the given image.", "Is there {} in this image?"), verdicts, strict=True
        ):
            true = verdict in ("True", "Yes")
            kind = scenes.pick(rng, scene.things).kind if true else scenes.absent(rng, scene)
            facts.append((form.format(wordings.a(kind)), verdict))
    facts += [(scenes.absent(rng, scene), "no") for _ in range(2)]
    facts += [questions.fact(rng, form) for form in questions.FACTS]  # these need no picture
    return [facts[index] for index in rng.permutation(len(facts))]


def completed(processor: LlavaProcessor, start: list[int], facts: list[tuple[str, str]]) -> Row:
    """Ids of facts after a start, and labels: only the completions are learnt."""
    ids, labels = list(start), [NOT_LEARNT] * len(start)
    for beginning, completion in facts:
        first, second = text_ids(processor, beginning), text_ids(processor, completion)
        ids += first + second
        labels += [NOT_LEARNT] * len(first) + second
    return ids, labels


def right_padded(rows: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, shape (rows, longest row) each; padding is not learnt."""
    import torch

    length = max(len(ids) for ids, _ in rows)
    return (
        torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in rows]),
        torch.tensor([labels + [NOT_LEARNT] * (length - len(labels)) for _, labels in rows]),
    )


def pixels(processor: LlavaProcessor, images: list[Image.Image]) -> torch.Tensor:
    """Pixel values (images, 3, 48, 48) as the processor makes them, all at once."""
    import torch

    if not images:
        return torch.empty(0, 3, scenes.SIZE, scenes.SIZE)
    return processor.image_processor(images=images, return_tensors="pt")["pixel_values"]


@cache  # the icon world has only some thousand different questions
def prompt_ids(
    processor: LlavaProcessor,
    text: str,
    *,
    image: bool = True,
    image_mask: str | None = None,
    text_mask: str | None = None,
) -> list[int]:
    """Ids of a prompt, with a modality hidden if a mask is named."""
    from PIL import Image

    from napo.models.prompts import prompt_inputs

    picture = Image.new("RGB", (scenes.SIZE, scenes.SIZE)) if image else None
    return prompt_inputs(processor, text, picture, image_mask=image_mask, text_mask=text_mask).ids


@cache
def text_ids(processor: LlavaProcessor, text: str) -> list[int]:
    """Ids of a text without special tokens."""
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]
