"""Generate the biased responses with vLLM; `bench/vllm_parity.py` compares it with Hugging Face.

vLLM runs the model's own image processor. Each request therefore has one image token and the image
prepared for `image_mode`; a masked image is `<unk>` tokens and no image. vLLM sums in another
order, so near ties between tokens can fall differently.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.models import families
from napo.models.decoding import decoding_record
from napo.models.files import generation_config_of, load_processor
from napo.models.generate import Generated, Prompt
from napo.models.prompts import mask_image, prepared

if TYPE_CHECKING:
    from transformers import GenerationConfig, ProcessorMixin

    from napo.config.profile import Decoding, Profile

MEMORY = 0.85  # share of the GPU


def vllm_requests(processor: ProcessorMixin, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """vLLM's form of prompts: `prompt_token_ids`, and `multi_modal_data` with the image."""
    requests = []
    for prompt in prompts:
        inputs, image_id = prompt.inputs(processor), processor.image_token_id
        runs = [list(run) for _, run in itertools.groupby(inputs.ids)]
        parts = sum(run[0] == image_id for run in runs)
        if parts > 1:
            raise NapoError(
                f"{families.of_processor(processor).model_type} splits an image into {parts} "
                "parts, which the vLLM engine cannot do; set masks.engine to transformers."
            )
        ids = [token for run in runs for token in (run[:1] if run[0] == image_id else run)]
        request: dict[str, Any] = {"prompt_token_ids": ids}
        if inputs.pixels:
            masked = mask_image(prompt.image, prompt.image_mask)
            request["multi_modal_data"] = {"image": prepared(processor, masked)}
        requests.append(request)
    return requests


def answer(
    llm: Any,
    processor: ProcessorMixin,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    checkpoint: GenerationConfig,
    seed: int = 0,
) -> list[Generated]:
    """Answer prompts with a `vllm.LLM`, in their order, as `napo.models.generate.generate` does.

    `checkpoint` is the model's generation config; its end tokens are the only part with an effect.
    """
    from vllm import SamplingParams

    if decoding.num_beams > 1:
        raise NapoError(
            f"masks.decoding.num_beams is {decoding.num_beams}, and the vLLM engine has no "
            "beams; set it to 1 or masks.engine to transformers."
        )
    record = decoding_record(checkpoint, processor, decoding)
    ends, never = record["eos_token_id"], dict.fromkeys(record["suppress_tokens"], -100.0)
    sampling = [
        SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_tokens=decoding.max_new_tokens,
            min_tokens=decoding.min_new_tokens,
            stop_token_ids=ends,
            logit_bias=never,
            seed=(seed + prompt.entropy(index)) % 2**31,
        )
        for index, prompt in enumerate(prompts)
    ]
    generated = []
    for output in llm.generate(vllm_requests(processor, prompts), sampling, use_tqdm=False):
        completion = output.outputs[0]
        ids = [token for token in completion.token_ids if token not in ends]
        text = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        generated.append(Generated(text, len(ids), completion.finish_reason == "length"))
    return generated


def load_engine(profile: Profile) -> tuple[Callable[..., list[Generated]], dict[str, Any]]:
    """`answer` with the profile's base model on this process's GPU, and what decides its answers.

    The second value is `napo.models.decoding.decoding_record`.
    """
    if "LOCAL_RANK" in os.environ:  # several processes have a GPU and an engine each
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ["LOCAL_RANK"])
    try:
        from vllm import LLM
    except ImportError:
        raise NapoError(
            "masks.engine is vllm, which is not installed: pip install vllm, or set it to "
            "transformers."
        ) from None
    settings = profile.model
    processor = load_processor(settings.location, **settings.preprocessing)
    llm = LLM(
        model=settings.location,
        dtype=settings.dtype,
        max_model_len=profile.training.max_length + profile.masks.decoding.max_new_tokens,
        limit_mm_per_prompt={"image": 1},
        gpu_memory_utilization=MEMORY,
        seed=profile.data.seed,
        trust_remote_code=False,
        generation_config="vllm",  # its own neutral defaults instead of the checkpoint's
    )
    checkpoint = generation_config_of(settings.location)
    record = decoding_record(checkpoint, processor, profile.masks.decoding)
    return partial(answer, llm, processor, checkpoint=checkpoint), record
