"""Load a model and its processor: strictly, from safetensors, without remote code."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napo.errors import NapoError, unknown
from napo.models import families
from napo.workspace.hashing import hash_files

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import (
        BitsAndBytesConfig,
        PreTrainedConfig,
        PreTrainedModel,
        ProcessorMixin,
    )

_AGAIN = " (get its files again if they are damaged)"
_PROCESSOR_FILES = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "*processor_config.json",
    "chat_template*",
)


def load_model(
    path: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    device: str | None = None,
    adapter: str | Path | None = None,
    image_mode: str = "crop",
    four_bit: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model in evaluation mode and its processor.

    Args:
        path: a Hugging Face folder or hub id; the folder of a LoRA adapter also works and loads
            the base that the adapter names.
        dtype: "float32", "bfloat16" or "float16".
        attention: "sdpa", "eager" or "flex_attention".
        device: where the model goes; by default this process's GPU, or the CPU.
        adapter: the folder of a LoRA adapter to put on top.
        image_mode: "crop" or "pad", see `napo.models.prompts.image_pixels`.
        four_bit: hold the language model's linear layers in 4 bits (NF4, Dettmers et al. 2023).

    Raises:
        NapoError: when the folder does not load, its family is not known, a weight is missing or
            unexpected, or 4 bits are asked for without bitsandbytes.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    path = str(path)
    if adapter is None and (Path(path) / "adapter_config.json").is_file():
        path, adapter = _base_of(Path(path)), path
    if device is None:
        mine = os.environ.get("LOCAL_RANK", "0")  # of several processes, each has a GPU
        device = f"cuda:{mine}" if torch.cuda.is_available() else "cpu"
    family = family_of(path)
    extra = {}
    if four_bit:
        extra = {"quantization_config": _four_bits(dtype, family), "device_map": device}
    with _told(f"The model {path} does not load{_AGAIN}"), without_bars():
        model, report = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **extra,
        )
    _refuse_incomplete(path, report)
    processor = load_processor(path, image_mode=image_mode)
    asked, known = processor.image_token_id, getattr(model.config, "image_token_id", None)
    if asked != known:
        raise NapoError(
            f"{path}: its processor's image token has id {asked} and its config.json says {known}; "
            "get the model's files again."
        )
    if adapter is not None:
        model = with_adapter(model, adapter)
    return (model if four_bit else model.to(device)).eval(), processor


def family_of(path: str | Path) -> families.Family:
    """The family of a model folder or hub id.

    Raises:
        NapoError: when it has no config.json, or its family is not known.
    """
    with _told(f"The model {path} does not load{_AGAIN}"):
        config = config_of(path)
    return families.of_config(config)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell what a library says of a model's files in one sentence.

    Damaged files make it say nearly anything: safetensors and tokenizers derive their errors from
    `Exception` itself, and a field of another type is a KeyError or TypeError inside it.
    """
    try:
        yield
    except NapoError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise NapoError(f"{what}: {kind}{first[:300]}") from None


def config_of(path: str | Path) -> PreTrainedConfig:
    """A model's config.json, its own code left alone; without the word transformers would ask."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(path), trust_remote_code=False)


def _four_bits(dtype: str, family: families.Family) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise NapoError("tune qlora needs bitsandbytes: pip install bitsandbytes, or tune lora.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head", family.image_parts],
    )


def load_processor(path: str | Path, *, image_mode: str = "crop") -> ProcessorMixin:
    """The processor of a model folder or hub id.

    Raises:
        NapoError: when it does not load.
    """
    from transformers import AutoProcessor

    family = family_of(path)
    kind = families.image_only_processor(family) or AutoProcessor
    with _told(f"The processor of {path} does not load{_AGAIN}"), warnings.catch_warnings():
        # Without torchvision the image processor's Pillow version is the one that is meant.
        warnings.simplefilter("ignore")
        processor = kind.from_pretrained(str(path), trust_remote_code=False)
    if getattr(processor, "image_processor", None) is None:
        raise NapoError(f"{path} has no image processor; it is not a model for images and text.")
    processor.chat_template = processor.chat_template or family.template or None
    processor.image_mode = image_mode
    return processor


def with_adapter(
    model: PreTrainedModel, adapter: str | Path, *, trainable: bool = False
) -> PreTrainedModel:
    """The model with a LoRA adapter on top, as plain `peft` loads it.

    Raises:
        NapoError: when the folder holds no adapter, or its weights do not fit the model.
    """
    from peft import PeftConfig, get_peft_model

    folder = Path(adapter)
    _refuse_without_weights(folder)
    with _told(f"The adapter {folder} does not load{_AGAIN}"):
        config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = not trainable
    with _told(f"The adapter {folder} does not fit this model"):
        wrapped = get_peft_model(model, config)
    load_adapter_weights(wrapped, folder)
    return wrapped


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Put a saved adapter's weights into a model that has such an adapter.

    Raises:
        NapoError: when a weight is missing, unexpected or of another shape, or all are pickled.
    """
    _refuse_without_weights(folder)  # peft would take a pickle, or look on the hub
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    with _told(f"The adapter {folder} does not load{_AGAIN}"):
        weights = load_peft_weights(str(folder), device="cpu")
    with _told(f"The adapter {folder} does not fit this model"):
        result = set_peft_model_state_dict(model, weights)
    _refuse(str(folder), "missing", [name for name in result.missing_keys if "lora_" in name])
    _refuse(str(folder), "unexpected", result.unexpected_keys)


