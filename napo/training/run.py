"""A whole run in one call: from base model and rows to sealed weights, resumed where it stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from napo.config.settings import TUNES
from napo.config.variants import VARIANTS
from napo.data.rows import checked_fingerprint, load_rows
from napo.errors import NapoError, unknown
from napo.method.objective import Objective
from napo.models import families
from napo.models.load import load_model, model_fingerprint
from napo.progress import Progress
from napo.training import checkpoints
from napo.training.trainer import NaPOConfig, NaPOTrainer
from napo.workspace import provenance
from napo.workspace.files import fingerprint, json_value, read_json, sweep, write_json, writing
from napo.workspace.locks import work_on

if TYPE_CHECKING:
    from napo.config.profile import Training
    from napo.config.settings import Run


class _Line(TrainerCallback):
    """The progress line of a run; the last step writes no checkpoint, but the final weights."""

    def __init__(self, label: str, rows: int) -> None:
        self._label, self._rows = label, rows
        self._progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        done = state.global_step * self._rows
        total = state.max_steps * self._rows
        if state.is_world_process_zero:
            self._progress = Progress(total, self._label, done=done)
            self._progress.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.advance(self._rows)
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)


def train_run(
    run_folder: str | Path,
    model_path: str | Path,
    rows: Any,
    variant: str | Objective,
    settings: Training,
    seed: int,
    tune: str = "full",
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    image_mode: str = "crop",
    hub: tuple[str, str] | None = None,
    label: str = "",
    data_workers: int = 0,
) -> Path:
    """Train one variant with one seed; an interrupted call goes on from its last checkpoint.

    In the run folder: `model/` (full) or `adapter/` (LoRA), `records/`, `training.json`.

    Args:
        run_folder: the run's folder.
        model_path: the base model.
        rows: RLAIF-V-Bias with the reference's columns (a dataset or a sequence of dicts).
        variant: a name in `VARIANTS`, which takes `beta` and `q_rule` from the settings, or an
            objective of one's own, which is taken as it is.
        settings: a `napo.config.profile.Training`.
        seed: decides the order of the rows and an adapter's first weights.
        tune: "full" (vision tower frozen), "lora", or "qlora": LoRA on a base whose language model
            is held in 4 bits. That base is another reference than the rows', so it is scored anew
            at each step, the adapter switched off.
        dtype: of the weights in training; full tuning with `settings.bf16` keeps them in float32.
        attention: "sdpa", "eager" or "flex_attention".
        image_mode: "crop" or "pad".
        hub: id and revision on the hub that an adapter names as its base, in place of the path.
        label: how the progress line calls the run.
        data_workers: processes that encode the rows of coming steps, where these are too many to
            stay in memory; the run's bytes do not depend on it.

    Returns:
        The folder of the final weights.

    Raises:
        NapoError: for an unknown variant, settings that do not fit, a run folder that was finished
            with other settings, or as `NaPOTrainer`.
    """
    if tune not in TUNES:
        raise unknown("tune", tune, TUNES)
    folder = Path(run_folder)
    final = folder / ("model" if tune == "full" else "adapter")
    objective = variant
    if isinstance(variant, str):
        objective = Objective(VARIANTS[variant], settings.beta, settings.q_rule)
    made_from = json_value(
        {
            **settings.model_dump(),
            "objective": repr(objective),
            "seed": seed,
            "tune": tune,
            "dtype": dtype,
            "image_mode": image_mode,
        }
    )
    if (folder / "training.json").is_file() and final.is_dir():
        _refuse_other(folder, made_from)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return final
    sweep(folder)
    args = _arguments(folder / "checkpoints", settings, seed, tune, data_workers)
    if tune == "full" and settings.bf16:
        dtype = "float32"  # a step of 5e-7 is lost in weights of 8 bits; products are in bfloat16
    model, processor = load_model(
        model_path,
        dtype=dtype,
        attention=attention,
        image_mode=image_mode,
        device=str(args.device) if tune == "qlora" else "cpu",
        four_bit=tune == "qlora",
    )
    family = families.of_config(model.config)
    lora = None if tune == "full" else lora_config(settings, family)
    trainer = NaPOTrainer(
        model=model,
        args=args,
        objective=objective,
        train_dataset=rows,
        processing_class=processor,
        peft_config=lora,
    )
    if hub and tune != "full":
        adapter = trainer.model.peft_config["default"]
        adapter.base_model_name_or_path, adapter.revision = hub
    trainer.remove_callback(PrinterCallback)
    name = variant if isinstance(variant, str) else "objective"
    label = label or f"train {name} seed {seed}"
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    trainer.add_callback(_Line(label, batch))
    start = checkpoints.latest(folder / "checkpoints", trainer.run_identity)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    _write_weights(trainer, final)
    if args.should_save:
        _describe(folder, trainer, batch, made_from)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return final


def _write_weights(trainer: NaPOTrainer, final: Path) -> None:
    """The trained weights, put into their folder when they are whole."""
    part = final.with_name(final.name + ".part")
    if trainer.args.should_save:
        checkpoints.draft(final)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_fsdp_enabled:  # of shards alone, Trainer saves no model
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    with writing(final):
        trainer.save_model(str(part), _internal_call=True)
    if not trainer.args.should_save:
        return
    if not list(part.glob("*.safetensors")):
        raise NapoError(
            f"No weights were written to {part}; the checkpoints in {trainer.args.output_dir} "
            "are kept. Check the launcher's settings for saving."
        )
    with writing(final):
        checkpoints.settle(part, final)


def _arguments(
    output: Path, settings: Training, seed: int, tune: str, data_workers: int
) -> NaPOConfig:
    """`NaPOConfig` of a profile's training settings."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = min(settings.micro_batch_size, settings.batch_size)
    if settings.batch_size % (micro * processes):
        raise NapoError(
            f"training.batch_size {settings.batch_size} is not a multiple of micro_batch_size "
            f"{micro} x {processes} processes; change one of them."
        )
    schedule = settings.schedule
    if schedule == "constant" and settings.warmup_ratio:
        schedule = "constant_with_warmup"
    rate = settings.learning_rate if tune == "full" else settings.lora_learning_rate
    return NaPOConfig(
        output_dir=str(output),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // (micro * processes),
        num_train_epochs=settings.epochs,
        learning_rate=rate,
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
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
    )


