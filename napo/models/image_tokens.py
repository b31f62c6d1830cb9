"""A prompt's visual tokens against the vision tower's features: equally many, image by image.

The processor counts the tokens by its own settings, and the model computes the features by those of
its config. transformers compares their sums over a batch, and only inside a whole forward pass.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText
from transformers.initialization import no_init_weights
from transformers.modeling_utils import set_zero3_state

from napo.errors import NapoError, first_line
from napo.models.prompts import image_pixels, prompt_inputs, stack_pixels

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

PROBES = ((64, 64), (512, 64), (64, 512), (900, 900))  # width, height: their tiles differ
# Settings of a processor that must equal those of the model's config.
SETTINGS = {
    "patch_size": "patch_size",
    "merge_size": "spatial_merge_size",
    "vision_feature_select_strategy": "vision_feature_select_strategy",
    "image_grid_pinpoints": "image_grid_pinpoints",
}
LOAD = "load the processor with napo.models.files.load_processor, which names the setting"


def check_image_tokens(config: PreTrainedConfig, processor: ProcessorMixin) -> None:
    """Compare both numbers for images of several shapes, without any weights.

    Raises:
        NapoError: when they differ, naming the setting to correct.
    """
    model, known = _without_weights(config), set()
    if not hasattr(model, "get_image_features"):  # only its forward pass can tell
        return
    for size in PROBES:
        try:
            image = Image.new("RGB", size)
            pixels = image_pixels(processor, image)
            ids = prompt_inputs(processor, "?", image, pixels=pixels).ids
            inputs = stack_pixels([pixels])
            # Shapes and sizes decide the number of features, so one image of a kind is enough.
            sizes = [v.shape if v.is_floating_point() else v for v in inputs.values()]
            kind = str([len(ids), *sizes])
            if kind in known:
                continue
            known.add(kind)
            with torch.inference_mode():
                features = sum(count_features(model.get_image_features(**inputs)))
        except NapoError:
            raise
        except Exception as error:  # a wrong setting raises nearly anything, inside the library
            raise NapoError(
                f"{config.name_or_path}: its processor and its vision tower do not fit "
                f"({type(error).__name__}: {first_line(error, 200)}); "
                f"{_remedy(config, processor)}."
            ) from None
        tokens = ids.count(processor.image_token_id)
        require_equal(model, [tokens], [features], _remedy(config, processor, tokens, features))


def _without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """The model with zeros that take no memory, and the vision layers that features come from."""
    config = copy.deepcopy(config)
    vision = getattr(config, "vision_config", config)
    layers = getattr(config, "vision_feature_layer", -1)
    layers = [layers] if isinstance(layers, int) else layers
    needed = max(1, *(layer if layer >= 0 else -layer - 1 for layer in layers))
    for depth in ("num_hidden_layers", "depth"):
        if hasattr(vision, depth):
            setattr(vision, depth, min(needed, getattr(vision, depth)))
    # Buffers are real: positions are looked up in them. ZeRO-3 would share out the weights.
    with (
        set_zero3_state(),
        torch.random.fork_rng(devices=[]),
        init_empty_weights(include_buffers=False),
        no_init_weights(),
    ):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            zeros = torch.zeros(()).expand(parameter.shape)
            module.register_parameter(name, nn.Parameter(zeros, requires_grad=False))
    return model.float().eval()


def _remedy(
    config: PreTrainedConfig, processor: ProcessorMixin, tokens: int = 0, features: int = 0
) -> str:
    """The setting to correct: one that differs, or else one that makes up the difference."""
    correction = "{} is {} in its processor_config.json, set it to {}"
    vision = getattr(config, "vision_config", config)
    for setting, other in SETTINGS.items():
        expected = getattr(vision, other, getattr(config, other, None))
        for owner in (processor, processor.image_processor):
            value = getattr(owner, setting, expected)
            # As JSON, in which a tuple equals a list.
            if expected is not None and json.dumps(value) != json.dumps(expected):
                return correction.format(setting, value, expected)
    number = getattr(processor, "num_additional_image_tokens", None)
    if number is not None and tokens:
        right = number + features - tokens
        return correction.format("num_additional_image_tokens", number, right)
    length = getattr(processor, "image_seq_len", None)
    if length is not None and tokens and length * features % tokens == 0:
        return correction.format("image_seq_len", length, length * features // tokens)
    return "get the processor's files of this very model"


def count_features(outputs: Any) -> list[int]:
    """The number of features of each image, from a model's `get_image_features`.

    One number for all images if their features are one tensor of shape (features, width).
    """
    parts = getattr(outputs, "pooler_output", outputs)
    parts = [parts] if isinstance(parts, Tensor) and parts.dim() == 2 else parts
    return [part.numel() // part.shape[-1] for part in parts]


def require_equal(
    model: PreTrainedModel, tokens: Sequence[int], features: Sequence[int], remedy: str = LOAD
) -> None:
    """Compare the numbers of tokens and features of a batch, image by image.

    Features that are not listed by image are compared in sum.

    Raises:
        NapoError: when they differ.
    """
    by_image, subject = zip(tokens, features, strict=False), "an image has"
    if len(tokens) != len(features):
        by_image, subject = [(sum(tokens), sum(features))], f"{len(tokens)} images have"
    for number, other in by_image:
        if number != other:
            raise NapoError(
                f"{model.name_or_path or type(model).__name__}: {subject} {number} visual tokens "
                f"in the prompt and {other} features from the vision tower; {remedy}."
            )


@contextmanager
def features_checked(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    beams: int = 1,
    prompts: Tensor | None = None,
) -> Iterator[None]:
    """Compare tokens and features of each image inside the forward passes of this block.

    Args:
        model: the Hugging Face model, unwrapped.
        inputs: the model's inputs, at most one image in each prompt; nothing is compared if they
            have no `input_ids`.
        beams: how often `generate` repeats each sequence.
        prompts: the prompt of each token, if a sequence has several.

    Raises:
        NapoError: when they differ.
    """
    owner = model.base_model  # its forward pass calls this method
    if "input_ids" not in inputs or not hasattr(owner, "get_image_features"):
        yield
        return
    compute, replaced = owner.get_image_features, vars(owner).get("get_image_features")
    visual = inputs["input_ids"] == model.config.image_token_id
    # Numbers each prompt of the batch: neighbours differ.
    keys = torch.arange(len(visual), device=visual.device)[:, None] * visual.shape[1]
    keys = (keys + (0 if prompts is None else prompts)).expand_as(visual)
    tokens = keys[visual].unique_consecutive(return_counts=True)[1]
    if "image_grid_thw" in inputs:  # positions are computed from it, before any features
        merged = model.config.vision_config.spatial_merge_size**2
        require_equal(
            model, tokens.tolist(), (inputs["image_grid_thw"].prod(-1) // merged).tolist()
        )

    @wraps(compute)  # generate() reads its signature
    def checked(*args: Any, **kwargs: Any) -> Any:
        outputs = compute(*args, **kwargs)
        features = count_features(outputs)
        # Some versions of generate() repeat the images before this call, some after it.
        repeats = beams if len(features) == beams * len(tokens) else 1
        require_equal(model, tokens.repeat_interleave(repeats).tolist(), features)
        return outputs

    owner.get_image_features = checked
    try:
        yield
    finally:
        if replaced is None:
            del owner.get_image_features
        else:
            owner.get_image_features = replaced
