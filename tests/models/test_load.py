"""Loading is strict."""

import json
import os

import engine_fixtures as engine
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from napo.errors import NapoError
from napo.method import logprobs
from napo.models import families
from napo.models.load import add_adapter, load_model, merge_adapter


def lora(*targets):
    image_parts = families.FAMILIES["llava"].image_parts
    return LoraConfig(r=2, target_modules=list(targets), exclude_modules=image_parts)


@pytest.fixture
def adapter(base, tmp_path):
    """The folder of an adapter with random weights, and the scores of the adapted model."""
    model, processor = load_model(base, device="cpu")
    model = add_adapter(model, lora("q_proj"), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", scores(model.eval(), processor)


def scores(model, processor):
    batch = logprobs.collate(engine.rows(2), processor)
    with torch.no_grad():
        return logprobs.response_logprobs(model, batch).sum


def test_dtype_and_attention_are_set(base):
    model, _ = load_model(base, dtype="bfloat16", attention="eager", device="cpu")
    assert model.dtype == torch.bfloat16
    assert model.config.get_text_config()._attn_implementation == "eager"


@pytest.mark.parametrize("problem", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_an_error(copy, problem):
    path = copy / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in sorted(weights) if "q_proj.weight" in name)
    if problem == "missing":
        del weights[name]
    elif problem == "unexpected":
        weights["stranger"] = torch.zeros(2)
    else:
        weights[name] = torch.zeros(3, 3)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(NapoError, match=r"weight|size"):
        load_model(copy, device="cpu")


def test_an_adapter_loads_by_its_folder_alone_and_with_plain_peft(base, adapter):
    folder, expected = adapter
    assert torch.equal(scores(*load_model(base, device="cpu", adapter=folder)), expected)
    assert torch.equal(scores(*load_model(folder, device="cpu")), expected)
    model, processor = load_model(base, device="cpu")
    assert torch.equal(scores(PeftModel.from_pretrained(model, folder), processor), expected)


def test_a_merged_model_scores_like_its_adapter(adapter, tmp_path):
    folder, expected = adapter
    merged = merge_adapter(folder, tmp_path / "merged")
    assert torch.allclose(scores(*load_model(merged, device="cpu")), expected, rtol=1e-4)
    with pytest.raises(NapoError, match="merged exists"):
        merge_adapter(folder, merged)


def test_an_adapter_that_is_damaged_or_does_not_fit_is_an_error(base, adapter):
    folder, _ = adapter
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    first = sorted(weights)[0]
    save_file({k: v for k, v in weights.items() if k != first}, path)
    with pytest.raises(NapoError, match="1 missing weight"):
        load_model(base, device="cpu", adapter=folder)
    save_file({**weights, first.replace("layers.0", "layers.7"): weights[first].clone()}, path)
    with pytest.raises(NapoError, match="1 unexpected weight"):
        load_model(base, device="cpu", adapter=folder)
    cut(path)
    with pytest.raises(NapoError, match=r"adapter .* does not load"):
        load_model(base, device="cpu", adapter=folder)
    with pytest.raises(NapoError, match="holds no adapter"):
        load_model(base, device="cpu", adapter=base)


def test_a_fresh_adapter_depends_on_its_seed_and_spares_the_vision_tower():
    def first_weights(seed):
        model = add_adapter(engine.model(engine.processor()), lora("q_proj"), seed)
        return {n: p for n, p in model.named_parameters() if "lora_A" in n}

    before = torch.random.get_rng_state()
    one, same, other = (first_weights(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all("language_model" in name for name in one) and len(one) == 2
    assert all(torch.equal(one[n], same[n]) and not torch.equal(one[n], other[n]) for n in one)


def test_an_unknown_lora_target_suggests_the_nearest():
    model = engine.model(engine.processor())
    with pytest.raises(NapoError, match=r"Unknown LoRA target 'q_porj'\. Did you mean 'q_proj'"):
        add_adapter(model, lora("q_porj", "v_proj"), 0)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_the_header(path):
    content = bytearray(path.read_bytes())
    content[9] ^= 1  # in the JSON that names the tensors
    path.write_bytes(content)


def change_types(path):
    path.write_text(json.dumps({"model": [], "added_tokens": 3, "version": {}}))


@pytest.mark.parametrize(
    ("name", "damage", "part"),
    [
        ("model.safetensors", flip_the_header, "The model"),
        ("config.json", change_types, "The model"),
        ("tokenizer.json", change_types, "The processor of"),
        ("processor_config.json", cut, "The processor of"),
    ],
)
def test_a_damaged_file_of_a_model_is_one_short_sentence(copy, name, damage, part):
    damage(copy / name)
    with pytest.raises(NapoError, match=rf"^{part} {copy} .*get its files again") as error:
        load_model(copy, device="cpu")
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 420 + len(str(copy))
