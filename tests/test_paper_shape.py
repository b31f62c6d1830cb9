"""LLaVA-1.5 in its own shape with two decoder layers: every stage, from RLAIF-V to a result.

make test-paper-shape     (about ten minutes on two cores, 15 GB)
"""

import json
import resource
import time
from contextlib import contextmanager
from functools import lru_cache

import paper_fixtures as paper
import pytest
import torch
from PIL import Image, ImageOps

from napo import stages
from napo.config.settings import IMAGE_MASKS
from napo.data import sources
from napo.data.rows import load_rows
from napo.method import logprobs
from napo.models.conversation import render
from napo.models.load import load_model, merge_adapter
from napo.models.prompts import prompt_inputs
from napo.stages.session import open_session
from napo.workspace.files import read_json

pytestmark = pytest.mark.paper_shape


@contextmanager
def measured(what):
    began = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{what:<52} {time.perf_counter() - began:6.1f} s, peak so far {peak:5.1f} GB", flush=True
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A session of the paper's profile, its model cut to two layers and its data to four rows."""
    root = tmp_path_factory.mktemp("paper")
    with measured("random weights, 32,064 words, width 4,096, CLIP-L"):
        paper.save_model(root / "model")
    paper.write_rlaif_v(root / "data/downloads/rlaif-v")
    paper.write_vlind(root / "data/downloads/benchmarks/vlind")
    settings = {
        "extends": "llava-1.5-7b",
        "threads": 2,
        "model": {"path": str(root / "model"), "revision": "", "dtype": "float32"},
        "data": {"expected": 4, "shard_rows": 2},
        "masks": {"decoding": {"max_new_tokens": 8}, "batch_size": 2},
        # One step; with a warm-up its learning rate would be 0.
        "training": {
            "epochs": 1,
            "batch_size": 4,
            "micro_batch_size": 1,
            "warmup_ratio": 0.0,
            "learning_rate": 1.0e-5,
            "lora_learning_rate": 1.0e-3,
        },
        "evaluation": {"benchmarks": ["vlind"], "decoding": {"max_new_tokens": 8}, "batch_size": 2},
        "launch": {"processes": 1, "strategy": "ddp"},
    }
    (root / "two-layers.yaml").write_text(json.dumps(settings))
    return open_session(str(root / "two-layers.yaml"), str(root))


@lru_cache(maxsize=1)
def loaded(path):
    return load_model(path, device="cpu", image_mode="pad")


@pytest.fixture
def base(made):
    return loaded(made.profile.model.path)