def _refuse_without_weights(folder: Path) -> None:
    if not (folder / "adapter_model.safetensors").is_file():
        raise NapoError(f"{folder} holds no adapter_model.safetensors; name a LoRA run's folder.")


def add_adapter(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """The model with a fresh adapter, its first weights drawn from the seed.

    Raises:
        NapoError: when a target module does not exist, is no linear layer, or is the image's.
    """
    import torch
    from peft import get_peft_model

    targets = config.target_modules
    if not isinstance(targets, str):
        known = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        for target in targets or ():
            if target.rpartition(".")[2] not in known:
                raise unknown("LoRA target", target, {name for name in known if "proj" in name})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as problem:
            first = " ".join(str(problem).split()).partition(". ")[0]
            raise NapoError(
                f"training.lora_targets is {_named(targets)!r}, and LoRA cannot go around it "
                f"({first}); name linear layers of the language model, such as q_proj,v_proj."
            ) from None


def _named(targets: Iterable[str] | str | None) -> str:
    return targets if isinstance(targets, str) else ",".join(sorted(targets or ()))


def merge_adapter(adapter: str | Path, folder: str | Path, *, base: str | Path = "") -> Path:
    """Write a model that a LoRA adapter is merged into, in its base's precision.

    Args:
        adapter: the adapter's folder, such as a run's `adapter/`.
        folder: where the model goes; it must not exist.
        base: the base model; by default the one that the adapter names.

    Raises:
        NapoError: when the folder exists, or either does not load.
    """
    folder, adapter = Path(folder), Path(adapter)
    if folder.exists():
        raise NapoError(f"{folder} exists; name another folder for the merged model.")
    path = str(base) or _base_of(adapter)
    model, processor = load_model(path, dtype=_stored_dtype(path), device="cpu", adapter=adapter)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with without_bars():
        model.merge_and_unload().save_pretrained(part)
    processor.save_pretrained(part)
    part.rename(folder)
    return folder


def _stored_dtype(path: str) -> str:
    stored = getattr(config_of(path), "dtype", None)
    return str(stored or "float32").rpartition(".")[2]


def model_fingerprint(path: str | Path) -> str:
    """A short hash of a model's weights and processor files: 16 hexadecimal digits.

    Args:
        path: a Hugging Face folder or hub id (its cached files).

    Raises:
        NapoError: when there are no weights.
    """
    folder = _folder(path)
    names = (*_PROCESSOR_FILES, "*.safetensors", "adapter_config.json")
    files = sorted({file for name in names for file in folder.glob(name) if file.is_file()})
    if not any(file.suffix == ".safetensors" for file in files):
        raise NapoError(f"{path} holds no .safetensors weights; name a model's folder.")
    lines = (f"{file.name}\0{digest}\n" for file, digest in hash_files(files).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def freeze_vision_tower(model: PreTrainedModel) -> None:
    """Keep the vision tower as it is; the language model and the projector are trained."""
    family, frozen = families.of_config(model.config), False
    for name, parameter in model.named_parameters():
        if family.is_frozen(name):
            parameter.requires_grad_(False)
            frozen = True
    if not frozen:
        raise NapoError(
            f"{type(model).__name__} has no parameter called {family.frozen} to freeze; "
            "use tune: lora."
        )


@contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars of transformers within: napo has a line of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _folder(path: str | Path) -> Path:
    """The folder that holds a model's files; for a hub id, its snapshot in the cache."""
    if Path(path).is_dir():
        return Path(path)
    from transformers.utils import cached_file

    try:
        return Path(cached_file(str(path), "config.json")).parent
    except OSError:
        raise NapoError(f"{path} is neither a folder nor a model in the cache or hub.") from None


def _base_of(adapter: Path) -> str:
    from peft import PeftConfig

    with _told(f"The adapter {adapter} does not load{_AGAIN}"):
        config = PeftConfig.from_pretrained(str(adapter))
    base, revision = config.base_model_name_or_path, config.revision
    if not base:
        raise NapoError(f"{adapter} does not name its base model; load the base with `adapter`.")
    if revision:
        from napo.config.profile import Model

        return Model(path=base, revision=revision).location
    return base


def _refuse_incomplete(path: str, report: dict[str, Iterable[object]]) -> None:
    for problem in ("missing", "unexpected", "mismatched"):
        _refuse(path, problem, report.get(f"{problem}_keys") or ())


def _refuse(path: str, problem: str, names: Iterable[object]) -> None:
    found = sorted(str(name) for name in names)
    if found:
        raise NapoError(
            f"{path} has {len(found)} {problem} weight{'s' * (len(found) > 1)} "
            f"({', '.join(found[:3])}{' ...' * (len(found) > 3)}); it is not whole."
        )


def has_axes(model: nn.Module) -> bool:
    """Whether positions have axes of time, height and width, as in Qwen2.5-VL."""
    return hasattr(getattr(model, "model", None), "get_rope_index")


def unwrap(model: nn.Module) -> nn.Module:
    """The Hugging Face model inside DDP, DeepSpeed, torch.compile and PEFT wrappers."""
    from torch import nn

    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model
