"""Model families: one short entry each, with the facts that differ between them.

The family's own processor already knows its chat template and how many visual tokens an image
makes. `napo.register(napo.Family(...))` adds a family; docs/extend.md shows a whole entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from napo.config.registry import Entry, Registry, register
from napo.errors import NapoError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

# LLaVA-1.5 was tuned from Vicuna; this is Vicuna's format, for folders without a template.
VICUNA_TEMPLATE = (
    "{% for turn in messages %}"
    "{{ 'USER: ' if turn['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class Family(Entry):
    """A model family. The first four fields are enough for most; patterns match whole names.

    Attributes:
        model_type: `model_type` in the model's config.json.
        processor: class name of its processor in transformers.
        frozen: pattern of the parameters that full tuning freezes (the vision tower).
        image_parts: pattern of the modules without LoRA and 4-bit weights (tower and projector).
        lora_targets: linear layers of the language model.
        mask_tokens: candidates for [MASK] if the tokenizer has no `<unk>`: tokens of the
            vocabulary that never occur in texts. The first one in the vocabulary is used.
        image_arguments: further arguments for the image processor.
        layout: outputs of the image processor that describe the prompt's text, not model inputs.
        shares_features: image features can replace image tokens, so that several prompts share
            one pass of the vision tower.
        image_token: set only if the processor has a video part, which needs torchvision. napo
            then builds the processor without that part, with this image token.
        template: chat template for folders that have none.
    """

    registry: ClassVar[Registry] = Registry("model family")

    model_type: str
    processor: str
    frozen: str
    image_parts: str
    lora_targets: str = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    mask_tokens: tuple[str, ...] = ()
    image_arguments: Mapping[str, Any] = field(default_factory=dict)
    layout: tuple[str, ...] = ()
    shares_features: bool = False
    image_token: str = ""
    template: str = ""

    @property
    def name(self) -> str:
        """The entry's name in the registry."""
        return self.model_type

    def is_frozen(self, parameter: str) -> bool:
        """Whether full tuning freezes the parameter of this name."""
        return re.fullmatch(self.frozen, parameter) is not None

    def processor_class(self) -> Any:
        """The class whose `from_pretrained` loads the processor."""
        import transformers

        if not self.image_token:
            return transformers.AutoProcessor

        # transformers reads this signature to know which parts to load and to save.
        def build(
            processor: Any,
            image_processor: Any = None,
            tokenizer: Any = None,
            chat_template: Any = None,
        ) -> None:
            processor.image_token = self.image_token
            processor.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            transformers.ProcessorMixin.__init__(
                processor, image_processor, tokenizer, chat_template=chat_template
            )

        # Same name as the parent: it is written into processor_config.json.
        parent = getattr(transformers, self.processor)
        return type(self.processor, (parent,), {"__init__": build})


FAMILIES = Family.registry

register(
    Family(
        model_type="llava",
        processor="LlavaProcessor",
        frozen=r".*\bvision_tower\b.*",
        image_parts=r".*\b(vision_tower|multi_modal_projector)\b.*",
        shares_features=True,
        template=VICUNA_TEMPLATE,
    )
)
register(
    Family(
        model_type="llava_next",
        processor="LlavaNextProcessor",
        frozen=r".*\bvision_tower\b.*",
        image_parts=r".*\b(vision_tower|multi_modal_projector)\b.*",
        mask_tokens=("<|fim_pad|>", "<|reserved_special_token_0|>"),  # Qwen's; Llama 3's
    )
)
register(
    Family(
        model_type="idefics3",
        processor="Idefics3Processor",
        frozen=r".*\bvision_model\b.*",
        image_parts=r".*\b(vision_model|connector)\b.*",
        mask_tokens=("<|reserved_special_token_0|>",),
        image_arguments={"return_row_col_info": True},
        layout=("rows", "cols"),
    )
)
register(
    Family(
        model_type="qwen2_5_vl",
        processor="Qwen2_5_VLProcessor",
        frozen=r".*\bvisual\.(?!merger\b).*",  # the merger is the projector, inside the tower
        image_parts=r".*\bvisual\b.*",
        mask_tokens=("<|fim_pad|>",),
        image_token="<|image_pad|>",
    )
)


def of_config(config: PreTrainedConfig) -> Family:
    """The family of a model, by its config.

    Raises:
        NapoError: for an unknown family, with the entry to register.
    """
    for family in FAMILIES.values():
        if family.model_type == config.model_type:
            return family
    raise _unknown(f"model type {config.model_type!r}")


def of_processor(processor: ProcessorMixin) -> Family:
    """The family of a processor, by its class or a parent's.

    Raises:
        NapoError: for an unknown family, with the entry to register.
    """
    classes = {kind.__name__ for kind in type(processor).__mro__}
    for family in FAMILIES.values():
        if family.processor in classes:
            return family
    raise _unknown(f"processor {type(processor).__name__}")


def _unknown(subject: str) -> NapoError:
    return NapoError(
        f"No model family is registered for the {subject} (known: {', '.join(sorted(FAMILIES))}); "
        "add it with napo.register(napo.Family(model_type=..., processor=..., frozen=..., "
        "image_parts=...)), as docs/extend.md shows."
    )
