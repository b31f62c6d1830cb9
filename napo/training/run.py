"""One training run: from base model and rows to final weights, resumed after an interruption."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback
from typing_extensions import TypedDict

from napo.config.settings import TUNES
from napo.config.variants import VARIANTS
from napo.data.rows import checked_fingerprint, load_rows
from napo.errors import NapoError, unknown
from napo.method.objective import Objective
from napo.models import families
from napo.models.fingerprint import model_fingerprint
from napo.models.load import load_model
from napo.progress import Progress
from napo.training import checkpoints
from napo.training.arguments import NaPOConfig, trainer_arguments
from napo.training.divergence import half_precision
from napo.training.trainer import NaPOTrainer
from napo.workspace import provenance
from napo.workspace.files import (
    fingerprint,
    json_value,
    make_folder,
    read_json,
    sweep,
    write_json,
)
from napo.workspace.folders import run_name
from napo.workspace.locks import work_on
from napo.workspace.manifests import complete, require

if TYPE_CHECKING:
    from napo.config.profile import Training
    from napo.config.settings import Run


class LastStep(TrainerCallback):
    """Lets no checkpoint follow the last step: final weights are written there."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cancel the checkpoint of the last step."""
        if state.global_step >= state.max_steps:
            control.should_save = False


class ProgressLine(TrainerCallback):
    """The progress line of a run."""

    def __init__(self, label: str) -> None:
        self.label = label

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the line."""
        self.batch = optimiser_batch(args)
        done, total = state.global_step * self.batch, state.max_steps * self.batch
        self.progress = Progress(total, self.label, done=done)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the line."""
        self.progress.advance(self.batch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the line."""
        self.progress.__exit__(None, None, None)


class Summary(TypedDict):
    """The part of `training.json` that decides whether a run is the same."""

    made_from: dict[str, Any]


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
    system: str = "",
    hub: tuple[str, str] | None = None,
    data_workers: int = 0,
) -> Path:
    """Train one variant with one seed. An interrupted run continues from its last checkpoint.

    The run folder gets `model/` (full) or `adapter/` (LoRA), `records/` and `training.json`.

    Args:
        run_folder: the run's folder.
        model_path: the base model.
        rows: RLAIF-V-Bias with the reference's columns (a dataset or a sequence of dicts).
        variant: a name, trained with the settings' `beta` and `q_rule`, or an objective.
        settings: the training section of a profile.
        seed: for the order of the rows and the initial weights of an adapter.
        tune: "full" (vision tower frozen), "lora", or "qlora" (LoRA on a language model in 4
            bits). The stored reference was computed without 4-bit weights, so qlora computes the
            reference in each step with the adapter switched off.
        dtype: of the weights in training. Full tuning with `settings.bf16` keeps float32 weights.
        attention: "sdpa", "eager" or "flex_attention".
        image_mode: "crop" or "pad".
        system: the text that every prompt begins with.
        hub: id and revision on the hub that an adapter names as its base, instead of the path.
        data_workers: processes that encode rows too large for memory, with the same result.

    Returns:
        The folder of the final weights.

    Raises:
        NapoError: for an unknown variant, settings that do not fit together, a finished run folder
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
            **settings.identity(tune),
            "objective": objective.definition(),
            "seed": seed,
            "tune": tune,
            "dtype": dtype,
            "image_mode": image_mode,
            "system": system,
        }
    )
    if (folder / "training.json").is_file() and final.is_dir():
        earlier = read_json(folder / "training.json", Summary, f"delete {folder}")["made_from"]
        changed = sorted(k for k in {*earlier, *made_from} if earlier.get(k) != made_from.get(k))
        if changed:
            raise NapoError(
                f"{folder} was trained with other settings ({', '.join(changed)} differ); "
                "use another run folder, or delete this one."
            )
        checkpoints.clear(folder)
        return final
    trainer = fit(
        folder,
        model_path,
        rows,
        objective,
        settings,
        seed,
        tune,
        dtype=dtype,
        attention=attention,
        image_mode=image_mode,
        system=system,
        hub=hub,
        data_workers=data_workers,
        callbacks=[ProgressLine(f"train {objective.variant.name} seed {seed}")],
    )
    args = trainer.args
    trainer.write_weights(final)
    if args.should_save:
        summary = {
            "steps": trainer.state.global_step,
            "batch": optimiser_batch(args),
            # q averages one micro-batch over all processes; accumulation does not widen it.
            "q_batch": args.per_device_train_batch_size * args.world_size,
            # Batch averages of psi_sum up to this count as 0 in q and gamma; nats.
            "margin_noise": trainer.margin_noise,
            "trained_parameters": trainer.run_identity["trained"],
            "made_from": made_from,
        }
        write_json(folder / "training.json", summary)
        checkpoints.clear(folder)
    trainer.accelerator.wait_for_everyone()
    return final


