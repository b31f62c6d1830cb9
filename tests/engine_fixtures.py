"""A tiny LLaVA with random weights and rows to go with it, for the tests of the engine."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

torch.set_num_threads(1)  # more threads only slow tiny products down

_TEXT = """
is the a cat dog bird red green blue what colour there true or false yes no one two near of
on left right in picture describe and an it . , ? USER: ASSISTANT:
"""
WORDS = _TEXT.split()
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {% for c in m['content'] %}{{ c['text'] }}{% endfor %} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def processor():
    """A word-level `LlavaProcessor`: 4 visual tokens an image of 24 x 24 pixels."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: token for token, word in enumerate(special + WORDS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=12,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def model(processor, seed=0, *, layers=2, attention="sdpa"):
    """A random LLaVA."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    text = text_config(processor.tokenizer) | {"num_hidden_layers": layers}
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=24,
        patch_size=12,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text, initializer_range=0.2),
        image_token_id=processor.image_token_id,
        vision_feature_layer=-1,
        image_seq_length=4,
        pad_token_id=processor.tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    config._attn_implementation = attention
    return random_model(config, processor.tokenizer, seed)


def text_config(tokenizer):
    """Settings of a language model of two layers."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def random_model(config, tokenizer, seed):
    """A model whose outputs are far from uniform (weights of sd 0.2)."""
    from transformers import AutoModelForImageTextToText

    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3 if "lm_head" in name else 0.2)
    torch.random.set_rng_state(state)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def saved(folder):
    """Save the model and its processor as a base model."""
    words = processor()
    model(words).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def picture(number, size=24):
    """A noisy picture that is the same for the same number."""
    pixels = np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rows(count, seed=0):
    """Preference rows of random words; responses of 1 to 7 words, prompts of 2 to 9."""
    rng = np.random.default_rng(seed)

    def words(low, high):
        return " ".join(rng.choice(WORDS[:30], rng.integers(low, high + 1)))

    return [
        {
            "id": f"row-{number}",
            "idx": number,
            "image": picture(1000 * seed + number),
            "question": words(2, 9) + " ?",
            "chosen": words(1, 7),
            "rejected": words(1, 7),
            "language_biased": words(1, 7),
            "vision_biased": words(1, 7),
            "language_biased_cut": bool(number % 3 == 0),
            "vision_biased_cut": False,
        }
        for number in range(count)
    ]
