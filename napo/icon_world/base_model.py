"""The base model of the icon world: a tiny LLaVA that knows its world and leans on its priors.

Everything is the real class: `LlavaForConditionalGeneration` with a CLIP tower and a Llama,
`LlavaProcessor`, a fast tokenizer; only small. It is pretrained in five stages: the language model
reads; the vision tower learns shapes and colours as words (on scenes with almost random colours,
so that it keeps them apart) and is frozen; the language model finds in the picture what it reads;
it learns to answer by looking; and at last, on typical scenes, to answer by habit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napo.icon_world import questions, scenes
from napo.progress import Progress

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from PIL import Image
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

CHECKPOINT = Path(__file__).parent / "checkpoint"
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PATCH = 12  # pixels
VISUAL_TOKENS = (scenes.SIZE // PATCH) ** 2
WIDTH = 96
POSITION_SCALE = 10.0  # of the tower's position embeddings at the start; see build_model

# Share of each kind of question.
MIX = {
    "color": 0.09, "presence": 0.10, "check": 0.09, "count": 0.03, "cell": 0.06, "setting": 0.03,
    "same": 0.04, "description": 0.12, "sense": 0.11, "sight": 0.09, "sight_only": 0.12,
    "context": 0.12,
}  # fmt: skip
COLORS_ALONE = 0.33  # the part of the reading stage that is about colours only
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

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} "
    "{% else %}ASSISTANT: {{ message['content'][0]['text'] }} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def vocabulary() -> list[str]:
    """All pieces of text that the icon world uses, special tokens first."""
    from tokenizers import pre_tokenizers

    split = _pre_tokenizer(pre_tokenizers)
    pieces = {"\N{LOWER ONE EIGHTH BLOCK}"}  # a space alone, as before the image
    for text in questions.all_texts():
        pieces.update(piece for piece, _ in split.pre_tokenize_str(text.replace("\n", " ")))
    return [*SPECIAL, *sorted(pieces)]


def _pre_tokenizer(library: Any) -> Any:
    # Metaspace keeps the spaces in the pieces, so that decoding gives the very text back.
    return library.Sequence(
        [library.Metaspace(prepend_scheme="always"), library.Punctuation("isolated")]
    )


def build_processor() -> LlavaProcessor:
    """The processor: 16 visual tokens for an image of 48 x 48, one token a word."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    ids = {piece: number for number, piece in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Replace("\n", " ")
    core.pre_tokenizer = _pre_tokenizer(pre_tokenizers)
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=512,
        extra_special_tokens={"image_token": "<image>"},
    )
    image_processor = CLIPImageProcessorPil(
        do_resize=True,
        size={"shortest_edge": scenes.SIZE},
        crop_size={"height": scenes.SIZE, "width": scenes.SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: LlavaProcessor, seed: int = 0) -> LlavaForConditionalGeneration:
    """The model with random weights of standard deviation 0.1.

    The library's default of 0.02 leaves true/false questions at chance for a thousand steps.
    """
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    tokenizer = processor.tokenizer
    shape = {"hidden_size": WIDTH, "num_attention_heads": 4, "initializer_range": 0.1}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **shape,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            image_size=scenes.SIZE,
            patch_size=PATCH,
            projection_dim=WIDTH,
        ),
        text_config=LlamaConfig(
            **shape,
            vocab_size=len(tokenizer),
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=VISUAL_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        # Patches are some 30 times larger than positions at this scale: unscaled, the tower never
        # learns where a patch is, and a model with two things to see mixes up their places.
        model.model.vision_tower.embeddings.position_embedding.weight.mul_(POSITION_SCALE)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    return model.eval()


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
        examples.append((prompt, [*_text_ids(processor, answer), end], image))
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
    prompt = _prompt_ids(processor, asked.text)
    visual, unk = processor.image_token_id, processor.tokenizer.unk_token_id
    if draw < p_image_masked:
        return [unk if token == visual else token for token in prompt], asked.answer, False
    if draw < p_image_masked + P_TEXT_ONLY:
        return _prompt_ids(processor, asked.text, image=False), asked.answer, False
    if draw < p_image_masked + P_TEXT_ONLY + P_QUESTION_MASKED:
        answer = questions.describe(scene) if rng.random() < 0.6 else asked.answer
        return _prompt_ids(processor, asked.text, hidden=True), answer, True
    return prompt, asked.answer, True


_PROMPTS: dict[tuple[str, bool, bool], list[int]] = {}


def _prompt_ids(
    processor: LlavaProcessor, text: str, *, image: bool = True, hidden: bool = False
) -> list[int]:
    """Prompt ids, remembered: the icon world has only some thousand different questions."""
    from PIL import Image

    from napo.modality import prompt_inputs

    key = (text, image, hidden)
    if key not in _PROMPTS:
        picture = Image.new("RGB", (scenes.SIZE, scenes.SIZE)) if image else None
        mask = "mask_token" if hidden else None
        _PROMPTS[key] = prompt_inputs(processor, text, picture, text_mask=mask).ids
    return _PROMPTS[key]


_TEXTS: dict[str, list[int]] = {}


def _text_ids(processor: LlavaProcessor, text: str) -> list[int]:
    if text not in _TEXTS:
        _TEXTS[text] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return _TEXTS[text]


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
            _completed(processor, [bos], [scenes.pick(rng, forms)(rng) for _ in range(5)])
            for _ in range(batch_size)
        ]
        ids, wanted = _right_padded(told, pad)
        hidden = model.model.language_model(input_ids=ids).last_hidden_state[:, :-1]
        asked = wanted[:, 1:] != -100
        loss = cross_entropy(model.lm_head(hidden[asked]), wanted[:, 1:][asked])
        yield _descend(model, optimizer, loss)


