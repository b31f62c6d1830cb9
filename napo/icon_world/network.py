"""The tiny LLaVA and its processor, with random weights: the real classes, only small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napo.icon_world import questions, scenes

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PATCH = 12  # pixels
VISUAL_TOKENS = (scenes.SIZE // PATCH) ** 2
WIDTH = 96
POSITION_SCALE = 10.0  # of the tower's position embeddings at the start; see build_model

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} "
    "{% else %}ASSISTANT: {{ message['content'][0]['text'] }} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build_processor() -> LlavaProcessor:
    """The processor: 16 visual tokens for an image of 48 x 48, one token a word."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    # Metaspace keeps the spaces in the pieces, so that decoding gives the exact text back.
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    pieces = {"\N{LOWER ONE EIGHTH BLOCK}"}  # a space alone, as before the image
    for text in questions.all_texts():
        pieces.update(piece for piece, _ in split.pre_tokenize_str(text.replace("\n", " ")))
    ids = {piece: number for number, piece in enumerate([*SPECIAL, *sorted(pieces)])}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Replace("\n", " ")
    core.pre_tokenizer = split
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=512,
        extra_special_tokens={"image_token": "<image>"},
    )
    image_processor = CLIPImageProcessorPil(
        do_resize=True,
        size={"shortest_edge": scenes.SIZE},
        crop_size={"height": scenes.SIZE, "width": scenes.SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: LlavaProcessor, seed: int = 0) -> LlavaForConditionalGeneration:
    """The model with random weights of standard deviation 0.1.

    The library's default of 0.02 leaves true/false questions at chance for a thousand steps.
    """
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    tokenizer = processor.tokenizer
    shape = {"hidden_size": WIDTH, "num_attention_heads": 4, "initializer_range": 0.1}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **shape,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            image_size=scenes.SIZE,
            patch_size=PATCH,
            projection_dim=WIDTH,
        ),
        text_config=LlamaConfig(
            **shape,
            vocab_size=len(tokenizer),
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=VISUAL_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        # Patches are some 30 times larger than positions at this scale: without the scale, the
        # tower never learns where a patch is, and the model mixes up the places of two things.
        model.model.vision_tower.embeddings.position_embedding.weight.mul_(POSITION_SCALE)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    return model.eval()
