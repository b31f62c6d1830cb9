"""A model's files: config, processor, and what is wrong with a path or a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import transformers

from napo.config.settings import Model
from napo.errors import NapoError, first_line
from napo.models import families
from napo.models.image_tokens import check_image_tokens

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import GenerationConfig, PreTrainedConfig, ProcessorMixin

DAMAGED = " (get its files again if they are damaged)"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
EXAMPLE = "llava-hf/llava-1.5-7b-hf"
# Model type and class of the authors' own formats -> the same model for transformers
CONVERTED = {
    ("llava_llama", "LlavaLlamaForCausalLM"): (
        f"{EXAMPLE} (LLaVA-1.5) or llava-hf/llava-v1.6-vicuna-7b-hf (LLaVA-1.6)"
    ),
    ("llava_mistral", "LlavaMistralForCausalLM"): "llava-hf/llava-v1.6-mistral-7b-hf",
    ("llava_qwen", "LlavaQwenForCausalLM"): "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    ("internvl_chat", "InternVLChatModel"): "OpenGVLab/InternVL3-8B-hf",
}


def load_processor(
    path: str | Path, *, image_mode: str = "crop", system: str = ""
) -> ProcessorMixin:
    """The processor of a model folder, of a hub id, or of an adapter's base model.

    `image_mode` and `system` belong to a profile: a saved processor does not keep them.

    Raises:
        NapoError: when the files do not load, the family is unknown, the chat template cannot
            express the system text, the tokenizer ends prompts, has no end token or a special token
            that is a word, or the processor does not fit the model: its class, its image token, its
            number of visual tokens.
    """
    if (Path(path) / "adapter_config.json").is_file():
        path = base_of(Path(path))
    config = config_of(path)
    family = families.of_config(config)
    with reported(f"The processor of {path} does not load{DAMAGED}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without torchvision the Pillow version is the right one
        loader = family.processor_class()
        processor = loader.from_pretrained(str(path), trust_remote_code=False)
    if family.processor not in {kind.__name__ for kind in type(processor).__mro__}:
        raise NapoError(
            f"{path} has a {type(processor).__name__} and a model of type {family.model_type}; get "
            "the processor's files of this very model."
        )
    image_token = getattr(config, "image_token_id", None)
    if processor.image_token_id != image_token:
        raise NapoError(
            f"{path}: its processor's image token has id {processor.image_token_id} and its "
            f"config.json says {image_token}; get the model's files again."
        )
    if processor.tokenizer.eos_token_id is None:
        raise NapoError(
            f"{path}: its tokenizer has no end token, so no answer could end; set eos_token in its "
            "tokenizer_config.json."
        )
    added = processor.tokenizer.added_tokens_decoder.values()
    if ordinary := [token.content for token in added if token.special and token.content.isalnum()]:
        raise NapoError(
            f"{path}: its tokenizer has the special token {ordinary[0]!r}, an ordinary word that "
            "would be taken out of every question; name another in its tokenizer_config.json."
        )
    words = processor.tokenizer("?", add_special_tokens=False)["input_ids"]
    if processor.tokenizer("?")["input_ids"][-len(words) :] != words:
        raise NapoError(
            f"{path}: its tokenizer adds a token at the end of every prompt; set add_eos_token to "
            "false in its tokenizer_config.json, and take the token out of tokenizer.json."
        )
    for name in ("local_files_only", "is_local"):  # how it was loaded, which would be saved with it
        processor.tokenizer.init_kwargs.pop(name, None)
    processor.chat_template = processor.chat_template or family.template or None
    processor.image_mode, processor.system = image_mode, system
    check_image_tokens(config, processor)
    return processor


def config_of(path: str | Path) -> PreTrainedConfig:
    """A model's config.json, without running code that comes with the model.

    Raises:
        NapoError: when there is no model at the path, or none that transformers loads.
    """
    if Path(path).is_dir():
        _refuse_folder(Path(path))
    else:
        _refuse_missing(str(path))
    with reported(f"The model {path} does not load{DAMAGED}"):
        content, _ = transformers.PreTrainedConfig.get_config_dict(str(path))
        _refuse_format(path, content)
        return transformers.AutoConfig.from_pretrained(str(path), trust_remote_code=False)


def generation_config_of(path: str | Path) -> GenerationConfig:
    """A model's generation_config.json, or its defaults by config.json, as `load_model` has it."""
    try:
        return transformers.GenerationConfig.from_pretrained(str(path))
    except OSError:  # there is none
        return transformers.GenerationConfig.from_model_config(config_of(path))