def test_the_model_is_llava_15s(base):
    model, processor = base
    count = sum(p.numel() for p in model.parameters())
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    clip = sum(p.numel() for p in model.model.vision_tower.parameters())
    rest = 2 * 32_064 * 4096 + 4096 + (1024 * 4096 + 4096) + (4096**2 + 4096)
    assert count == 2 * layer + rest + clip and 303e6 < clip < 305e6
    ids = prompt_inputs(processor, "What?", sources.open_rgb(paper.jpeg(1, (640, 480)))).ids
    assert ids.count(paper.IMAGE_TOKEN) == 576 and ids[0] == 1


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_our_prompt_and_its_logits_are_those_of_a_plain_call(base, mode):
    model, processor = base
    image = sources.open_rgb(paper.jpeg(1, (640, 480)))
    question, answer = "What is the colour of the bus?", "The bus is red."
    row = {"id": "1", "image": image, "question": question, "chosen": answer, "chosen_cut": False}
    processor.image_mode = mode
    with measured(f"one response, image_mode {mode}"), torch.no_grad():
        ours = logprobs.response_logprobs(
            model, logprobs.collate([row], processor, ("chosen",))
        ).sum.item()
    plain, side = image, max(image.size)
    if mode == "pad":
        mean = tuple(round(255 * m) for m in processor.image_processor.image_mean)
        plain = ImageOps.pad(image, (side, side), Image.Resampling.NEAREST, mean)
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    whole = processor.apply_chat_template(turns, tokenize=False)
    prompt = processor.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    inputs = processor(images=plain, text=whole, return_tensors="pt")
    start = processor(images=plain, text=prompt, return_tensors="pt")["input_ids"].shape[1]
    with torch.no_grad():
        logits = model(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    expected = logits[start - 1 : -1].gather(-1, ids[start:, None]).sum().item()
    assert ours == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("image_mask", IMAGE_MASKS)
def test_every_image_mask_makes_a_prompt_of_the_real_processor(base, image_mask):
    _, processor = base
    image = sources.open_rgb(paper.jpeg(2, (300, 500)))
    inputs = prompt_inputs(processor, "What is it?", image, image_mask=image_mask)
    visual, hidden = inputs.ids.count(paper.IMAGE_TOKEN), inputs.ids.count(0)
    expected = {"mask_token": (0, 576), "drop": (0, 0)}.get(image_mask, (576, 0))
    assert (visual, hidden) == expected
    assert bool(inputs.pixels) == (visual > 0)


def test_every_text_mask_makes_a_prompt_of_the_real_processor(base):
    _, processor = base
    image = sources.open_rgb(paper.jpeg(2, (300, 500)))
    question = "What is the colour of the bus?"
    plain = prompt_inputs(processor, question, image).ids
    masked = prompt_inputs(processor, question, image, text_mask="mask_token").ids
    dropped = prompt_inputs(processor, question, image, text_mask="drop").ids
    hidden = [index for index, token in enumerate(masked) if token == 0]
    assert hidden == list(range(hidden[0], hidden[-1] + 1)) and len(masked) == len(plain)
    assert [token for token in masked if token] == plain[: hidden[0]] + plain[hidden[-1] + 1 :]
    assert "colour" in processor.decode([plain[index] for index in hidden])
    assert processor.decode(plain[hidden[-1] + 1 :]).split() == ["ASSISTANT:"]
    empty = render(processor, "", image=True).replace("<image>", "<image>" * 576)
    assert dropped == processor.tokenizer(empty)["input_ids"]


def test_every_stage_from_rlaif_v_to_a_result(made):
    loaded.cache_clear()  # so that its memory is not measured with a stage's
    with measured("build biased data, 4 rows"):
        rows = stages.build_rows(made)
    built = list(load_rows(rows))
    assert [row["id"] for row in built] == ["0", "1", "2", "3"]
    assert all(row["language_biased"] and row["vision_biased"] for row in built)
    with measured("reference log-probs, 4 rows, 5 responses"):
        stages.score_reference(made)
    with measured("one LoRA step, 4 rows, 3 pairs"):
        lora = stages.train(made, "A1", 0, "lora")
    assert read_json(lora / "training.json")["steps"] == 1
    with measured("merge the adapter"):
        merged = merge_adapter(lora / "adapter", made.workspace.root / "merged")
    values = []
    for path in (lora / "adapter", merged):
        with measured(f"reload {path.name} and score a row"), torch.no_grad():
            model, processor = load_model(path, device="cpu")
            batch = logprobs.collate([built[0]], processor)
            values.append(logprobs.response_logprobs(model, batch).sum)
            del model
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-3)
    with measured("evaluate one instance of VLind-Bench with LoRA"):
        result = read_json(stages.evaluate(made, "A1", 0, "lora") / "vlind.json")
    assert result["answers"]["count"] == 8 and result["metrics"]["d_macro"]["n"] == 1


def test_one_full_step_changes_the_language_model_only(made):
    stages.score_reference(made)
    with measured("one full step, 4 rows, 3 pairs"):
        folder = stages.train(made, "A1", 0, "full")
    trained, _ = load_model(folder / "model", device="cpu")
    before, after = loaded(made.profile.model.path)[0].state_dict(), trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("layers.1" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)
    assert {name for name, p in trained.named_parameters()} >= changed
