"""Loading is strict, and a fingerprint is of the content."""

import json
import os
import shutil

import engine_fixtures as engine
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from napo.errors import NapoError
from napo.method import logprobs
from napo.models import families
from napo.models.load import (
    add_adapter,
    freeze_vision_tower,
    load_model,
    merge_adapter,
    model_fingerprint,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return engine.saved(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def scores(model, processor):
    batch = logprobs.collate(engine.rows(2), processor)
    with torch.no_grad():
        return logprobs.response_logprobs(model, batch).sum


def test_a_loaded_model_scores_like_the_one_that_was_saved(saved):
    processor = engine.processor()
    expected = scores(engine.model(processor), processor)
    model, loaded = load_model(saved, device="cpu")
    assert torch.equal(scores(model, loaded), expected) and not model.training
    assert model.dtype == torch.float32


def test_dtype_and_attention_are_as_asked_for(saved):
    model, _ = load_model(saved, dtype="bfloat16", attention="eager", device="cpu")
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


def test_a_processor_of_another_model_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "image_token_id": 7}))
    with pytest.raises(NapoError, match=r"image token has id 4 and its config.json says 7"):
        load_model(copy, device="cpu")


def test_a_merged_model_scores_like_its_adapter(saved, tmp_path):
    expected = adapter(saved, tmp_path / "adapter")
    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert torch.allclose(scores(*load_model(merged, device="cpu")), expected, rtol=1e-4)
    with pytest.raises(NapoError, match="merged exists"):
        merge_adapter(tmp_path / "adapter", merged)


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(NapoError, match="does not load"):
        load_model(tmp_path)
    with pytest.raises(NapoError, match=r"no \.safetensors weights"):
        model_fingerprint(tmp_path)


def test_the_fingerprint_is_of_content_not_of_place(saved, copy):
    assert model_fingerprint(saved) == model_fingerprint(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config))  # other bytes
    changed = model_fingerprint(copy)
    assert changed != model_fingerprint(saved) and len(changed) == 16
    (copy / "notes.txt").write_text("not part of a model")
    assert model_fingerprint(copy) == changed


def adapter(saved, folder):
    from peft import LoraConfig

    model, processor = load_model(saved, device="cpu")
    config = LoraConfig(
        r=2, target_modules=["q_proj"], exclude_modules=families.FAMILIES["llava"].image_parts
    )
    model = add_adapter(model, config, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return scores(model.eval(), processor)


def test_an_adapter_loads_by_name_alone_and_with_plain_peft(saved, tmp_path):
    from peft import PeftModel

    expected = adapter(saved, tmp_path / "adapter")
    for path, extra in ((saved, {"adapter": tmp_path / "adapter"}), (tmp_path / "adapter", {})):
        model, processor = load_model(path, device="cpu", **extra)
        assert torch.equal(scores(model, processor), expected)
    base, processor = load_model(saved, device="cpu")
    assert torch.equal(
        scores(PeftModel.from_pretrained(base, tmp_path / "adapter"), processor), expected
    )
    merged, processor = load_model(saved, device="cpu", adapter=tmp_path / "adapter")
    merged = merged.merge_and_unload()
    assert torch.allclose(scores(merged, processor), expected, rtol=1e-4)


def test_an_adapter_with_a_missing_or_unexpected_weight_is_an_error(saved, tmp_path):
    adapter(saved, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    first = sorted(weights)[0]
    save_file({k: v for k, v in weights.items() if k != first}, path)
    with pytest.raises(NapoError, match="1 missing weight"):
        load_model(saved, device="cpu", adapter=tmp_path)
    save_file({**weights, first.replace("layers.0", "layers.7"): weights[first].clone()}, path)
    with pytest.raises(NapoError, match="1 unexpected weight"):
        load_model(saved, device="cpu", adapter=tmp_path)
    with pytest.raises(NapoError, match="holds no adapter"):
        load_model(saved, device="cpu", adapter=saved)


def test_a_fresh_adapter_is_drawn_from_its_seed_and_spares_the_vision_tower():
    from peft import LoraConfig

    def first_weights(seed):
        model = engine.model(engine.processor())
        config = LoraConfig(
            r=2, target_modules=["q_proj"], exclude_modules=families.FAMILIES["llava"].image_parts
        )
        model = add_adapter(model, config, seed)
        return {n: p for n, p in model.named_parameters() if "lora_A" in n}

    before = torch.random.get_rng_state()
    one, same, other = (first_weights(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all("language_model" in name for name in one) and len(one) == 2
    assert all(torch.equal(one[n], same[n]) and not torch.equal(one[n], other[n]) for n in one)


def test_a_lora_target_that_does_not_exist_suggests_one_that_does():
    from peft import LoraConfig

    with pytest.raises(NapoError, match=r"Unknown LoRA target 'q_porj'\. Did you mean 'q_proj'"):
        add_adapter(
            engine.model(engine.processor()), LoraConfig(target_modules=["q_porj", "v_proj"]), 0
        )


def test_freezing_leaves_language_model_and_projector_to_train():
    model = engine.model(engine.processor())
    freeze_vision_tower(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("vision_tower" in name for name in trained)
    assert any("multi_modal_projector" in name for name in trained)
    assert "lm_head.weight" in trained


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_the_header(path):
    content = bytearray(path.read_bytes())
    content[9] ^= 1  # in the JSON that names the tensors
    path.write_bytes(content)


def other_types(path):
    path.write_text(json.dumps({"model": [], "added_tokens": 3, "version": {}}))


@pytest.mark.parametrize(
    ("name", "harm", "part"),
    [
        ("model.safetensors", cut, "The model"),
        ("model.safetensors", flip_the_header, "The model"),
        ("config.json", other_types, "The model"),
        ("tokenizer.json", cut, "The processor of"),
        ("tokenizer.json", other_types, "The processor of"),
        ("processor_config.json", cut, "The processor of"),
    ],
)
def test_damaged_files_of_a_model_are_one_short_sentence(copy, name, harm, part):
    harm(copy / name)
    with pytest.raises(NapoError) as told:
        load_model(copy, device="cpu")
    said = str(told.value)
    assert said.startswith(part) and str(copy) in said and "get its files again" in said
    assert "\n" not in said and len(said) < 420 + len(str(copy))


@pytest.mark.parametrize("harm", [cut, flip_the_header])
def test_damaged_files_of_an_adapter_are_one_short_sentence(saved, tmp_path, harm):
    model, _ = load_model(saved, device="cpu")
    add_adapter(model, LoraConfig(r=2, target_modules=["q_proj"]), seed=0).save_pretrained(
        str(tmp_path / "adapter")
    )
    harm(tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(NapoError, match=r"adapter .* does not load"):
        load_model(saved, adapter=tmp_path / "adapter", device="cpu")