def _refuse_folder(folder: Path) -> None:
    """Refuse a folder without a model, or with weights of another kind."""
    suffixes = {file.suffix for file in folder.iterdir()}
    if ".safetensors" not in suffixes and ".gguf" in suffixes:
        raise NapoError(
            f"{folder} holds a model for llama.cpp (.gguf); name the folder with its .safetensors "
            "weights."
        )
    if not (folder / "config.json").is_file():
        raise NapoError(
            f"{folder} holds no config.json; name the folder of a model, as save_pretrained "
            "writes it."
        )
    if ".safetensors" not in suffixes and suffixes.intersection(PICKLED):
        raise NapoError(
            f"{folder} holds only pickled weights, which can run code; load them where you trust "
            "them and write them again with save_pretrained, which writes .safetensors."
        )


def _refuse_missing(path: str) -> None:
    """Refuse a path that is no folder, and no id that the hub or its cache has."""
    try:
        huggingface_hub.utils.validate_repo_id(path)
    except huggingface_hub.errors.HFValidationError:
        kind = "is a file" if Path(path).is_file() else "is not there"
        raise NapoError(
            f"{path} {kind}; name the folder of a model, or an id on the hub."
        ) from None
    if isinstance(huggingface_hub.try_to_load_from_cache(path, "config.json"), str):
        return
    if huggingface_hub.is_offline_mode():
        raise NapoError(
            f"{path} is not there: there is no such folder, and the hub's cache has no such model "
            "(HF_HUB_OFFLINE is set); correct the path, or fetch the model first."
        )
    with reported(f"{path} is not there: there is no such folder, and the hub does not give it"):
        transformers.utils.cached_file(path, "config.json")


def _refuse_format(path: str | Path, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that only its authors' own code loads."""
    kind = content.get("model_type")
    names = {kind, *(content.get("architectures") or ())}
    for own, converted in CONVERTED.items():
        if not names.isdisjoint(own):
            raise NapoError(
                f"{path} is a checkpoint in its authors' own format ({own[0]}), which transformers "
                f"does not load; take the converted one, such as {converted}."
            )
    if kind is not None and kind not in transformers.CONFIG_MAPPING:
        raise NapoError(
            f"{path} has the model type {kind!r}, which transformers does not know without code "
            f"from the checkpoint, and napo runs none; take a model such as {EXAMPLE}."
        )


@contextmanager
def reported(problem: str) -> Iterator[None]:
    """Turn any error of a library about a model's files into one sentence.

    Damaged files raise nearly anything: safetensors and tokenizers derive their errors from
    `Exception` itself, and a field of another type raises KeyError or TypeError inside a library.
    """
    try:
        yield
    except NapoError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise NapoError(f"{problem}: {kind}{first_line(error)}") from None


def base_of(adapter: Path) -> str:
    """The base model that an adapter names; for a hub id with a revision, its local snapshot.

    Raises:
        NapoError: when the adapter names none, or the base is no model.
    """
    config = adapter_config(adapter)
    base, revision = config.base_model_name_or_path, config.revision
    if not base:
        raise NapoError(f"{adapter} does not name its base model; load the base with `adapter`.")
    try:
        path = Model(path=base, revision=revision).location if revision else base
        config_of(path)
    except NapoError as error:
        raise NapoError(
            f"The base model of the adapter {adapter} does not load (name another: "
            f"load_model(base, adapter=...), or merge_adapter(..., base=...)): {error}"
        ) from None
    return path


def adapter_config(folder: Path) -> PeftConfig:
    """An adapter's configuration."""
    from peft import PeftConfig

    require_file(folder, "adapter_config.json")  # peft would look on the hub
    with reported(f"The adapter {folder} does not load{DAMAGED}"):
        return PeftConfig.from_pretrained(str(folder))


def require_file(folder: Path, name: str) -> None:
    """Refuse a folder that lacks a file of an adapter."""
    if not (folder / name).is_file():
        raise NapoError(f"{folder} holds no {name}; name a LoRA run's folder.")
