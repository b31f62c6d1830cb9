"""The base model of the icon world: a tiny LLaVA that knows its world and leans on its priors.

Everything is the real class: `LlavaForConditionalGeneration` with a CLIP tower and a Llama,
`LlavaProcessor`, a fast tokenizer; only small. It is pretrained in two stages: the vision tower
learns shapes and colours apart (on scenes with almost random colours), then is frozen while the
language model learns to answer, on scenes whose colours are nearly always typical.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
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

# Share of each kind of question in the language stage: first the short ones, then all, with the
# long wordings of VLind-Bench.
SHORT_MIX = {
    "color": 0.28, "presence": 0.28, "check": 0.12, "cell": 0.10, "description": 0.14,
    "count": 0.03, "setting": 0.02, "same": 0.03,
}  # fmt: skip
MIX = {
    "color": 0.13, "presence": 0.14, "check": 0.08, "count": 0.03, "cell": 0.04, "setting": 0.02,
    "same": 0.03, "description": 0.15, "sense": 0.08, "sight": 0.12, "sight_only": 0.11,
    "context": 0.07,
}  # fmt: skip
VERDICT_MIX = {
    "sight_only": 0.22, "sense": 0.17, "context": 0.18, "sight": 0.09, "check": 0.06, "color": 0.08,
    "cell": 0.04, "description": 0.08, "setting": 0.03, "same": 0.02, "count": 0.03,
}  # fmt: skip
LOOKING, GROUNDED = 0.3, 0.75  # until which part of the language stage its first phases go
P_IMAGE_MASKED, P_QUESTION_MASKED, P_TEXT_ONLY = 0.12, 0.04, 0.04
P_TYPICAL = 0.9  # of the scenes that all questions are about: this is where the priors come from

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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    return model.eval()


def example_batches(
    rng: np.random.Generator,
    processor: LlavaProcessor,
    size: int,
    mix: Mapping[str, float],
    p_typical: float,
    *,
    verdict_first: bool = False,
) -> list[dict[str, torch.Tensor]]:
    """Examples of one step of the language stage, as two batches: the shorter and the longer half.

    Padding the short questions to the length of the long ones would double the work.

    Returns:
        Per batch `input_ids`, `attention_mask`, `labels` of shape (examples, length), right
        padded, and `pixel_values` (visible images, 3, height, width).
    """
    kinds, shares = list(mix), np.cumsum(list(mix.values())) / sum(mix.values())
    examples, end = [], processor.tokenizer.eos_token_id
    for _ in range(size):
        scene = scenes.sample(rng, p_typical=p_typical)
        kind = kinds[int(np.searchsorted(shares, rng.random()))]
        asked = questions.ask(rng, scene, kind)
        if verdict_first and asked.verdict_first:
            asked = replace(asked, answer=asked.verdict_first)
        prompt, answer, visible = _masked(rng, processor, asked, scene)
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
    return processor.image_processor(images=images, return_tensors="pt")["pixel_values"]


def _masked(
    rng: np.random.Generator,
    processor: LlavaProcessor,
    asked: questions.Question,
    scene: scenes.Scene,
) -> tuple[list[int], str, bool]:
    """Prompt ids, the answer to learn, and whether the prompt shows the image."""
    draw = rng.random()
    prompt = _prompt_ids(processor, asked.text)
    visual, unk = processor.image_token_id, processor.tokenizer.unk_token_id
    if draw < P_IMAGE_MASKED:
        return [unk if token == visual else token for token in prompt], asked.answer, False
    if draw < P_IMAGE_MASKED + P_TEXT_ONLY:
        return _prompt_ids(processor, asked.text, image=False), asked.answer, False
    if draw < P_IMAGE_MASKED + P_TEXT_ONLY + P_QUESTION_MASKED:
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

    What the projector makes of a patch is drawn to the embeddings of the two words that name its
    shape and its colour, as CLIP's towers are drawn to text. Scenes with almost random colours
    keep the two apart: a tower trained on typical scenes fuses them, and its model then sees
    yellow in every banana.
    """
    import torch
    from torch.nn.functional import cross_entropy

    kinds, colors = list(scenes.KINDS), list(scenes.COLORS)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    words = processor.tokenizer(kinds + colors, add_special_tokens=False)["input_ids"]
    embedded = model.get_input_embeddings().weight.detach()[torch.tensor(words).squeeze(1)]
    trained = [*tower.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    cells = _cell_of_patch()
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
        of_kind, of_color = likeness.split([len(kinds), len(colors)], dim=-1)
        loss = sum(
            cross_entropy(torch.cat([nothing, scores], -1).flatten(0, 1), truth[:, cells].flatten())
            for scores, truth in ((of_kind, shape), (of_color, color))
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
    import torch

    trained = _language_weights(model)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * _cosine(step, steps)
        loss = grounding_loss(model, processor, rng, batch_size)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        yield loss.item()


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
    import torch
    from torch.nn.functional import cross_entropy

    drawn = [scenes.sample(rng, p_typical=0.1, p_belongs=0.5) for _ in range(size)]
    start = _prompt_ids(processor, "")
    start = start[: start.index(processor.image_token_id) + VISUAL_TOKENS]
    rows, targets = [], []
    for scene in drawn:
        row, told = list(start), [-100] * len(start)
        for given, completed in _facts(rng, scene):
            first, second = _text_ids(processor, given), _text_ids(processor, completed)
            row += first + second
            told += [-100] * len(first) + second
        rows.append(row)
        targets.append(told)
    length = max(map(len, rows))
    pad = processor.tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
    wanted = torch.tensor([told + [-100] * (length - len(told)) for told in targets])[:, 1:]
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

    with torch.no_grad():
        features = model.model.vision_tower(images).last_hidden_state[:, 1:]
    embedded = model.get_input_embeddings()(ids)
    where = (ids == processor.image_token_id).unsqueeze(-1).expand_as(embedded)
    embedded = embedded.masked_scatter(where, model.model.multi_modal_projector(features))
    return model.model.language_model(
        inputs_embeds=embedded, attention_mask=attention_mask
    ).last_hidden_state


def _facts(rng: np.random.Generator, scene: scenes.Scene) -> list[tuple[str, str]]:
    """Facts of a scene in any order, as what is given and what completes it."""
    facts = []
    for thing in scene.things:
        cell = scenes.CELLS[thing.cell]
        facts.append((thing.kind, f"{thing.color} {cell}"))
        wrong = scenes.other_color(rng, thing.color)
        color = thing.color if rng.random() < 0.5 else wrong
        facts.append((f"The {thing.kind} is {color}.", str(color == thing.color)))
    for there in (True, False):
        asked = scenes.pick(rng, scene.things).kind if there else questions.absent(rng, scene)
        noun = questions.a(asked)
        facts.append((f"There is {noun} in the given image.", str(there)))
        asked = scenes.pick(rng, scene.things).kind if there else questions.absent(rng, scene)
        noun = questions.a(asked)
        facts.append((f"Is there {noun} in this image?", "Yes" if there else "No"))
    facts += [(questions.absent(rng, scene), "no") for _ in range(2)]
    for form in (questions.sense_fact, questions.context_fact):  # these need no picture
        statement, truth = form(rng)
        facts.append((statement, str(truth)))
    return [facts[at] for at in rng.permutation(len(facts))]


def _language_weights(model: LlavaForConditionalGeneration) -> list[torch.nn.Parameter]:
    """Everything but the vision tower."""
    parts = (model.model.language_model, model.model.multi_modal_projector, model.lm_head)
    return [weight for part in parts for weight in part.parameters()]


def train_language(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    steps: int,
    *,
    batch_size: int = 32,
    learning_rate: float = 1.5e-3,
) -> Iterator[float]:
    """Teach the language model and the projector to answer; yields the loss of each step.

    Three phases: short questions about scenes of almost any colours, beside more grounding, where
    the model learns to look; all questions about typical scenes, still beside grounding; and these
    alone, where it learns how seldom it has to look.
    """
    optimizer = _optimizer(model, learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * _cosine(step, steps)
        mix, p_typical = (SHORT_MIX, 0.3) if step < LOOKING * steps else (MIX, P_TYPICAL)
        batches = example_batches(rng, processor, batch_size, mix, p_typical, verdict_first=True)
        grounded = batch_size // 2 if step < GROUNDED * steps else 0
        yield _answer_step(model, processor, optimizer, batches, rng, grounded)


def train_verdicts(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rng: np.random.Generator,
    steps: int,
    *,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
) -> Iterator[float]:
    """Teach to repeat a statement before the verdict on it; yields the loss of each step.

    Three layers judge a statement where it ends (`grounding_loss`: 97 % right) but do not carry
    the verdict over the rest of VLind-Bench's long questions: asked for it first, as the language
    stage does, the model stays at chance.
    """
    optimizer = _optimizer(model, learning_rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * _cosine(step, steps)
        batches = example_batches(rng, processor, batch_size, VERDICT_MIX, P_TYPICAL)
        grounded = batch_size // 4 if step < LOOKING * steps else 0
        yield _answer_step(model, processor, optimizer, batches, rng, grounded)


def _optimizer(model: LlavaForConditionalGeneration, learning_rate: float) -> torch.optim.AdamW:
    import torch

    return torch.optim.AdamW(_language_weights(model), lr=learning_rate, weight_decay=0.01)


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


STEPS = {"vision": 300, "grounding": 700, "language": 2500, "verdicts": 650}


def pretrain(
    folder: Path,
    *,
    seed: int = 0,
    vision_steps: int = STEPS["vision"],
    grounding_steps: int = STEPS["grounding"],
    language_steps: int = STEPS["language"],
    verdict_steps: int = STEPS["verdicts"],
) -> pd.DataFrame:
    """Pretrain the base model and write it as a Hugging Face folder, its log and scores beside it.

    Args:
        folder: gets weights, processor, `training_log.csv` and `scores.csv`.
        seed: of weights and data.
        vision_steps: steps of the vision stage.
        grounding_steps: steps of the grounding stage.
        language_steps: steps of the language stage.
        verdict_steps: steps of the last stage.

    Returns:
        The log: stage, step, loss (mean over the last 25 steps).
    """
    import pandas as pd

    processor = build_processor()
    model = build_model(processor, seed)
    rng = np.random.default_rng([seed, 0])
    stages = {
        "vision": train_vision(model, processor, rng, vision_steps),
        "grounding": train_grounding(model, processor, rng, grounding_steps),
        "language": train_language(model, processor, rng, language_steps),
        "verdicts": train_verdicts(
            model, processor, np.random.default_rng([seed, 1]), verdict_steps
        ),
    }
    rows = []
    total = vision_steps + grounding_steps + language_steps + verdict_steps
    with Progress(total, "pretrain the base model", "steps") as progress:
        for stage, losses in stages.items():
            recent: list[float] = []
            for step, loss in enumerate(losses, 1):
                recent.append(loss)
                progress.advance()
                if step % 25 == 0 or step == STEPS[stage]:
                    rows.append((stage, step, sum(recent) / len(recent)))
                    recent = []
            model.model.vision_tower.requires_grad_(False)
    model.requires_grad_(True)
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
