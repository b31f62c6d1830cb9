"""The five lessons of the base model: to read, see, find, answer by looking, answer by habit.

Each lesson trains the model in place and yields the loss of each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napo.icon_world import questions, scenes
from napo.icon_world.examples import (
    HABIT,
    LOOK,
    NOT_LEARNT,
    Diet,
    completed,
    facts_of,
    pixels,
    prompt_ids,
    question_batches,
    right_padded,
)
from napo.icon_world.network import PATCH, VISUAL_TOKENS

if TYPE_CHECKING:
    import torch
    from numpy.random import Generator
    from transformers import LlavaForConditionalGeneration as Model
    from transformers import LlavaProcessor as Processor

COLORS_ALONE = 0.33  # the part of the reading lesson that is about colours only
WARMUP = 50  # steps


def warmup(peak: float, steps: int) -> list[float]:
    """The learning rate of each step: linear growth, then constant."""
    return [peak * min(1, (step + 1) / WARMUP) for step in range(steps)]


def cosine(peak: float, steps: int) -> list[float]:
    """The learning rate of each step: linear growth, then half a cosine down to a tenth."""
    rest = max(1, steps - WARMUP)
    growth = [(step + 1) / WARMUP for step in range(WARMUP)]
    decay = [0.1 + 0.45 * (1 + np.cos(np.pi * step / rest)) for step in range(rest)]
    return [peak * factor for factor in (growth + decay)[:steps]]


def learn(
    weights: list[torch.nn.Parameter],
    rates: Iterable[float],
    backward: Callable[[int], float],
    clip: float = 1.0,
) -> Iterator[float]:
    """Steps of AdamW; yields the loss of each.

    `backward` computes the gradients of a step, given its number, and returns the loss.
    """
    import torch

    optimizer = torch.optim.AdamW(weights, weight_decay=0.01)
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = backward(step)
        torch.nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
        yield loss


def language_weights(model: Model) -> list[torch.nn.Parameter]:
    """Everything but the vision tower."""
    parts = (model.model.language_model, model.model.multi_modal_projector, model.lm_head)
    return [weight for part in parts for weight in part.parameters()]


def completion_losses(model: Model, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the learnt tokens of each row, shape (batch,).

    Args:
        model: gives the output layer.
        hidden: last hidden states (batch, length, width).
        labels: token ids (batch, length).
    """
    from torch.nn.functional import cross_entropy

    hidden, labels = hidden[:, :-1], labels[:, 1:]
    learnt = labels != NOT_LEARNT
    counts = learnt.sum(1)
    losses = cross_entropy(model.lm_head(hidden[learnt]), labels[learnt], reduction="none")
    sums = losses.new_zeros(len(labels)).index_add(0, learnt.nonzero()[:, 0], losses)
    return sums / counts


