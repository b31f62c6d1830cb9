"""The workload of `bench.engine`: a model of the paper's shape, with fewer and narrower layers.

336 px / 14 = 576 visual tokens, questions of 40 tokens, responses of 64 to 110 tokens, a vocabulary
of 32,064, six decoder layers of width 512, a CLIP of six layers of width 256.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napo.config.variants import RESPONSES, Term, Variant

SIZE, PATCH, WIDTH, LAYERS, VOCABULARY = 336, 14, 512, 6, 32_064
VISION_WIDTH, VISION_LAYERS, HEADS = 256, 6, 8
FEED_FORWARD, VISION_FEED_FORWARD = 1376, 1024
QUESTION, SHORTEST, LONGEST = 40, 64, 110
VISUAL = (SIZE // PATCH) ** 2


def processor() -> Any:
    """A `LlavaProcessor` with 32,064 words and LLaVA-1.5's image size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:"]
    names = [*special, *(f"w{token}" for token in range(len(special), VOCABULARY))]
    words = {word: token for token, word in enumerate(names)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words["<s>"])]
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
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def model() -> Any:
    """The model with random weights, its vision tower frozen as in training."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=VISION_FEED_FORWARD,
            num_hidden_layers=VISION_LAYERS,
            num_attention_heads=HEADS,
            image_size=SIZE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=2048,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=4,
        image_seq_length=VISUAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    built = LlavaForConditionalGeneration(config)
    for name, parameter in built.named_parameters():
        parameter.requires_grad_("vision_tower" not in name)
    return built.train()


def rows(count: int, negatives: int) -> list[dict[str, Any]]:
    """Rows of random words and pixels, with the chosen response and those of `names`."""
    from PIL import Image

    rng = np.random.default_rng(0)

    def words(length: int) -> str:
        return " ".join(f"w{token}" for token in rng.integers(10, VOCABULARY, length))

    data = []
    for number in range(count):
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        row = {"id": str(number), "image": Image.fromarray(pixels), "question": words(QUESTION)}
        for name in ("chosen", *names(negatives)):
            row[name] = words(int(rng.integers(SHORTEST, LONGEST + 1)))
        data.append(row)
    return data


def names(negatives: int) -> tuple[str, ...]:
    """Names of `negatives` dispreferred responses, three at most."""
    return RESPONSES[1:][:negatives]


def objective(negatives: int) -> Any:
    """DPO terms, which all implementations can compute; NaPO's loss costs the same."""
    from napo.method.objective import Objective

    return Objective(Variant("bench", tuple(map(Term, names(negatives))), "uniform"))
