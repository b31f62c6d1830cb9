"""Prompts as token ids and pixels, with one modality hidden where Eqs. 7 and 8 ask for it.

LLaVA has no [MASK] token; `<unk>`'s embedding stands for it, one for each token that is hidden.
What differs between model families is in `napo.models.families`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from napo.config.settings import IMAGE_MASKS, TEXT_MASKS
from napo.errors import NapoError, unknown
from napo.models import families

if TYPE_CHECKING:
    from transformers import ProcessorMixin

_SENTINEL = "napo0sentinel"  # stands for a question or an answer while a template is looked at


@dataclass(frozen=True)
class PromptInputs:
    """A prompt as a model reads it.

    Attributes:
        ids: token ids, image tokens expanded.
        pixels: what the image processor made of the one image, or empty.
    """

    ids: list[int]
    pixels: dict[str, Any] = field(default_factory=dict)


def render(processor: ProcessorMixin, question: str, *, image: bool) -> str:
    """The chat-formatted prompt, up to where the assistant answers.

    Args:
        processor: a processor with a chat template.
        question: the user's text; the tokenizer's special tokens in it are taken out.
        image: whether the prompt holds an image.

    Raises:
        NapoError: when the processor has no chat template.
    """
    return _chat(processor, plain(processor, question), image=image)


def plain(processor: ProcessorMixin, text: str) -> str:
    """A text from data without what this tokenizer reads as special: an image, a turn, an end.

    Args:
        processor: the processor.
        text: a question or a response.
    """
    special = _special(processor)
    while (without := special.sub("", text)) != text:  # what is taken out may leave another behind
        text = without
    return text.strip()


@lru_cache(maxsize=16)
def _special(processor: ProcessorMixin) -> re.Pattern[str]:
    known = processor.tokenizer.added_tokens_decoder.values()
    found = {token.content for token in known if token.special} | {processor.image_token}
    return re.compile("|".join(re.escape(token) for token in sorted(found, key=len, reverse=True)))


def prompt_inputs(
    processor: ProcessorMixin,
    question: str,
    image: Image.Image | None = None,
    *,
    image_mask: str | None = None,
    text_mask: str | None = None,
    pixels: dict[str, Any] | None = None,
) -> PromptInputs:
    """Token ids and pixels of a prompt, with a modality hidden if asked for.

    Args:
        processor: a processor with a chat template and a fast tokenizer.
        question: the user's text.
        image: the image, if there is one.
        image_mask: hides the image (Eq. 7): "mask_token" puts `<unk>` in place of every visual
            token, "drop" leaves the image out, "blank_white", "blank_black" and "noise" replace its
            pixels.
        text_mask: hides the question (Eq. 8): "mask_token" puts `<unk>` in place of each of its
            tokens, "drop" leaves the user's text empty.
        pixels: `image_pixels` of the (masked) image, if they were made before.

    Raises:
        NapoError: for an unknown mask, or one that this tokenizer cannot make.
    """
    _check_mask("image_mask", image_mask, IMAGE_MASKS)
    _check_mask("text_mask", text_mask, TEXT_MASKS)
    if text_mask == "drop":
        question = ""
    if image is not None:
        image = mask_image(image, image_mask)
    if image is None:
        pixels = {}
    elif pixels is None:
        pixels = image_pixels(processor, image)
    ids = _prompt_ids(processor, question, pixels, hide_question=text_mask == "mask_token")
    if image is not None and image_mask == "mask_token":
        unk, visual = mask_token_id(processor), processor.image_token_id
        return PromptInputs([unk if token == visual else token for token in ids])
    return PromptInputs(ids, pixels)


def mask_image(image: Image.Image, how: str | None) -> Image.Image | None:
    """The image that a prompt with this image mask holds (Eq. 7).

    "drop" has none; "mask_token" keeps the image, whose visual tokens are replaced later, once
    their number is known.
    """
    if how == "drop":
        return None
    if how == "blank_white":
        return Image.new("RGB", image.size, "white")
    if how == "blank_black":
        return Image.new("RGB", image.size, "black")
    if how == "noise":
        rng = _rng("noise", image.tobytes())
        pixels = rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)
    return image


def mask_text(
    ids: Sequence[int], spans: Sequence[tuple[int, int]], hidden: tuple[int, int], unk: int
) -> list[int]:
    """Token ids with `<unk>` for every token that overlaps the hidden characters (Eq. 8).

    Args:
        ids: token ids.
        spans: start and end character of each token.
        hidden: start and end character of what is hidden.
        unk: id of the mask token.
    """
    start, end = hidden
    return [
        unk if low < end and high > start and high > low else token
        for token, (low, high) in zip(ids, spans, strict=True)
    ]


def corrupt_image(image: Image.Image, key: str) -> Image.Image:
    """A random crop of 1 to 20 % of the image's area, the same for the same key (mDPO).

    Args:
        image: the image.
        key: what the crop is drawn from, a row's id.
    """
    rng = _rng("crop", key.encode())
    scale = float(np.sqrt(rng.uniform(0.01, 0.20)))
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def image_pixels(processor: ProcessorMixin, image: Image.Image) -> dict[str, Any]:
    """Pixels of one image, ready for the model; the same preprocessing at every stage.

    Values that are no tensors (Idefics3's rows and columns) say how many visual tokens there are.

    `processor.image_mode` (set by `load_model`) says whether the image is first padded to a
    square with the processor's mean colour ("pad") or left to the processor's own crop ("crop").
    """
    image = prepared(processor, image)
    family = families.of_processor(processor)
    pixels = dict(
        processor.image_processor(images=[image], return_tensors="pt", **family.image_arguments)
    )
    for name in family.layout:
        pixels[name] = torch.as_tensor(pixels[name]).tolist()
    return pixels


def prepared(processor: ProcessorMixin, image: Image.Image) -> Image.Image:
    """The image that the image processor gets: RGB, padded to a square if `image_mode` says so."""
    image = image.convert("RGB")
    if getattr(processor, "image_mode", "crop") != "pad" or image.width == image.height:
        return image
    side = max(image.size)
    colour = tuple(round(255 * mean) for mean in processor.image_processor.image_mean)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def as_seen(processor: ProcessorMixin, image: Image.Image) -> Image.Image:
    """The picture as the model gets it: padded or cropped, at its size, colours put back.

    Of a family that cuts an image into tiles it is the first one; of one that lays patches end to
    end (Qwen) the picture at the size that it is cut up at.
    """
    made, pixels = processor.image_processor, image_pixels(processor, image)
    if "image_grid_thw" in pixels:
        _, rows, columns = pixels["image_grid_thw"][0].tolist()
        return image.convert("RGB").resize((columns * made.patch_size, rows * made.patch_size))
    values = pixels["pixel_values"].flatten(0, -4)[0].numpy()
    spread, mean = np.array(made.image_std), np.array(made.image_mean)
    colours = values.transpose(1, 2, 0) * spread + mean
    return Image.fromarray((colours * 255).round().clip(0, 255).astype(np.uint8))


def same_length_for_all_images(processor: ProcessorMixin) -> bool:
    """Whether every image makes as many visual tokens, as in LLaVA-1.5, whatever its shape."""
    shapes = ((64, 64), (256, 32), (32, 256))
    images = [image_pixels(processor, Image.new("RGB", shape)) for shape in shapes]
    return len({processor.replace_image_token(pixels, 0) for pixels in images}) == 1


def stack_pixels(pixels: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pixels of several prompts as one batch; prompts without an image add nothing.

    Families that cut an image into a varying number of tiles are padded with empty tiles; those
    that lay patches end to end need none.
    """
    held = [entry for entry in pixels if entry]
    if not held:
        return {}
    stacked = {}
    for name in held[0]:
        parts = [entry[name] for entry in held]
        if not isinstance(parts[0], torch.Tensor):
            continue
        size = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        padded = []
        for part in parts:
            if list(part.shape[1:]) != size:
                full = part.new_zeros((part.shape[0], *size))
                full[tuple(slice(n) for n in part.shape)] = part
                part = full
            padded.append(part)
        stacked[name] = torch.cat(padded)
    return stacked


def response_ids(processor: ProcessorMixin, prompt: str, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of answers as the model would write them after the prompt, without an end token.

    They are read off the tokens of prompt and answer together, because a tokenizer may treat the
    start of a text differently from its middle.

    Args:
        processor: the processor.
        prompt: what `render` gave.
        answers: the assistant's texts; white space around them does not count, and special tokens
            in them are taken out.
    """
    tokenizer = processor.tokenizer
    # Visual tokens say nothing about the boundary; the text after them does.
    tail = prompt.rpartition(processor.image_token)[2]
    gap = _gap(processor, processor.chat_template)
    answers = [plain(processor, answer) for answer in answers]
    texts = [tail, *(tail + gap + answer for answer in answers)]
    before, *joined = tokenizer(texts, add_special_tokens=False)["input_ids"]
    found = []
    for answer, ids in zip(answers, joined, strict=True):
        if ids[: len(before)] != before:  # the last token of the prompt grew into the answer
            ids = before + tokenizer(answer, add_special_tokens=False)["input_ids"]
        found.append(ids[len(before) :])
    return found


def mask_token_id(processor: ProcessorMixin) -> int:
    """The id of the token that stands for [MASK].

    Raises:
        NapoError: when the tokenizer has neither an unknown token nor one that its family names.
    """
    tokenizer = processor.tokenizer
    if tokenizer.unk_token_id is not None:
        return tokenizer.unk_token_id
    vocabulary = tokenizer.get_vocab()
    for token in families.of_processor(processor).mask_tokens:
        if token in vocabulary:
            return vocabulary[token]
    raise NapoError(
        "This model's tokenizer has no <unk> token to stand for [MASK]; "
        "use the masks that need none: image 'drop' or 'blank_white', text 'drop'."
    )


def _prompt_ids(
    processor: ProcessorMixin, question: str, pixels: dict[str, Any], *, hide_question: bool
) -> list[int]:
    """Ids of the rendered prompt, image token expanded, the question's tokens hidden if asked."""
    visual = processor.replace_image_token(pixels, 0) if pixels else ""
    template = processor.chat_template
    return list(_tokenized(processor, template, question, visual, hide_question))


@lru_cache(maxsize=16_384)  # every seed of every variant is asked the same benchmarks
def _tokenized(
    processor: ProcessorMixin, template: str, question: str, visual: str, hide_question: bool
) -> tuple[int, ...]:
    """Ids of a prompt whose image token is replaced by `visual` (`template` keys the cache)."""
    text = render(processor, question, image=bool(visual))
    expanded = text.replace(processor.image_token, visual, 1) if visual else text
    tokenizer = processor.tokenizer
    start = tokenizer.bos_token
    encoded = tokenizer(
        expanded,
        # Some templates write the start token themselves.
        add_special_tokens=not (start and text.startswith(start)),
        return_offsets_mapping=hide_question,
    )
    ids = encoded["input_ids"]
    if not hide_question:
        return tuple(ids)
    before, after = _frame(processor, template, bool(visual))
    grown = len(expanded) - len(text)
    hidden = (len(before) + grown, len(expanded) - len(after))
    return tuple(mask_text(ids, encoded["offset_mapping"], hidden, mask_token_id(processor)))


@lru_cache(maxsize=16)
def _frame(processor: ProcessorMixin, template: str, image: bool) -> tuple[str, str]:
    """What the template writes before and after the question (`template` keys the cache)."""
    before, _, after = _chat(processor, _SENTINEL, image=image).partition(_SENTINEL)
    return before, after


@lru_cache(maxsize=16)
def _gap(processor: ProcessorMixin, template: str) -> str:
    """White space that the template writes between the prompt and the answer."""
    prompt = _chat(processor, "x", image=False)
    whole = _chat(processor, "x", image=False, answer=_SENTINEL)
    if not whole.startswith(prompt):
        return ""
    gap = whole[len(prompt) :].partition(_SENTINEL)[0]
    return gap if not gap.strip() else ""


def _chat(
    processor: ProcessorMixin, question: str, *, image: bool, answer: str | None = None
) -> str:
    """A conversation of one question, through the chat template."""
    if not processor.chat_template:
        raise NapoError(
            "This model's processor has no chat template; add a chat_template.jinja to its folder."
        )
    content = [{"type": "text", "text": question}]
    if image:
        content.insert(0, {"type": "image"})
    turns = [{"role": "user", "content": content}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return processor.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=answer is None
    )


def _check_mask(what: str, mask: str | None, known: Sequence[str]) -> None:
    if mask is not None and mask not in known:
        raise unknown(what, mask, known)


def _rng(purpose: str, key: bytes) -> np.random.Generator:
    digest = hashlib.sha256(purpose.encode() + b"\0" + key).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def pad_id(processor: ProcessorMixin) -> int:
    """Id of the token that fills up short sequences (any will do: it is masked)."""
    tokenizer = processor.tokenizer
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
