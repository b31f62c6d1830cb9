"""What is at a model's path: refusals with the right advice, processors that fit, fingerprints."""

import json

import engine_fixtures as engine
import family_fixtures as fixtures
import pytest
from safetensors.torch import load_file

from napo.errors import NapoError
from napo.models.files import config_of, load_processor
from napo.models.load import load_model, merge_adapter
from napo.models.prompts import prompt_inputs

ADVICE = pytest.mark.kind("wrong advice")
HIDDEN = pytest.mark.kind("hidden defaults of a checkpoint")


def change(path, **values):
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))


@ADVICE
@pytest.mark.parametrize(
    ("names", "advice"),
    [
        ({"model_type": "llava_llama"}, r"take the converted one, such as llava-hf/llava-1\.5-7b"),
        ({"architectures": ["LlavaLlamaForCausalLM"]}, r"such as llava-hf/llava-1\.5-7b-hf"),
        ({"model_type": "llava_mistral"}, r"such as llava-hf/llava-v1\.6-mistral-7b-hf"),
        ({"model_type": "llava_qwen"}, r"such as llava-hf/llava-onevision-qwen2-7b-ov-hf"),
        ({"model_type": "internvl_chat"}, r"such as OpenGVLab/InternVL3-8B-hf"),
        ({"model_type": "mplug_owl2"}, r"'mplug_owl2', which transformers does not know"),
        ({"model_type": "llama", "text_config": "gone"}, "'llama' takes no images; name a model"),
        ({"model_type": "qwen2", "vision_config": "gone"}, "'qwen2' takes no images; name a model"),
    ],
    ids=lambda value: str(next(iter(value.values()))) if isinstance(value, dict) else "",
)
def test_a_checkpoint_of_another_format_names_one_to_take(copy, names, advice, result):
    change(copy / "config.json", **names)
    with pytest.raises(NapoError, match=advice) as error:
        load_model(copy)
    result(error.value)


@ADVICE
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/no/such/folder", r"/no/such/folder is not there; name the folder"),
        ("./models/llava/7b", r"models/llava/7b is not there; name the folder"),
        ("nobody/no-such-model", r"not there: there is no such folder, and the hub's cache has no"),
        ("no-such-model", r"not there: there is no such folder, and the hub's cache has no"),
    ],
)
def test_a_path_with_nothing_says_that_it_is_not_there(path, sentence, result):
    for load in (load_model, load_processor, config_of):
        with pytest.raises(NapoError, match=sentence) as error:
            load(path)
        assert "damaged" not in str(error.value)
    result(error.value)


@ADVICE
@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["model.safetensors"], r"holds no config\.json; name the folder of a model"),
        ([], r"holds no config\.json; name the folder of a model"),
        (
            ["config.json", "pytorch_model.bin"],
            "holds only pickled weights.*write them again with save_pretrained",
        ),
        (
            ["config.json", "llava-q4.gguf"],
            r"llama\.cpp \(\.gguf\); name the folder with its \.safetensors",
        ),
        (["llava-q4.gguf"], r"llama\.cpp \(\.gguf\); name the folder with its \.safetensors"),
    ],
)
def test_a_folder_of_another_kind_says_what_it_holds(tmp_path, files, sentence, result):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(NapoError, match=sentence) as error:
        load_model(tmp_path)
    result(error.value)


@ADVICE
def test_a_file_in_place_of_a_models_folder_is_named_so(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(NapoError, match="is a file; name the folder of a model"):
        load_model(tmp_path / "model")


def an_adapter(folder, base):
    folder.mkdir()
    content = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


@ADVICE
@pytest.mark.parametrize("base", ["/gone/base", "nobody/gone"])
@pytest.mark.parametrize("call", [load_model, load_processor, merge_adapter])
def test_an_adapter_without_its_base_is_one_sentence(tmp_path, call, base, result):
    folder = an_adapter(tmp_path / "adapter", base)
    arguments = [folder, tmp_path / "merged"] if call is merge_adapter else [folder]
    sentence = rf"base model of the adapter {folder} does not load \(name .*: {base} is not there"
    with pytest.raises(NapoError, match=sentence) as error:
        call(*arguments)
    result(error.value)


def test_an_adapters_folder_has_the_processor_of_its_base(base, tmp_path):
    processor = load_processor(an_adapter(tmp_path / "adapter", base))
    assert type(processor).__name__ == "LlavaProcessor"


def test_a_processor_of_another_model_is_refused(copy):
    change(copy / "config.json", image_token_id=7)
    with pytest.raises(NapoError, match=r"image token has id 4 and its config.json says 7"):
        load_model(copy, device="cpu")
    (copy / "processor_config.json").unlink()
    fixtures.processor("llava_next").save_pretrained(copy)
    with pytest.raises(NapoError, match=r"has a LlavaNextProcessor and a model of type llava;"):
        load_model(copy, device="cpu")


@HIDDEN
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config.json", {"padding_side": "right", "truncation_side": "left"}),
        ("tokenizer_config.json", {"model_max_length": 5}),
        ("tokenizer_config.json", {"truncation": True, "max_length": 5, "padding": "max_length"}),
        (
            "tokenizer.json",
            {
                "truncation": {
                    "direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0
                },
                "padding": {
                    "strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": None,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
                },
            },
        ),
    ],
    ids=["sides", "model_max_length", "call options", "tokenizer.json"],
)  # fmt: skip
def test_a_tokenizers_defaults_change_no_prompt(base, copy, name, values):
    change(copy / name, **values)
    text, image = "what colour is the cat and the dog ?", engine.picture(1)
    expected = prompt_inputs(load_processor(base), text, image).ids
    assert prompt_inputs(load_processor(copy), text, image).ids == expected
    assert len(expected) > 10


@HIDDEN
def test_a_tokenizer_that_ends_every_prompt_is_refused(copy, result):
    template = json.loads((copy / "tokenizer.json").read_text())["post_processor"]
    end = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    template["special_tokens"]["</s>"] = end
    template["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    change(copy / "tokenizer.json", post_processor=template)
    with pytest.raises(NapoError, match="adds a token at the end of every prompt") as error:
        load_processor(copy)
    result(error.value)


@HIDDEN
@pytest.mark.parametrize(
    ("token", "value", "sentence"),
    [
        ("eos_token", None, "has no end token, so no answer could end; set"),
        ("pad_token", "yes", "special token 'yes', an ordinary word that"),
    ],
)
def test_a_special_token_that_spoils_texts_is_refused(copy, token, value, sentence, result):
    change(copy / "tokenizer_config.json", **{token: value})
    with pytest.raises(NapoError, match=sentence) as error:
        load_processor(copy)
    result(error.value)


def test_weights_are_not_read_for_a_processor(copy):
    assert load_file(copy / "model.safetensors")
    (copy / "model.safetensors").write_bytes(b"")
    assert load_processor(copy).image_token_id == 4