def lora_config(settings: Training, family: families.Family) -> Any:
    """The adapter that the settings ask for, around what the family says LoRA goes around."""
    from peft import LoraConfig

    targets = settings.lora_targets or family.lora_targets
    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=[name.strip() for name in targets.split(",")],
        exclude_modules=family.image_parts,
    )


def _refuse_other(folder: Path, made_from: Mapping[str, Any]) -> None:
    there = read_json(folder / "training.json")["made_from"]
    changed = sorted(k for k in {*there, *made_from} if there.get(k) != made_from.get(k))
    if changed:
        raise NapoError(
            f"{folder} was trained with other settings ({', '.join(changed)} differ); "
            "use another run folder, or delete this one."
        )


def _describe(folder: Path, trainer: NaPOTrainer, batch: int, made_from: Mapping[str, Any]) -> None:
    args = trainer.args
    write_json(
        folder / "training.json",
        {
            "steps": trainer.state.global_step,
            "batch": batch,
            # q averages one micro-batch over all processes (accumulation does not widen it).
            "q_batch": args.per_device_train_batch_size * args.world_size,
            "trained_parameters": trainer.run_identity["trained"],
            "made_from": dict(made_from),
        },
    )


def run_from_file(run: Run) -> Path:
    """The run that a file describes: claimed, trained, and sealed with what made it."""
    rows, reference = Path(run.rows), Path(run.reference)
    settings = {
        **run.model_dump(exclude={"run_folder", "model", "rows", "reference", "data_workers"}),
        "model": model_fingerprint(run.model),
        "rows": checked_fingerprint(rows),
        "reference": checked_fingerprint(reference),
    }
    provenance.ask("run file", fingerprint(settings), {"variant": run.variant, "seed": run.seed})
    first = int(os.environ.get("RANK", "0")) == 0  # of several processes, one claims the folder
    with work_on(Path(run.run_folder), settings) if first else nullcontext():
        return train_run(
            run.run_folder,
            model_path=run.model,
            rows=load_rows(rows, reference),
            variant=run.variant,
            settings=run.training,
            seed=run.seed,
            tune=run.tune,
            dtype=run.dtype,
            attention=run.attention,
            image_mode=run.image_mode,
            data_workers=run.data_workers,
        )
