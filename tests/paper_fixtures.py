"""The paper's shapes, offline: LLaVA-1.5's configuration with few layers, a tokenizer of its kind,
rows of RLAIF-V, and one instance of VLind-Bench."""

from __future__ import annotations

import io
import json

import numpy as np
import torch
from PIL import Image

VOCABULARY, IMAGE_TOKEN, PAD_TOKEN = 32_064, 32_000, 32_001
# The conversation format of llava-hf's checkpoints, written anew.
TEMPLATE = (
    "{% for turn in messages %}"
    "{% if turn['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }}"
    "{% if turn['role'] == 'user' %} {% else %}</s>{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TEXT = """What is the colour of the bus in the picture? The bus is red and it stands near a tree.
Describe this image in detail. A man in a blue shirt walks a small dog along the street.
There are two people on the left and a white car on the right. Is the statement true or false?"""


def tokenizer():
    """Like Llama's: byte-pair encoding of SentencePiece's pieces, with bytes as fallback."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    small = Tokenizer(models.BPE(unk_token="<unk>"))
    prepare = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    small.normalizer = prepare
    small.train_from_iterator([TEXT] * 4, trainers.BpeTrainer(vocab_size=600, show_progress=False))
    learnt = json.loads(small.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [piece for piece in learnt["vocab"] if piece not in pieces]
    pieces += [f"▁▁unused{number}" for number in range(IMAGE_TOKEN - len(pieces))]
    core = Tokenizer(
        models.BPE(
            vocab={piece: token for token, piece in enumerate(pieces)},
            merges=[tuple(pair) for pair in learnt["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    core.normalizer = prepare
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    core.add_special_tokens(["<image>", "<pad>"])  # in the order in which llava-hf added them
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def processor():
    """LLaVA-1.5's: CLIP at 336 pixels, 576 visual tokens."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def config(layers=2):
    """llava-hf/llava-1.5-7b-hf's config.json, with fewer decoder layers."""
    from transformers import AutoConfig

    from napo.config.profile import load_profile

    shape = load_profile("llava-1.5-7b").model.architecture
    text = {**shape["text_config"], "num_hidden_layers": layers}
    small = AutoConfig.for_model(**{**shape, "text_config": text})
    small.tie_word_embeddings = False
    return small


def save_model(folder, layers=2):
    """A model with random weights and its processor, as a folder of safetensors."""
    from transformers import LlavaForConditionalGeneration

    torch.manual_seed(0)
    built = LlavaForConditionalGeneration(config(layers))
    built.generation_config.eos_token_id = 2
    built.generation_config.pad_token_id = PAD_TOKEN
    built.save_pretrained(folder)
    processor().save_pretrained(folder)


def jpeg(number, size):
    coarse = np.random.default_rng(number).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def write_rlaif_v(folder, count=4):
    """Rows with the columns and types of the published RLAIF-V."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes = [(640, 480), (300, 500), (336, 336), (1024, 300)]
    rows = [
        {
            "ds_name": "RLAIF-V",
            "image": {"bytes": jpeg(n, sizes[n % 4]), "path": f"{n}.jpg"},
            "question": "What is the colour of the bus in the picture?",
            "chosen": "The bus is red and it stands near a tree.",
            "rejected": f"The bus is blue, there are {n} people on the left.",
            "origin_dataset": "COCO",
            "origin_split": '{"model": "llava15_7b", "type": "question answering"}',
            "idx": str(n),
            "image_path": f"{n}.jpg",
        }
        for n in range(count)
    ]
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "RLAIF-V-Dataset_000.parquet")


def write_vlind(folder):
    """One instance in the official layout."""
    folder.mkdir(parents=True)
    instance = {
        "global_id": 0,
        "concept": "color",
        "context_id": 3,
        "context": "The buses of this town are pink.",
        "factual_context": "The buses of this town are red.",
        "true_statement": "Buses are pink.",
        "false_statement": "Buses are red.",
        "existent_noun": "a bus",
        "non-existent_noun": "a bear",
        "best_img_id": 1,
        "aggregated_human_label_good_images": {"1": 3},
    }
    (folder / "data.json").write_text(json.dumps([instance]))
    (folder / "benchmark.json").write_text('{"count": 1}')
    for world, sentence, image in (
        ("counterfactual", instance["context"], 1),
        ("factual", instance["factual_context"], 0),
    ):
        path = folder / "images" / world / "color" / f"3_{sentence}" / f"{image}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(image, (512, 512)))
