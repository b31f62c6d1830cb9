"""Tiny models of every family with random weights, and processors of their real classes."""

from __future__ import annotations

import engine_fixtures as engine
import torch

SIZES = {"llava": 24, "llava_next": 24, "idefics3": 28, "qwen2_5_vl": 60}
ROLES = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE {% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tokenizer(*special, unk=True):
    """Word-level, with further special tokens; without `<unk>` as in Qwen and Llama 3."""
    made = engine.processor().tokenizer
    made.add_special_tokens({"additional_special_tokens": list(special)})
    if not unk:
        made.unk_token = None
    return made


def processor(family):
    if family == "llava":
        return engine.processor()
    return {"llava_next": _next, "idefics3": _idefics, "qwen2_5_vl": _qwen}[family]()


def _next():
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 24},
        crop_size={"height": 24, "width": 24},
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer("<image>"),
        patch_size=12,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=ROLES.replace("IMAGE", "<image>"),
    )


def _idefics():
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    tiles = [f"<row_{row}_col_{col}>" for row in (1, 2, 3) for col in (1, 2, 3)]
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
    )
    return Idefics3Processor(
        images,
        tokenizer("<global-img>", "<|reserved_special_token_0|>", *tiles, unk=False),
        image_seq_len=4,
        chat_template=ROLES.replace("IMAGE", "<image>"),
    )


def _qwen():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )

    from napo.models import families

    kind = families.FAMILIES["qwen2_5_vl"].processor_class()
    names = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|fim_pad|>")
    return kind(
        Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}),
        tokenizer(*names, unk=False),
        chat_template=ROLES.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )


def model(family, processor, seed=0):
    """A model of the family with two layers, its weights far from uniform."""
    config = {
        "llava": None,
        "llava_next": _next_config,
        "idefics3": _idefics_config,
        "qwen2_5_vl": _qwen_config,
    }[family]
    if config is None:
        return engine.model(processor, seed)
    from transformers import AutoModelForImageTextToText

    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    built = AutoModelForImageTextToText.from_config(config(processor), attn_implementation="sdpa")
    for name, parameter in built.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3 if "lm_head" in name else 0.2)
    torch.random.set_rng_state(state)
    built.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    built.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return built.eval()


def _text(processor, **extra):
    tokenizer = processor.tokenizer
    return {
        "vocab_size": len(tokenizer) + 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **extra,
    }


def _next_config(processor):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig

    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=24,
        patch_size=12,
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_text(processor)),
        image_token_id=processor.image_token_id,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


def _idefics_config(processor):
    from transformers import Idefics3Config

    return Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 7,
        },
        text_config={"model_type": "llama", **_text(processor)},
        image_token_id=processor.image_token_id,
        scale_factor=2,
        pad_token_id=processor.tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def _qwen_config(processor):
    from transformers import Qwen2_5_VLConfig

    ids = processor.tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": 32,
            "out_hidden_size": 32,
            "intermediate_size": 64,
            "depth": 2,
            "num_heads": 4,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        text_config=_text(
            processor,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            },
        ),
        image_token_id=processor.image_token_id,
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def rows(family, count, seed=0):
    """Rows whose pictures differ in shape, so that their numbers of visual tokens do."""
    made = engine.rows(count, seed)
    for number, row in enumerate(made):
        side = SIZES[family]
        row["image"] = engine.picture(number, side).resize((side, side + (number % 3) * side))
    return made
