"""Tiny models of every family with random weights, and processors of their real classes."""

from __future__ import annotations

import engine_fixtures as engine

SIZES = {"llava": 24, "llava_next": 24, "idefics3": 28, "qwen2_5_vl": 60}
ROLES = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE {% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
GRID = [[24, 48], [48, 24], [48, 48]]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "num_attention_heads": 4}


def processor(family):
    if family == "llava":
        return engine.processor()
    return {"llava_next": _next, "idefics3": _idefics, "qwen2_5_vl": _qwen}[family]()


def _tokenizer(*special, unk=True):
    """Word-level, with further special tokens; without `<unk>` as in Qwen and Llama 3."""
    tokenizer = engine.processor().tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    if not unk:
        tokenizer.unk_token = None
    return tokenizer


def _next():
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    size = {"shortest_edge": 24}
    images = LlavaNextImageProcessorPil(size=size, crop_size=24, image_grid_pinpoints=GRID)
    return LlavaNextProcessor(
        images,
        _tokenizer("<image>"),
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
    tokenizer = _tokenizer("<global-img>", "<|reserved_special_token_0|>", *tiles, unk=False)
    template = ROLES.replace("IMAGE", "<image>")
    return Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)


def _qwen():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
    )

    from napo.models import families

    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    names = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|fim_pad|>")
    return families.FAMILIES["qwen2_5_vl"].processor_class()(
        Qwen2VLImageProcessorPil(size=size),
        _tokenizer(*names, unk=False),
        chat_template=ROLES.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )


def model(family, processor, seed=0):
    """A model of the family with two layers, its weights far from uniform."""
    if family == "llava":
        return engine.model(processor, seed)
    from transformers import AutoConfig

    ids, text = processor.tokenizer.convert_tokens_to_ids, {"model_type": "llama"}
    if family == "llava_next":
        vision = {"model_type": "clip_vision_model", "image_size": 24, "patch_size": 12}
        extra = {"image_grid_pinpoints": GRID, "vision_feature_layer": -1}
    elif family == "idefics3":
        vision = {"image_size": 28, "patch_size": 7}
        extra = {"scale_factor": 2, "pad_token_id": processor.tokenizer.pad_token_id}
    else:
        axes = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        text = {"rope_parameters": axes}
        vision = {"out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1]}
        extra = {"vision_start_token_id": ids("<|vision_start|>")}
    depth = {"depth" if family == "qwen2_5_vl" else "num_hidden_layers": 2}
    config = AutoConfig.for_model(
        family,
        vision_config=TOWER | depth | vision,
        text_config=engine.text_config(processor.tokenizer) | text,
        image_token_id=processor.image_token_id,
        tie_word_embeddings=False,
        **extra,
    )
    return engine.random_model(config, processor.tokenizer, seed)


def rows(family, count, seed=0):
    """Rows whose pictures differ in shape, so that their numbers of visual tokens do."""
    rows, side = engine.rows(count, seed), SIZES[family]
    for number, row in enumerate(rows):
        row["image"] = engine.picture(number, side).resize((side, side + (number % 3) * side))
    return rows
