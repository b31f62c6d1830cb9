"""Load a model and its processor: strictly, from safetensors, without remote code."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from torch import nn

from napo.errors import NapoError, unknown
from napo.models import families
from napo.models.files import (
    DAMAGED,
    adapter_config,
    base_of,
    config_of,
    load_processor,
    reported,
    require_file,
)

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, ProcessorMixin


def load_model(
    path: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    device: str | None = None,
    adapter: str | Path | None = None,
    image_mode: str = "crop",
    system: str = "",
    four_bit: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model in evaluation mode and its processor.

    Args:
        path: a Hugging Face folder or hub id, or the folder of a LoRA adapter, which then loads on
            the base model that it names.
        dtype: "float32", "bfloat16" or "float16".
        attention: "sdpa", "eager" or "flex_attention".
        device: the model's device; by default this process's GPU, or the CPU.
        adapter: the folder of a LoRA adapter to load on top.
        image_mode: "crop" or "pad", see `napo.models.prompts.prepared`.
        system: the text that every prompt begins with, see `napo.models.conversation.render`.
        four_bit: hold the language model's linear layers in 4 bits (NF4, Dettmers et al. 2023).

    Raises:
        NapoError: as `load_processor`, or when the weights do not load, one is missing or
            unexpected, or bitsandbytes is missing for 4 bits.
    """
    path = str(path)
    if adapter is None and (Path(path) / "adapter_config.json").is_file():
        path, adapter = base_of(Path(path)), path
    if device is None:
        rank = os.environ.get("LOCAL_RANK", "0")  # several processes have a GPU each
        device = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
    # Before minutes of reading weights
    processor = load_processor(path, image_mode=image_mode, system=system)
    quantised = {}
    if four_bit:
        if not transformers.utils.is_bitsandbytes_available():
            raise NapoError(
                "tune qlora needs bitsandbytes: pip install bitsandbytes, or tune lora."
            )
        quantised["device_map"] = device
        quantised["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", families.of_config(config_of(path)).image_parts],
        )
    with reported(f"The model {path} does not load{DAMAGED}"), without_bars():
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **quantised,
        )
    for problem in ("missing", "unexpected", "mismatched"):
        _refuse_weights(path, problem, report[f"{problem}_keys"])
    # Under ZeRO-3 transformers keeps renamings that it did not use, and would save by them.
    if renamings := getattr(model, "_weight_conversions", None):
        model._weight_conversions = [renaming for renaming in renamings if renaming.was_used()]
    if adapter is not None:
        from peft import get_peft_model

        config = adapter_config(Path(adapter))
        config.inference_mode = True
        with reported(f"The adapter {adapter} does not fit this model"):
            model = get_peft_model(model, config)
        load_adapter_weights(model, Path(adapter))
    return (model if four_bit else model.to(device)).eval(), processor


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Put a saved adapter's weights into a model that has such an adapter.

    Raises:
        NapoError: when a weight is missing, unexpected or of another shape, or all are pickled.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    require_file(folder, "adapter_model.safetensors")  # peft would take a pickle
    with reported(f"The adapter {folder} does not load{DAMAGED}"):
        weights = load_peft_weights(str(folder), device="cpu")
    with reported(f"The adapter {folder} does not fit this model"):
        result = set_peft_model_state_dict(model, weights)
    missing = [name for name in result.missing_keys if "lora_" in name]
    _refuse_weights(str(folder), "missing", missing)
    _refuse_weights(str(folder), "unexpected", result.unexpected_keys)


def add_adapter(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """The model with a fresh adapter, its initial weights drawn from the seed.

    Raises:
        NapoError: when a target does not exist, is not linear, or belongs to the image part.
    """
    from peft import get_peft_model

    targets = config.target_modules
    if not isinstance(targets, str):  # a pattern, or peft's word "all-linear"
        layers = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        for target in targets or ():
            if target.rpartition(".")[2] not in layers:
                raise unknown("LoRA target", target, {name for name in layers if "proj" in name})
        targets = ",".join(sorted(targets or ()))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return get_peft_model(model, config)
    except ValueError as error:
        first = " ".join(str(error).split()).partition(". ")[0]
        raise NapoError(
            f"training.lora_targets is {targets!r}, and peft cannot adapt it ({first}); "
            "name linear layers of the language model, such as q_proj,v_proj."
        ) from None


def merge_adapter(adapter: str | Path, folder: str | Path, *, base: str | Path = "") -> Path:
    """Merge a LoRA adapter into its base and write the model, in the base's precision.

    Args:
        adapter: the adapter's folder, such as a run's `adapter/`.
        folder: the folder to write; it must not exist.
        base: the base model; by default the adapter's own.
    """
    folder, adapter = Path(folder), Path(adapter)
    if folder.exists():
        raise NapoError(f"{folder} exists; name another folder for the merged model.")
    path = str(base) or base_of(adapter)
    dtype = str(getattr(config_of(path), "dtype", None) or "float32").rpartition(".")[2]
    model, processor = load_model(path, dtype=dtype, device="cpu", adapter=adapter)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with without_bars():
        model.merge_and_unload().save_pretrained(part)
    processor.save_pretrained(part)
    part.rename(folder)
    return folder


def _refuse_weights(path: str, problem: str, names: Iterable[object]) -> None:
    weights = sorted(str(name) for name in names)
    if weights:
        raise NapoError(
            f"{path} has {len(weights)} {problem} weight{'s' * (len(weights) > 1)} "
            f"({', '.join(weights[:3])}{' ...' * (len(weights) > 3)}); get its files again."
        )


def freeze_vision_tower(model: PreTrainedModel) -> None:
    """Freeze the vision tower; language model and projector are trained."""
    family = families.of_config(model.config)
    frozen = [p for name, p in model.named_parameters() if family.is_frozen(name)]
    if not frozen:
        raise NapoError(
            f"{type(model).__name__} has no parameter called {family.frozen} to freeze; "
            "use tune: lora."
        )
    for parameter in frozen:
        parameter.requires_grad_(False)


def wrap_held_classes(model: PreTrainedModel) -> None:
    """Take classes that the model lacks from those that FSDP2 shards one by one.

    transformers lists those of all parts that exist: CLIP's text part for a LLaVA, which FSDP2
    would look for in vain.
    """
    held = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = {name for name in model._no_split_modules if name in held}


@contextmanager
def without_bars() -> Iterator[None]:
    """Switch the progress bars of transformers off; napo has its own progress line."""
    logging = transformers.utils.logging
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def has_axes(model: nn.Module) -> bool:
    """Whether positions have axes of time, height and width, as in Qwen2.5-VL."""
    return hasattr(getattr(model, "model", None), "get_rope_index")


def unwrap(model: nn.Module) -> nn.Module:
    """The Hugging Face model inside DDP, DeepSpeed, torch.compile and PEFT wrappers."""
    if hasattr(model, "get_base_model"):
        return unwrap(model.get_base_model())
    for name in ("module", "_orig_mod"):
        if isinstance(getattr(model, name, None), nn.Module):
            return unwrap(getattr(model, name))
    return model