def fit(
    folder: Path,
    model_path: str | Path,
    rows: Any,
    objective: Objective,
    settings: Training,
    seed: int,
    tune: str,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    image_mode: str = "crop",
    system: str = "",
    hub: tuple[str, str] | None = None,
    data_workers: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
) -> NaPOTrainer:
    """Train the base model; the trainer then holds the trained model, which is not written.

    The arguments are those of `train_run`, and further callbacks of the trainer. An interrupted
    run continues from its last checkpoint in `folder`.

    Raises:
        NapoError: as `NaPOTrainer`, or for half precision without `settings.bf16`.
    """
    if tune == "full":
        if dtype != "float32" and not settings.bf16:
            raise NapoError(half_precision(dtype))
        dtype = "float32"  # with bf16, products are in bfloat16
    sweep(folder)
    name = run_name(objective.variant.name, seed, tune)
    args = trainer_arguments(folder, settings, seed, tune, data_workers, name)
    model, processor = load_model(
        model_path,
        dtype=dtype,
        attention=attention,
        image_mode=image_mode,
        system=system,
        device=str(args.device) if tune == "qlora" else "cpu",
        four_bit=tune == "qlora",
    )
    trainer = NaPOTrainer(
        model=model,
        args=args,
        objective=objective,
        train_dataset=rows,
        processing_class=processor,
        peft_config=None
        if tune == "full"
        else lora_config(settings, families.of_config(model.config)),
    )
    if hub and tune != "full":
        adapter = trainer.model.peft_config["default"]
        adapter.base_model_name_or_path, adapter.revision = hub
    trainer.remove_callback(PrinterCallback)
    for callback in (*callbacks, LastStep()):
        trainer.add_callback(callback)
    checkpoint = checkpoints.latest(folder, trainer.run_identity)
    with watched(trainer, folder, fresh=checkpoint is None):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def optimiser_batch(args: NaPOConfig) -> int:
    """Rows of an optimiser step, over all processes."""
    micro_batch = args.per_device_train_batch_size * args.world_size
    return micro_batch * args.gradient_accumulation_steps


@contextmanager
def watched(trainer: NaPOTrainer, folder: Path, fresh: bool) -> Iterator[None]:
    """Let reports go to `events/RUN` beside the run folder, which is sealed when it is finished.

    Args:
        trainer: the trainer, with the callbacks of its `report_to`.
        folder: the run folder.
        fresh: whether the run starts at its first step; then older reports are removed.
    """
    events, reporters = folder.parent / "events" / folder.name, trainer.args.report_to
    if not reporters or not trainer.is_world_process_zero():
        yield
        return
    if fresh:
        shutil.rmtree(events, ignore_errors=True)
    make_folder(events)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(events)
    variables = {"WANDB_DIR": str(events), "WANDB_PROJECT": trainer.args.project}
    unset = variables.keys() - os.environ.keys()
    os.environ |= {name: variables[name] for name in unset}
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]
        if "wandb" in reporters:  # else the next run of this process is reported as this one
            import_module("wandb").finish()


def lora_config(settings: Training, family: families.Family) -> Any:
    """LoRA on the settings' target modules (by default the family's), outside the image parts."""
    from peft import LoraConfig

    targets = settings.lora_targets or family.lora_targets
    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=[name.strip() for name in targets.split(",")],
        exclude_modules=family.image_parts,
    )


def run_from_file(run: Run) -> Path:
    """Train the run of a file; its folder is claimed before and sealed with a manifest after.

    Raises:
        NapoError: as `train_run`, or when the reference was computed with other settings.
    """
    rows, reference = Path(run.rows), Path(run.reference)
    scored = require(reference)["settings"] if complete(reference) else {}
    given = {"image_mode": run.image_mode, "system": run.system}
    if run.tune != "qlora":  # which computes the reference itself
        given |= {"max_length": run.training.max_length, "dtype": run.dtype}
    for name, value in given.items():
        if scored.get(name, value) != value:
            raise NapoError(
                f"{name} is {value!r}, and the reference in {reference} was computed "
                f"with {scored[name]!r}; give the same."
            )
    settings = {
        **run.model_dump(
            exclude={"run_folder", "model", "rows", "reference", "data_workers", "training"}
        ),
        "training": run.training.identity(run.tune),
        "model": model_fingerprint(run.model),
        "rows": checked_fingerprint(rows),
        "reference": checked_fingerprint(reference),
    }
    provenance.set_session(
        "run file", fingerprint(settings), {"variant": run.variant, "seed": run.seed}
    )
    first = int(os.environ.get("RANK", "0")) == 0  # only one process claims the folder
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
            system=run.system,
            data_workers=run.data_workers,
        )
