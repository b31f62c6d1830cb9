"""The trainer's arguments: `NaPOConfig`, what `NaPOTrainer` refuses and why, a profile's values.

A setting of `transformers` is honoured, or refused in one sentence; none is ignored.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from napo.errors import NapoError, unknown

if TYPE_CHECKING:
    from napo.config.settings import Training

REFERENCES = ("cached", "adapter_off")

EVALUATION = (
    "NaPOTrainer does not evaluate during training; run notebooks/06_evaluate.ipynb afterwards"
)
ORDER = "the rows are shuffled by the seed into full batches, and a resumed run goes on with them"

# Why an argument is refused -> arguments of `transformers.Trainer`, and settings that are refused
# unless they have their default. The first one is named.
REASONS = {
    EVALUATION: "eval_dataset compute_metrics preprocess_logits_for_metrics load_best_model_at_end "
    "eval_strategy eval_steps eval_delay eval_on_start do_eval do_predict prediction_loss_only "
    "per_device_eval_batch_size eval_accumulation_steps eval_do_concat_batches bf16_full_eval "
    "fp16_full_eval eval_use_gather_object include_for_metrics batch_eval_metrics "
    "metric_for_best_model greater_is_better",
    ORDER: "train_sampling_strategy length_column_name dataloader_drop_last dataloader_in_order "
    "ignore_data_skip",
    "the objective is the whole loss; give another one, such as Objective(VARIANTS['cdpo'])": (
        "label_smoothing_factor label_names compute_loss_func average_tokens_across_devices"
    ),
    "NaPOTrainer makes its batches itself and reads the columns that it needs; leave it out": (
        "data_collator remove_unused_columns include_num_input_tokens_seen"
    ),
    "NaPOTrainer uploads nothing; upload the finished folder with hf upload REPO FOLDER": (
        "push_to_hub hub_model_id hub_strategy hub_token hub_always_push hub_revision"
    ),
    "it changes the model's forward pass, and the shared prefix is not tested with it; leave it "
    "out": "torch_compile torch_compile_backend torch_compile_mode use_liger_kernel "
    "liger_kernel_config",
    "the reference has no noise in its embeddings, so psi would be wrong; leave it out": (
        "neftune_noise_alpha"
    ),
    "its gradients need a scale that hides overflow; use bf16": "fp16",
    "q and gamma are averages over a batch, so its size is part of the result; set "
    "per_device_train_batch_size": "auto_find_batch_size",
    "the batch is not split over GPUs in this way; use a file of napo/training/accelerate": (
        "parallelism_config"
    ),
    "a killed run goes on from its last checkpoint; set save_steps": "enable_jit_checkpoint",
    "NaPOTrainer trains one model once; give the model itself": "model_init",
}
REFUSED = {name: reason for reason, names in REASONS.items() for name in names.split()}

# Values of `report_to`, which are names of packages -> variables, of which one must be set
REPORTERS: Mapping[str, tuple[str, ...]] = {
    "tensorboard": (),
    "trackio": (),
    "wandb": ("WANDB_API_KEY", "WANDB_MODE"),
}


@dataclass
class NaPOConfig(TrainingArguments):
    """`TrainingArguments` with settings and defaults for preference training.

    Attributes:
        max_length: maximum number of tokens of a prompt with one response.
        logits_mb: limit for float32 logits in memory, in megabytes.
        reference: "cached": the reference's log-probs are columns of the rows, or are computed
            before the first step; "adapter_off": each step computes them without the adapter.
        save_total_limit: how many checkpoints of this run stay; None: all.
    """

    max_length: int | None = None
    logits_mb: float = 256
    reference: str = "cached"
    remove_unused_columns: bool = False
    dataloader_drop_last: bool = True
    # It is copied to the saved model's config, and generation needs its cache.
    use_cache: bool = True
    report_to: str | list[str] | None = "none"
    project: str = "napo"
    save_total_limit: int | None = 1

    def __post_init__(self) -> None:
        """Derive what the settings leave open, and refuse fp16 in a DeepSpeed file."""
        try:
            super().__post_init__()
        except ValueError:
            if getattr(self, "deepspeed_plugin", None):  # accelerate has read its file
                check_precision(self)
            raise


def check_arguments(args: NaPOConfig, others: Mapping[str, Any]) -> None:
    """Stop if an argument of a trainer would have no effect or a wrong one.

    Args:
        args: the settings.
        others: arguments of `transformers.Trainer` that `NaPOTrainer` does not name.

    Raises:
        NapoError: naming the argument, why it is refused, and the remedy.
    """
    if not isinstance(args, NaPOConfig):
        raise NapoError(
            f"args is a {type(args).__name__}; give a NaPOConfig, which takes the same settings."
        )
    for name, value in others.items():
        if name not in REFUSED:
            raise unknown("argument of NaPOTrainer", name, REFUSED)
        if value is not None:
            raise NapoError(f"{name} is refused: {REFUSED[name]}.")
    if args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
        raise NapoError(f"lr_scheduler_type {args.lr_scheduler_type} is refused: {EVALUATION}.")
    if args.save_strategy == "best":
        raise NapoError(f"save_strategy best is refused: {EVALUATION}.")
    defaults = {field.name: field.default for field in fields(args)}
    for name in (name for name in REFUSED if name in defaults):
        if getattr(args, name) not in (defaults[name], None, []):
            raise NapoError(f"{name} {getattr(args, name)} is refused: {REFUSED[name]}.")
    settings, usual = args.accelerator_config.to_dict(), AcceleratorConfig().to_dict()
    for name in settings.keys() - {"non_blocking"}:
        if settings[name] != usual[name]:
            raise NapoError(f"accelerator_config.{name} is refused: {ORDER}.")
    if args.reference not in REFERENCES:
        raise unknown("reference", args.reference, REFERENCES)
    check_precision(args)
    for name in args.report_to:
        require_reporter(name)


def check_precision(args: NaPOConfig) -> None:
    """Stop if `accelerate launch` or a DeepSpeed file has another precision than the run.

    Args:
        args: the settings, whose `bf16` decides.

    Raises:
        NapoError: naming both values and the remedy.
    """
    precision = "bf16" if args.bf16 else "no"
    if args.mixed_precision != precision:  # transformers lets the variable decide
        raise NapoError(
            f"ACCELERATE_MIXED_PRECISION is {args.mixed_precision} in the environment, where "
            f"accelerate launch puts it, and bf16 is {args.bf16}; set bf16 to true, or the "
            "variable (mixed_precision of the launch configuration) to no."
        )
    engine = args.deepspeed_plugin.deepspeed_config if args.deepspeed_plugin else {}
    for name, wanted in {"bf16": args.bf16, "fp16": False, "torch_autocast": False}.items():
        given = engine.get(name, {}).get("enabled", wanted)
        if given not in (wanted, "auto"):
            raise NapoError(
                f"{name}.enabled is {given} in the DeepSpeed configuration, and bf16 of the run is "
                f"{args.bf16}; leave {name} out of that file: the run's bf16 decides."
            )


def require_reporter(name: str) -> None:
    """Stop if a run cannot be reported: a package or the service's key is missing.

    Args:
        name: a value of `report_to`; those that are not in `REPORTERS` are left to transformers.

    Raises:
        NapoError: with the command that installs the package, or the variable to set.
    """
    if name not in REPORTERS:
        return
    if not find_spec(name):
        raise NapoError(
            f"report_to is {name}, which is not installed: pip install {name}, or set it to none."
        )
    if not has_key(name):
        raise NapoError(
            f"report_to is {name}, and neither {' nor '.join(REPORTERS[name])} is set; set the key "
            "in the environment, log in with wandb login, or set WANDB_MODE=offline."
        )


def has_key(name: str) -> bool:
    """Whether a service of reports needs no key, or has one in the environment or by its login."""
    variables = REPORTERS.get(name, ())
    if not variables or any(map(os.environ.get, variables)):
        return True
    try:  # where wandb login puts the key
        logins = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, ValueError, netrc.NetrcParseError):
        return False
    return logins.authenticators("api.wandb.ai") is not None


def trainer_arguments(
    folder: Path, settings: Training, seed: int, tune: str, data_workers: int, name: str
) -> NaPOConfig:
    """`NaPOConfig` of a profile's training settings.

    Args:
        folder: the run folder.
        settings: the training section of a profile.
        seed: the run's seed.
        tune: "full", "lora" or "qlora".
        data_workers: processes that encode rows.
        name: the run's name where it is reported, such as "A1/seed-0".

    Raises:
        NapoError: if the batch cannot be divided among the processes, or they have no numbers.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    unset = [variable for variable in ("RANK", "LOCAL_RANK") if variable not in os.environ]
    if world != "1" and unset:
        raise NapoError(
            f"WORLD_SIZE is {world!r} in the environment and {' and '.join(unset)} is not set; "
            "unset WORLD_SIZE for one process, or start several with torchrun or accelerate "
            "launch, which set all of them."
        )
    processes = int(world)
    micro = min(settings.micro_batch_size, settings.batch_size)
    if settings.batch_size % (micro * processes):
        raise NapoError(
            f"training.batch_size {settings.batch_size} is not a multiple of micro_batch_size "
            f"{micro} x {processes} processes; change one of them."
        )
    schedule = settings.schedule
    if schedule == "constant" and settings.warmup_ratio:
        schedule = "constant_with_warmup"
    args = NaPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // (micro * processes),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate if tune == "full" else settings.lora_learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        reference="adapter_off" if tune == "qlora" else "cached",
        activation_checkpointing=settings.gradient_checkpointing,
        max_length=settings.max_length,
        logits_mb=settings.logits_mb,
        save_steps=settings.save_steps,
        dataloader_num_workers=data_workers,
        report_to=settings.report_to,
        run_name=name,
        logging_strategy="no" if settings.report_to == "none" else "steps",
        logging_steps=settings.logging_steps,
        disable_tqdm=True,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
    )
    if tune == "qlora" and args.deepspeed_plugin and args.deepspeed_plugin.zero_stage == 3:
        raise NapoError(
            "tune is qlora, and DeepSpeed ZeRO-3 cannot share out weights of 4 bits; use ddp, "
            "zero2 or fsdp2, or tune lora."
        )
    return args
