"""The model families that napo knows, one small entry each.

An entry says what differs between families: which parts the image runs through, which token may
stand for [MASK], what the image processor has to be asked, which linear layers LoRA adapts. What a
family's own processor knows (its chat template, how many visual tokens an image makes) is asked of
the processor. `napo.register` adds a family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from napo.config.registry import Entry, Registry, register
from napo.errors import NapoError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

# USER and ASSISTANT of Vicuna, which LLaVA-1.5 was tuned from, for folders without a template.
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
    """What napo has to know of a model family.

    Attributes:
        model_type: as in the model's config.json.
        processor: name of its processor's class.
        frozen: the parts that full tuning leaves as they are (a regular expression of names).
        image_parts: the parts that adapters and quantisation leave alone.
        lora_targets: the language model's linear layers.
        mask_tokens: what stands for [MASK] where the tokenizer has no `<unk>`: a token of the
            vocabulary that texts do not hold.
        image_arguments: what its image processor is asked besides the image.
        layout: what the image processor returns for the prompt's text and not for the model.
        shares_features: whether image features can be put in place of image tokens by hand, so
            that several prompts share one pass of the vision tower.
        template: the chat template of folders that have none.
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
    template: str = ""

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self.model_type

    def is_frozen(self, name: str) -> bool:
        """Whether full tuning leaves this parameter as it is."""
        return re.fullmatch(self.frozen, name) is not None


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
        mask_tokens=("<|fim_pad|>", "<|reserved_special_token_0|>"),  # with Qwen's, with Llama 3's
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
        # Its merger is the projector, inside the tower's module.
        frozen=r".*\bvisual\.(?!merger\b).*",
        image_parts=r".*\bvisual\b.*",
        mask_tokens=("<|fim_pad|>",),
    )
)


def of_config(config: PreTrainedConfig) -> Family:
    """The family of a model, by its config.

    Raises:
        NapoError: for a family that napo does not know, saying what its entry would have to hold.
    """
    if config.model_type not in FAMILIES:
        raise _unknown(f"model type {config.model_type!r}")
    return FAMILIES[config.model_type]


def of_processor(processor: ProcessorMixin) -> Family:
    """The family of a processor, by its class.

    Raises:
        NapoError: for a family that napo does not know.
    """
    names = {kind.__name__ for kind in type(processor).__mro__}
    for family in FAMILIES.values():
        if family.processor in names:
            return family
    raise _unknown(f"processor {type(processor).__name__}")


def _unknown(what: str) -> NapoError:
    known = ", ".join(sorted(FAMILIES))
    return NapoError(
        f"napo has no entry for the {what} (it knows {known}); register one with "
        "napo.register(napo.Family(...)): its processor's class, the parts to freeze, the "
        "parts that adapters leave alone, and a token that stands for [MASK]."
    )


def examine(model: PreTrainedModel, processor: ProcessorMixin) -> list[str]:
    """What a model and its processor lack of what napo needs, a sentence each; empty: nothing."""
    family, tokenizer = of_config(model.config), processor.tokenizer
    lacks = []
    if not any(family.is_frozen(name) for name, _ in model.named_parameters()):
        lacks.append(
            f"No parameter is called {family.frozen}, so full tuning cannot freeze vision."
        )
    modules = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if not modules & set(family.lora_targets.split(",")):
        lacks.append(f"No module is called one of {family.lora_targets}, so LoRA has no target.")
    if not getattr(processor, "image_token", None):
        lacks.append("The processor names no image token.")
    if not (processor.chat_template or family.template):
        lacks.append("The processor has no chat template; add a chat_template.jinja to its folder.")
    if not getattr(tokenizer, "is_fast", False):
        lacks.append("The tokenizer is not a fast one, so a question cannot be masked by token.")
    if model.get_output_embeddings() is None:
        lacks.append("The model has no output layer (get_output_embeddings).")
    return lacks


def image_only_processor(family: Family) -> type[ProcessorMixin] | None:
    """The family's processor without its video part, which needs torchvision; None: as it is."""
    if family.model_type != "qwen2_5_vl":
        return None
    from transformers import Qwen2_5_VLProcessor
    from transformers.processing_utils import ProcessorMixin

    # Its signature tells transformers which parts there are to load and to save.
    def make(
        self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
    ) -> None:
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    # The parent's name is what is written beside weights, and what others look up.
    return type(family.processor, (Qwen2_5_VLProcessor,), {"__init__": make})