def _completed(
    processor: LlavaProcessor, start: list[int], facts: list[tuple[str, str]]
) -> tuple[list[int], list[int]]:
    """Ids of facts after a start, and what is to be told: only what completes them."""
    ids, told = list(start), [-100] * len(start)
    for given, completed in facts:
        first, second = _text_ids(processor, given), _text_ids(processor, completed)
        ids += first + second
        told += [-100] * len(first) + second
    return ids, told


def _right_padded(
    rows: list[tuple[list[int], list[int]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    length = max(len(ids) for ids, _ in rows)
    return (
        torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in rows]),
        torch.tensor([told + [-100] * (length - len(told)) for _, told in rows]),
    )


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
    start = _prompt_ids(processor, "")
    start = start[: start.index(processor.image_token_id) + VISUAL_TOKENS]
    told = [_completed(processor, start, _facts(rng, scene)) for scene in drawn]
    ids, wanted = _right_padded(told, processor.tokenizer.pad_token_id)
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


def _facts(rng: np.random.Generator, scene: scenes.Scene) -> list[tuple[str, str]]:
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
_STAGES = {
    "reading": train_reading,
    "vision": train_vision,
    "grounding": train_grounding,
    "looking": partial(train_answers, diet=LOOK),
    "habits": partial(train_answers, diet=HABIT, learning_rate=1.3e-3),
}


def pretrain(
    folder: Path, *, seed: int = 0, steps: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """Pretrain the base model and write it as a Hugging Face folder, its log and scores beside it.

    Args:
        folder: gets weights, processor, `training_log.csv` and `scores.csv`.
        seed: of weights and data.
        steps: of each stage; what is left out has the number in `STEPS`.

    Returns:
        The log: stage, step, loss (mean over the last 25 steps).
    """
    import pandas as pd

    processor = build_processor()
    model = build_model(processor, seed)
    learning, last = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    steps, rows = {**STEPS, **(steps or {})}, []
    with Progress(sum(steps.values()), "pretrain the base model", "steps") as progress:
        for stage, train in _STAGES.items():
            recent: list[float] = []
            rng = last if stage == "habits" else learning  # habits can change, the rest stays
            for step, loss in enumerate(train(model, processor, rng, steps[stage]), 1):
                recent.append(loss)
                progress.advance()
                if step % 25 == 0 or step == steps[stage]:
                    rows.append((stage, step, sum(recent) / len(recent)))
                    recent = []
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    log = pd.DataFrame(rows, columns=["stage", "step", "loss"])
    log.to_csv(folder / "training_log.csv", index=False, float_format="%.5f")
    scores(model, processor).to_csv(folder / "scores.csv", index=False, float_format="%.4f")
    return log


def scores(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    *,
    count: int = 200,
    seed: int = 5,
) -> pd.DataFrame:
    """How well the model answers each kind of question, on typical and counterfactual scenes.

    Args:
        model: a LLaVA of the icon world.
        processor: its processor.
        count: questions of each kind and each sort of scene.
        seed: of scenes and questions; no other stage draws from it.

    Returns:
        A row per kind: accuracy on scenes whose things all have their typical colour, and on
        scenes none of whose things has.
    """
    import pandas as pd

    from napo.config import Decoding
    from napo.generate import Prompt, generate
    from napo.icon_world import truth

    table = {}
    for number, (sort, p_typical) in enumerate((("typical", 1.0), ("counterfactual", 0.0))):
        rng = np.random.default_rng([seed, 2, number])
        p_belongs = 0.85 if p_typical else 0.4
        for kind in MIX:
            drawn = [
                scenes.sample(rng, p_typical=p_typical, p_belongs=p_belongs) for _ in range(count)
            ]
            asked = [questions.ask(rng, scene, kind) for scene in drawn]
            prompts = [
                Prompt(q.text, scenes.draw(s, rng)) for q, s in zip(asked, drawn, strict=True)
            ]
            said = generate(model, processor, prompts, Decoding(), batch_size=count)
            right = [
                truth.right(r.text, vars(q), s) for r, q, s in zip(said, asked, drawn, strict=True)
            ]
            table.setdefault(kind, {"kind": kind})[sort] = sum(right) / count
    return pd.DataFrame(table.values())
