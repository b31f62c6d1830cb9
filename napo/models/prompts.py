"""Prompts as token ids and pixels, with one modality hidden (Eqs. 7 and 8).

LLaVA has no [MASK] token: `<unk>`'s embedding replaces each hidden token. Differences between
model families are in `napo.models.families`.
"""

from __future__ import annotations

import hashlib
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
from napo.models.conversation import SENTINEL, plain, render
from napo.workspace.pictures import rgb

if TYPE_CHECKING:
    from transformers import ProcessorMixin

PIXEL_BYTES = 2**27  # of preprocessed images kept for the next seed
_pixels: dict[tuple[Any, ...], dict[str, Any]] = {}  # settings, size and content -> pixels


@dataclass(frozen=True)
class PromptInputs:
    """A prompt as model inputs."""

    ids: list[int]  # with the image token repeated for each visual token
    pixels: dict[str, Any] = field(default_factory=dict)  # of the image; empty without one


def prompt_inputs(
    processor: ProcessorMixin,
    question: str,
    image: Image.Image | None = None,
    *,
    image_mask: str | None = None,
    text_mask: str | None = None,
    pixels: dict[str, Any] | None = None,
) -> PromptInputs:
    """Token ids and pixels of a prompt, with one modality hidden if a mask is set.

    Args:
        processor: a processor with a chat template and a fast tokenizer.
        question: the user's text.
        image: the image, if the prompt has one.
        image_mask: hides the image (Eq. 7): "mask_token" replaces every visual token by `<unk>`,
            "drop" leaves the image out, "blank_white", "blank_black" and "noise" replace its
            pixels.
        text_mask: hides the question (Eq. 8): "mask_token" replaces each of its tokens by `<unk>`,
            "drop" leaves the user's text empty. The system text stays.
        pixels: `image_pixels` of the (masked) image, if already computed.

    Raises:
        NapoError: for an unknown mask, or when the tokenizer has no mask token.
    """
    if image_mask not in (None, *IMAGE_MASKS):
        raise unknown("image_mask", image_mask, IMAGE_MASKS)
    if text_mask not in (None, *TEXT_MASKS):
        raise unknown("text_mask", text_mask, TEXT_MASKS)
    if text_mask == "drop":
        question = ""
    if image is not None:
        image = mask_image(image, image_mask)
    if image is None:
        pixels = {}
    elif pixels is None:
        pixels = image_pixels(processor, image)
    visual = processor.replace_image_token(pixels, 0) if pixels else ""
    hide = text_mask == "mask_token"
    key = processor.chat_template, getattr(processor, "system", "")
    ids = list(_prompt_ids(processor, key, question, visual, hide))
    if image is not None and image_mask == "mask_token":
        mask_id = mask_token_id(processor)
        return PromptInputs([mask_id if t == processor.image_token_id else t for t in ids])
    return PromptInputs(ids, pixels)


@lru_cache(maxsize=16_384)  # every seed of every variant answers the same benchmarks
def _prompt_ids(
    processor: ProcessorMixin, key: tuple[str, str], question: str, visual: str, hide: bool
) -> tuple[int, ...]:
    """Ids of a prompt whose image token is replaced by `visual` (`key` is the cache's only)."""
    text = render(processor, question, image=bool(visual))
    expanded = text.replace(processor.image_token, visual, 1) if visual else text
    tokenizer = processor.tokenizer
    start = tokenizer.bos_token
    encoded = tokenizer(
        expanded,
        # Some templates write the start token themselves.
        add_special_tokens=not (start and text.startswith(start)),
        return_offsets_mapping=hide,
    )
    ids = encoded["input_ids"]
    if hide:
        frame = render(processor, SENTINEL, image=bool(visual))
        before, _, after = frame.partition(SENTINEL)
        first = len(before) + len(expanded) - len(text)
        end = len(expanded) - len(after)
        mask_id = mask_token_id(processor)
        ids = [
            mask_id if low < end and high > first and high > low else token
            for token, (low, high) in zip(ids, encoded["offset_mapping"], strict=True)
        ]
    return tuple(ids)


def mask_image(image: Image.Image, mask: str | None) -> Image.Image | None:
    """The image of a prompt with this image mask (Eq. 7).

    None for "drop". "mask_token" keeps the image here: its visual tokens are replaced later, when
    their number is known.
    """
    if mask == "drop":
        return None
    if mask in ("blank_white", "blank_black"):
        return Image.new("RGB", image.size, mask.removeprefix("blank_"))
    if mask == "noise":
        rng = generator("noise", image.tobytes())
        pixels = rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)
    return image


def corrupt_image(image: Image.Image, key: str) -> Image.Image:
    """A random crop of 1 to 20 % of the image's area (mDPO); the key, a row's id, is its seed."""
    rng = generator("crop", key.encode())
    scale = float(np.sqrt(rng.uniform(0.01, 0.20)))
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def generator(purpose: str, key: bytes) -> np.random.Generator:
    """Random numbers that depend on a purpose and a key, such as a row's id, only."""
    digest = hashlib.sha256(purpose.encode() + b"\0" + key).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def image_pixels(processor: ProcessorMixin, image: Image.Image) -> dict[str, Any]:
    """Model inputs of one image; every stage uses this preprocessing.

    Values that are no tensors (rows and columns of Idefics3) give the number of visual tokens. An
    image is preprocessed once for all seeds, as long as `PIXEL_BYTES` hold all images so far; do
    not change the tensors.
    """
    image = prepared(processor, image)
    family = families.of_processor(processor)
    options = {"return_tensors": "pt", **family.image_arguments}
    # Each seed has a processor of its own, and its settings may be changed: they are compared.
    used = processor.image_processor
    settings = f"{type(used).__name__} {options} {vars(used)}"
    key = settings, image.size, hashlib.sha256(image.tobytes()).digest()
    if key in _pixels:
        return _pixels[key]
    pixels = dict(processor.image_processor(images=[image], **options))
    for name in family.layout:
        pixels[name] = torch.as_tensor(pixels[name]).tolist()
    size = sum(value.nbytes for value in pixels.values() if isinstance(value, torch.Tensor))
    if size * len(_pixels) > PIXEL_BYTES:
        _pixels.clear()
    _pixels[key] = pixels
    return pixels


