"""Generate the biased responses with vLLM; `bench/vllm_parity.py` compares it with Hugging Face.

vLLM runs the model's own image processor, so it is given each prompt with one image token, and the
image as `image_mode` prepares it; a masked image is `<unk>` tokens and no image. Sums are made in
another order there, so near ties between tokens may fall otherwise: the share of equal greedy
answers says how often.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.models import families
from napo.models.generate import Generated, Prompt
from napo.models.prompts import mask_image, pad_id, prepared, prompt_inputs

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from napo.config.profile import Decoding, Profile

MEMORY = 0.85  # of a GPU


def vllm_requests(processor: ProcessorMixin, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Prompts as vLLM takes them: `prompt_token_ids`, and `multi_modal_data` with the image.

    Raises:
        NapoError: for a family whose image is more than one run of image tokens.
    """
    made = []
    for prompt in prompts:
        inputs = prompt_inputs(
            processor,
            prompt.text,
            prompt.image,
            image_mask=prompt.image_mask,
            text_mask=prompt.text_mask,
        )
        runs = [(token, len(list(run))) for token, run in itertools.groupby(inputs.ids)]
        visual = [count for token, count in runs if token == processor.image_token_id]
        if len(visual) > 1:
            raise NapoError(
                f"{families.of_processor(processor).model_type} lays out an image in {len(visual)} "
                "parts, which the vLLM engine cannot fold; set masks.engine to transformers."
            )
        folded = [
            token
            for token, count in runs
            for _ in range(1 if token == processor.image_token_id else count)
        ]
        request: dict[str, Any] = {"prompt_token_ids": folded}
        if inputs.pixels:
            masked = mask_image(prompt.image, prompt.image_mask)
            request["multi_modal_data"] = {"image": prepared(processor, masked)}
        made.append(request)
    return made


class Engine:
    """A vLLM engine that answers prompts as `napo.models.generate.generate` does.

    Args:
        llm: a `vllm.LLM`.
        processor: the model's processor.
        ends: ids of the tokens that end an answer.
    """

    def __init__(self, llm: Any, processor: ProcessorMixin, ends: Sequence[int]) -> None:
        self._llm, self._processor, self._ends = llm, processor, sorted(ends)

    def __call__(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, seed: int = 0
    ) -> list[Generated]:
        """The answers, in the prompts' order.

        Raises:
            NapoError: for beams, which vLLM's engine does not search.
        """
        if decoding.num_beams > 1:
            raise NapoError(
                f"masks.decoding.num_beams is {decoding.num_beams}, which the vLLM engine does not "
                "search; set it to 1 or masks.engine to transformers."
            )
        asked = vllm_requests(self._processor, prompts)
        numbers = [prompt.entropy(at) for at, prompt in enumerate(prompts)]
        sampling = [self._sampling(decoding, (seed + number) % 2**31) for number in numbers]
        outputs = self._llm.generate(asked, sampling, use_tqdm=False)
        found = []
        for output in outputs:
            answer = output.outputs[0]
            ids = [token for token in answer.token_ids if token not in self._ends]
            text = self._processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
            found.append(Generated(text, len(ids), answer.finish_reason == "length"))
        return found

    def _sampling(self, decoding: Decoding, seed: int) -> Any:
        from vllm import SamplingParams

        tokenizer = self._processor.tokenizer
        never = {self._processor.image_token_id, pad_id(self._processor)}
        never |= {tokenizer.unk_token_id, tokenizer.bos_token_id}
        return SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_tokens=decoding.max_new_tokens,
            min_tokens=decoding.min_new_tokens,
            stop_token_ids=self._ends,
            logit_bias={token: -100.0 for token in never - {None} - set(self._ends)},
            seed=seed,
        )


def load_engine(profile: Profile) -> Engine:
    """vLLM with the profile's base model, on this process's GPU.

    Raises:
        NapoError: when vLLM is not installed.
    """
    if "LOCAL_RANK" in os.environ:  # of several processes, each has a GPU and an engine
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ["LOCAL_RANK"])
    try:
        from vllm import LLM
    except ImportError:
        raise NapoError(
            "masks.engine is vllm, which is not installed: pip install vllm, or set it to "
            "transformers."
        ) from None
    from napo.models.load import load_processor

    settings = profile.model
    processor = load_processor(settings.location, image_mode=settings.image_mode)
    llm = LLM(
        model=settings.location,
        dtype=settings.dtype,
        max_model_len=profile.training.max_length + profile.masks.decoding.max_new_tokens,
        limit_mm_per_prompt={"image": 1},
        gpu_memory_utilization=MEMORY,
        seed=profile.data.seed,
        trust_remote_code=False,
    )
    return Engine(llm, processor, [processor.tokenizer.eos_token_id])
