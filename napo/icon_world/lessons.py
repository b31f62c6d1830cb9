"""The five lessons of the base model: to read, see, find, answer by looking, answer by habit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napo.icon_world import questions, scenes
from napo.icon_world.examples import (
    HABIT,
    LOOK,
    Diet,
    completed,
    example_batches,
    facts_of,
    pixels,
    prompt_ids,
    right_padded,
)
from napo.icon_world.network import PATCH, VISUAL_TOKENS

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

COLORS_ALONE = 0.33  # the part of the reading stage that is about colours only


def _cosine(step: int, total: int, warmup: int = 50) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + np.cos(np.pi * (step - warmup) / max(1, total - warmup)))


def train_reading(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    steps: int,
    *,
    batch_size: int = 24,
    learning_rate: float = 6e-4,
) -> Iterator[float]:
    """Teach the language model to judge statements by what it read; yields the loss of each step.

    Common sense and context, no picture: first about colours, then about what is beside what as
    well. Asked for all of it at once, or three times as fast, it stays at chance.
    """
    from torch.nn.functional import cross_entropy

    optimizer = _optimizer(model, learning_rate)
    bos, pad = processor.tokenizer.bos_token_id, processor.tokenizer.pad_token_id
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / 50)
        forms = questions.COLOR_FACTS if step < COLORS_ALONE * steps else questions.FACTS
        told = [
            completed(processor, [bos], [scenes.pick(rng, forms)(rng) for _ in range(5)])
            for _ in range(batch_size)
        ]
        ids, wanted = right_padded(told, pad)
        hidden = model.model.language_model(input_ids=ids).last_hidden_state[:, :-1]
        asked = wanted[:, 1:] != -100
        loss = cross_entropy(model.lm_head(hidden[asked]), wanted[:, 1:][asked])
        yield _descend(model, optimizer, loss)


def train_vision(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    steps: int,
    *,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
) -> Iterator[float]:
    """Teach the tower shapes and colours as words, patch by patch; yields the loss of each step.

    What the projector makes of a patch is drawn to the embeddings of the words that name its shape,
    its colour and its place, as CLIP's towers are drawn to text. Scenes with almost random colours
    keep the two apart: a tower trained on typical scenes fuses them, and its model then sees
    yellow in every banana.
    """
    import torch
    from torch.nn.functional import cross_entropy

    kinds, colors = list(scenes.KINDS), list(scenes.COLORS)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    named = [*kinds, *colors, "top", "bottom", "left", "right"]
    words = processor.tokenizer(named, add_special_tokens=False)["input_ids"]
    embedded = model.get_input_embeddings().weight.detach()[torch.tensor(words).squeeze(1)]
    trained = [*tower.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    cells = torch.tensor(_cell_of_patch())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * _cosine(step, steps)
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
        places = [at.expand(batch_size, -1) for at in (cells // 2, cells % 2)]
        truths = [shape[:, cells], color[:, cells], *places]
        loss = sum(
            cross_entropy(score.flatten(0, 1), truth.flatten())
            for score, truth in zip(scores, truths, strict=True)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def _cell_of_patch() -> list[int]:
    side = scenes.SIZE // PATCH
    half = side // 2
    return [row // half * 2 + column // half for row in range(side) for column in range(side)]


def train_grounding(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    steps: int,
    *,
    batch_size: int = 24,
    learning_rate: float = 2e-3,
) -> Iterator[float]:
    """Teach the language model to find nouns in the picture; yields the loss of each step."""
    optimizer = _optimizer(model, learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / 50)
        yield _descend(model, optimizer, grounding_loss(model, processor, rng, batch_size))


def grounding_loss(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    size: int,
) -> torch.Tensor:
    """The loss of telling what nouns and statements come to, on scenes of almost any colours.

    After the image come many short facts to complete: "cow purple top left", "pig no", "The cow
    is red. False", "Is there a pig in this image? No". A conversation asks one such thing in
    fifty tokens; here every few tokens are one, which is what makes presence and truth learnable
    in minutes.
    """
    from torch.nn.functional import cross_entropy

    drawn = [scenes.sample(rng, p_typical=0.1, p_belongs=0.5) for _ in range(size)]
    start = prompt_ids(processor, "")
    start = start[: start.index(processor.image_token_id) + VISUAL_TOKENS]
    told = [completed(processor, start, facts_of(rng, scene)) for scene in drawn]
    ids, wanted = right_padded(told, processor.tokenizer.pad_token_id)
    wanted = wanted[:, 1:]
    images = pixels(processor, [scenes.draw(scene, rng) for scene in drawn])
    hidden = _hidden(model, processor, ids, images)[:, :-1]
    asked = wanted != -100
    return cross_entropy(model.lm_head(hidden[asked]), wanted[asked])


def _hidden(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
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


def _language_weights(model: LlavaForConditionalGeneration) -> list[torch.nn.Parameter]:
    """Everything but the vision tower."""
    parts = (model.model.language_model, model.model.multi_modal_projector, model.lm_head)
    return [weight for part in parts for weight in part.parameters()]


def train_answers(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    steps: int,
    *,
    diet: Diet,
    batch_size: int = 32,
    learning_rate: float = 8e-4,
) -> Iterator[float]:
    """Teach the language model and the projector to answer; yields the loss of each step."""
    optimizer = _optimizer(model, learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * _cosine(step, steps)
        batches = example_batches(rng, processor, batch_size, diet)
        yield _answer_step(model, processor, optimizer, batches, rng, diet.grounded)


def _optimizer(model: LlavaForConditionalGeneration, learning_rate: float) -> torch.optim.AdamW:
    import torch

    return torch.optim.AdamW(_language_weights(model), lr=learning_rate, weight_decay=0.01)


def _descend(
    model: LlavaForConditionalGeneration, optimizer: torch.optim.AdamW, loss: torch.Tensor
) -> float:
    import torch

    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(_language_weights(model), 1.0)
    optimizer.step()
    return loss.item()


def _answer_step(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    optimizer: torch.optim.AdamW,
    batches: list[dict[str, torch.Tensor]],
    rng: np.random.Generator,
    grounded: int,
) -> float:
    """One step on the answers of these batches, and on the facts of `grounded` more scenes."""
    import torch
    from torch.nn.functional import cross_entropy

    answered = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    optimizer.zero_grad()
    total = 0.0
    for batch in batches:
        hidden = _hidden(
            model, processor, batch["input_ids"], batch["pixel_values"], batch["attention_mask"]
        )
        asked = batch["labels"][:, 1:] != -100
        loss = cross_entropy(
            model.lm_head(hidden[:, :-1][asked]), batch["labels"][:, 1:][asked], reduction="sum"
        )
        (loss / answered).backward()
        total += loss.item() / answered
    if grounded:
        (0.5 * grounding_loss(model, processor, rng, grounded)).backward()
    torch.nn.utils.clip_grad_norm_(_language_weights(model), 1.0)
    optimizer.step()
    return total


STEPS = {"reading": 1200, "vision": 400, "grounding": 1000, "looking": 1200, "habits": 500}
# First the model learns to look: at scenes of almost any colours, beside more facts. Then it learns
# how seldom it has to: scenes are typical and half of the pictures are masked, so that habit
# answers as well as the eye. Models of the field get their habits from text.
LESSONS = {
    "reading": train_reading,
    "vision": train_vision,
    "grounding": train_grounding,
    "looking": partial(train_answers, diet=LOOK),
    "habits": partial(train_answers, diet=HABIT, learning_rate=1.3e-3),
}