def hidden_states(
    model: Model,
    processor: Processor,
    ids: torch.Tensor,
    images: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Last hidden states (batch, length, width) of the language model; the tower is not trained."""
    import torch

    embedded = model.get_input_embeddings()(ids)
    if len(images):
        with torch.no_grad():
            features = model.model.vision_tower(images).last_hidden_state[:, 1:]
        where = (ids == processor.image_token_id).unsqueeze(-1).expand_as(embedded)
        embedded = embedded.masked_scatter(where, model.model.multi_modal_projector(features))
    return model.model.language_model(
        inputs_embeds=embedded, attention_mask=attention_mask
    ).last_hidden_state


def train_reading(
    model: Model, processor: Processor, rng: Generator, steps: int
) -> Iterator[float]:
    """Teach the language model to judge statements by what it read.

    Common sense and context, no picture: first about colours, then also about what is beside what.
    With all of it from the start, or at three times the learning rate, it stays at chance.
    """
    bos, pad = processor.tokenizer.bos_token_id, processor.tokenizer.pad_token_id

    def backward(step: int) -> float:
        forms = questions.COLOR_FACTS if step < COLORS_ALONE * steps else questions.FACTS
        rows = []
        for _ in range(24):
            facts = [questions.fact(rng, scenes.pick(rng, forms)) for _ in range(5)]
            rows.append(completed(processor, [bos], facts))
        ids, labels = right_padded(rows, pad)
        hidden = model.model.language_model(input_ids=ids).last_hidden_state
        loss = completion_losses(model, hidden, labels).mean()
        loss.backward()
        return loss.item()

    return learn(language_weights(model), warmup(6e-4, steps), backward)


def train_vision(model: Model, processor: Processor, rng: Generator, steps: int) -> Iterator[float]:
    """Teach the tower shapes and colours as words, patch by patch.

    The projection of a patch is drawn to the embeddings of the words for its shape, its colour and
    its place, as CLIP's towers are drawn to text. Scenes with almost random colours keep the two
    apart: a tower trained on typical scenes fuses them, and its model sees yellow in every banana.
    """
    import torch
    from torch.nn.functional import cross_entropy

    kinds, colors, batch_size = list(scenes.KINDS), list(scenes.COLORS), 64
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    names = [*kinds, *colors, "top", "bottom", "left", "right"]
    words = processor.tokenizer(names, add_special_tokens=False)["input_ids"]
    embedded = model.get_input_embeddings().weight.detach()[torch.tensor(words).squeeze(1)]
    side = scenes.SIZE // PATCH
    cells = torch.tensor(
        [row // (side // 2) * 2 + column // (side // 2)
         for row in range(side) for column in range(side)]
    )  # fmt: skip

    def backward(step: int) -> float:
        drawn = [scenes.sample(rng, p_typical=0.1, p_belongs=0.3) for _ in range(batch_size)]
        shape = torch.zeros(batch_size, len(scenes.CELLS), dtype=torch.long)
        color = torch.zeros(batch_size, len(scenes.CELLS), dtype=torch.long)
        for row, scene in enumerate(drawn):
            for thing in scene.things:
                shape[row, thing.cell] = 1 + kinds.index(thing.kind)
                color[row, thing.cell] = 1 + colors.index(thing.color)
        images = pixels(processor, [scenes.draw(scene, rng) for scene in drawn])
        hidden = projector(tower(images).last_hidden_state[:, 1:])  # (batch, 16, width)
        likeness = 10 * hidden @ embedded.T
        nothing = torch.zeros_like(likeness[..., :1])  # the score of an empty cell
        parts = likeness.split([len(kinds), len(colors), 2, 2], dim=-1)
        scores = [torch.cat([nothing, part], -1) for part in parts[:2]] + list(parts[2:])
        places = [place.expand(batch_size, -1) for place in (cells // 2, cells % 2)]
        truths = [shape[:, cells], color[:, cells], *places]
        loss = sum(
            cross_entropy(score.flatten(0, 1), truth.flatten())
            for score, truth in zip(scores, truths, strict=True)
        )
        loss.backward()
        return loss.item()

    weights = [*tower.parameters(), *projector.parameters()]
    return learn(weights, cosine(2e-3, steps), backward, clip=math.inf)


def train_grounding(
    model: Model, processor: Processor, rng: Generator, steps: int
) -> Iterator[float]:
    """Teach the language model to find nouns in the picture."""

    def backward(step: int) -> float:
        loss = grounding_loss(model, processor, rng, 24)
        loss.backward()
        return loss.item()

    return learn(language_weights(model), warmup(2e-3, steps), backward)


def grounding_loss(model: Model, processor: Processor, rng: Generator, size: int) -> torch.Tensor:
    """The loss of completing facts about the picture, on scenes of almost any colours.

    The image comes first, then many short facts: "cow purple top left", "pig no", "The cow is red.
    False", "Is there a pig in this image? No". A conversation holds one fact in fifty tokens; here
    every few tokens are one, so presence and truth are learnt in minutes.
    """
    drawn = [scenes.sample(rng, p_typical=0.1, p_belongs=0.5) for _ in range(size)]
    start = prompt_ids(processor, "")
    start = start[: start.index(processor.image_token_id) + VISUAL_TOKENS]
    rows = [completed(processor, start, facts_of(rng, scene)) for scene in drawn]
    ids, labels = right_padded(rows, processor.tokenizer.pad_token_id)
    images = pixels(processor, [scenes.draw(scene, rng) for scene in drawn])
    return completion_losses(model, hidden_states(model, processor, ids, images), labels).mean()


def train_answers(
    model: Model,
    processor: Processor,
    rng: Generator,
    steps: int,
    diet: Diet,
    learning_rate: float = 8e-4,
) -> Iterator[float]:
    """Teach the language model and the projector to answer questions, beside facts of scenes.

    Every answer counts alike: a mean over tokens would drown verdicts in the words of descriptions.
    """

    def backward(step: int) -> float:
        total, size = 0.0, 32
        batches = question_batches(rng, processor, size, diet)
        for batch in batches:
            hidden = hidden_states(
                model, processor, batch["input_ids"], batch["pixel_values"], batch["attention_mask"]
            )
            loss = completion_losses(model, hidden, batch["labels"]).sum() / size
            loss.backward()
            total += loss.item()
        if diet.grounded:
            (0.5 * grounding_loss(model, processor, rng, diet.grounded)).backward()
        return total

    return learn(language_weights(model), cosine(learning_rate, steps), backward)


STEPS = {"reading": 1200, "vision": 400, "grounding": 1000, "looking": 1500, "habits": 400}
# First the model learns to look: at scenes of almost any colours, beside more facts. Then it learns
# how seldom it must look: scenes are typical and a third of the pictures are masked, so habit
# answers as well as the eye. Large models get their habits from text.
LESSONS = {
    "reading": train_reading,
    "vision": train_vision,
    "grounding": train_grounding,
    "looking": partial(train_answers, diet=LOOK),
    "habits": partial(train_answers, diet=HABIT, learning_rate=1.3e-3),
}
