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
    """A model family. Most need the first four fields only; patterns match whole names."""

    registry: ClassVar[Registry] = Registry("model family")

    model_type: str  # as in the model's config.json
    processor: str  # class name of its processor in transformers
    frozen: str  # pattern of the parameters that full tuning freezes: the vision tower
    image_parts: str  # pattern of the modules without LoRA and 4-bit weights: tower, projector
    lora_targets: str = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    # Used as [MASK] if the tokenizer has no <unk>: the first of these in its vocabulary. Name
    # tokens that never occur in texts.
    mask_tokens: tuple[str, ...] = ()
    image_arguments: Mapping[str, Any] = field(default_factory=dict)  # for the image processor
    layout: tuple[str, ...] = ()  # the image processor's outputs that are no model inputs
    # Whether image features can replace image tokens, so that prompts share a vision pass.
    shares_features: bool = False
    # Set it only if the processor has a video part, which needs torchvision: napo then builds the
    # processor without that part, with this image token.
    image_token: str = ""
    template: str = ""  # chat template for folders that have none
    # Follows the system text at the start of a conversation whose template has no system role;
    # None: such a template cannot express a system text.
    after_system: str | None = None

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
            processor: Any, image_processor: Any, tokenizer: Any, chat_template: Any = None
        ) -> None:
            processor.image_token = self.image_token
            processor.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            parts = (image_processor, tokenizer)
            transformers.ProcessorMixin.__init__(processor, *parts, chat_template=chat_template)

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
        after_system=" ",  # LLaVA's v1 conversation
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
        NapoError: when none is registered, or the model takes no images.
    """
    import transformers

    takes_images = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if config.model_type not in FAMILIES and not takes_images:
        raise NapoError(
            f"A model of type {config.model_type!r} takes no images; name a model for images and "
            "text, such as llava-hf/llava-1.5-7b-hf."
        )
    return _find(f"model type {config.model_type!r}", "model_type", {config.model_type})


def of_processor(processor: ProcessorMixin) -> Family:
    """The family of a processor, by its class or a parent's."""
    classes = {kind.__name__ for kind in type(processor).__mro__}
    return _find(f"processor {type(processor).__name__}", "processor", classes)


def _find(subject: str, field: str, values: set[str]) -> Family:
    for family in FAMILIES.values():
        if getattr(family, field) in values:
            return family
    raise NapoError(
        f"No model family is registered for the {subject} (known: {', '.join(sorted(FAMILIES))}); "
        "add it with napo.register(napo.Family(model_type=..., processor=..., frozen=..., "
        "image_parts=...)), as docs/extend.md shows."
    )
