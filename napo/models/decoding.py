"""What decides how answers are decoded: the profile's settings, and token ids of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from napo.models.prompts import pad_id

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from napo.config.profile import Decoding


def decoding_record(
    checkpoint: GenerationConfig, processor: ProcessorMixin, decoding: Decoding
) -> dict[str, Any]:
    """The settings and three kinds of token ids, by the names of transformers.

    The ids are the ends (of checkpoint and tokenizer), the padding, and those that no answer
    contains: image, `<unk>`, start and padding. Nothing else of the checkpoint's generation config
    has an effect: no repetition penalty, no forced or banned word, no number of beams.
    """
    tokenizer, pad, ends = processor.tokenizer, pad_id(processor), checkpoint.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    ends = sorted({*ends, tokenizer.eos_token_id} - {None})
    never = {processor.image_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, pad}
    return {
        **decoding.model_dump(),
        "eos_token_id": ends,
        "pad_token_id": pad,
        "suppress_tokens": sorted(never - {None, *ends}),
    }


def neutral_config(record: Mapping[str, Any]) -> GenerationConfig:
    """A record as settings of `model.generate`; every field that it does not name is neutral."""
    sampling = {"do_sample": record["temperature"] > 0}
    # Greedy search takes no temperature, and top_k is 50 unless it is switched off.
    sampling |= {"top_k": 0} if sampling["do_sample"] else {"temperature": None, "top_p": None}
    values = {name: value for name, value in record.items() if name != "contrast"}  # napo's own
    return GenerationConfig(
        **{**values, **sampling, "suppress_tokens": record["suppress_tokens"] or None}
    )