def prepared(processor: ProcessorMixin, image: Image.Image) -> Image.Image:
    """The image processor's input: RGB, padded to a square in the mean colour for mode "pad".

    `load_processor` sets `processor.image_mode`; "crop" leaves cropping to the image processor.
    """
    image = rgb(image)
    if getattr(processor, "image_mode", "crop") != "pad" or image.width == image.height:
        return image
    side = max(image.size)
    colour = tuple(round(255 * mean) for mean in processor.image_processor.image_mean)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def as_seen(processor: ProcessorMixin, image: Image.Image) -> Image.Image:
    """The image after preprocessing, back in RGB: padded or cropped, and resized.

    For a family with tiles this is the first tile; for Qwen, the resized image.
    """
    settings, pixels = processor.image_processor, image_pixels(processor, image)
    if "image_grid_thw" in pixels:
        _, rows, columns = pixels["image_grid_thw"][0].tolist()
        size = columns * settings.patch_size, rows * settings.patch_size
        return rgb(image).resize(size)
    values = pixels["pixel_values"].flatten(0, -4)[0].numpy()
    std, mean = np.array(settings.image_std), np.array(settings.image_mean)
    colours = values.transpose(1, 2, 0) * std + mean
    return Image.fromarray((colours * 255).round().clip(0, 255).astype(np.uint8))


def same_length_for_all_images(processor: ProcessorMixin) -> bool:
    """Whether every image gives the same number of visual tokens, as in LLaVA-1.5."""
    shapes = ((64, 64), (256, 32), (32, 256))
    images = [image_pixels(processor, Image.new("RGB", shape)) for shape in shapes]
    return len({processor.replace_image_token(pixels, 0) for pixels in images}) == 1


def stack_pixels(pixels: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pixels of several prompts as one batch; prompts without an image add nothing.

    A varying number of tiles is padded with empty tiles.
    """
    images, stacked = [entry for entry in pixels if entry], {}
    for name, first in images[0].items() if images else ():
        if not isinstance(first, torch.Tensor):
            continue
        parts = [entry[name] for entry in images]
        size = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        padded = []
        for part in parts:
            missing = [most - now for most, now in zip(size, part.shape[1:], strict=True)]
            ends = [number for count in reversed(missing) for number in (0, count)]
            padded.append(torch.nn.functional.pad(part, ends))
        stacked[name] = torch.cat(padded)
    return stacked


def response_ids(processor: ProcessorMixin, prompt: str, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of answers as the model would write them after the prompt, without an end token.

    Prompt (output of `render`) and answer are tokenized together, because a tokenizer may treat the
    start of a text differently from its middle. Special tokens and outer white space are removed.
    """
    tokenizer = processor.tokenizer
    # Visual tokens do not change the boundary; only the text after them is needed.
    tail = prompt.rpartition(processor.image_token)[2]
    gap = _gap(processor, processor.chat_template)
    answers = [plain(processor, answer) for answer in answers]
    texts = [tail, *(tail + gap + answer for answer in answers)]
    before, *joined = tokenizer(texts, add_special_tokens=False)["input_ids"]
    responses = []
    for answer, ids in zip(answers, joined, strict=True):
        if ids[: len(before)] != before:  # the prompt's last token merged with the answer
            ids = before + tokenizer(answer, add_special_tokens=False)["input_ids"]
        responses.append(ids[len(before) :])
    return responses


@lru_cache(maxsize=16)
def _gap(processor: ProcessorMixin, template: str) -> str:
    """White space that the template writes between prompt and answer (`template` is a key)."""
    prompt = render(processor, "x", image=False)
    conversation = render(processor, "x", image=False, answer=SENTINEL)
    gap = conversation.removeprefix(prompt).partition(SENTINEL)[0]
    return gap if not gap.strip() else ""


def mask_token_id(processor: ProcessorMixin) -> int:
    """Id of the token used as [MASK].

    Raises:
        NapoError: when the tokenizer has neither `<unk>` nor a mask token of its family's entry.
    """
    tokenizer = processor.tokenizer
    if tokenizer.unk_token_id is not None:
        return tokenizer.unk_token_id
    vocabulary = tokenizer.get_vocab()
    for token in families.of_processor(processor).mask_tokens:
        if token in vocabulary:
            return vocabulary[token]
    raise NapoError(
        "This model's tokenizer has no <unk> token to use as [MASK]; "
        "use masks that need none: image 'drop' or 'blank_white', text 'drop'."
    )


def pad_id(processor: ProcessorMixin) -> int:
    """Id of the token that fills up short sequences (any token will do: it is masked)."""
    tokenizer = processor.tokenizer
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
