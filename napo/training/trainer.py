"""`NaPOTrainer`: a thin subclass of `transformers.Trainer`.

It runs the shared-prefix pass and the objective, and keeps per-example records. The optimiser,
schedule, precision and processes are those of `transformers` and `accelerate`.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import TrainOutput

from napo.errors import NapoError, unknown
from napo.method import logprobs
from napo.method.mask import choose_layout
from napo.method.objective import Objective, mean_records
from napo.models.halving import ran_out
from napo.models.load import (
    add_adapter,
    freeze_vision_tower,
    load_adapter_weights,
    load_model,
    unwrap,
    without_bars,
)
from napo.training import checkpoints
from napo.training.divergence import Diverged, check_log_probs, check_weights
from napo.training.records import Records
from napo.training.rows import EncodedRows, EpochSampler
from napo.workspace.files import read_json, write_json, writing

REFERENCES = ("cached", "adapter_off")
IDENTITY = (  # settings that a resumed run must share with its checkpoint
    *("seed", "num_train_epochs", "max_steps", "learning_rate", "weight_decay", "warmup_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "world_size"),
    *("max_length", "max_grad_norm", "bf16", "reference"),
)


@dataclass
class NaPOConfig(TrainingArguments):
    """`TrainingArguments` with settings and defaults for preference training.

    Attributes:
        max_length: maximum number of tokens of a prompt with one response.
        logits_mb: limit for float32 logits in memory, in megabytes.
        reference: "cached": the reference's log-probs are columns of the rows, or are computed
            before the first step; "adapter_off": each step computes them without the adapter.
    """

    max_length: int | None = None
    logits_mb: float = 256
    reference: str = "cached"
    remove_unused_columns: bool = False
    dataloader_drop_last: bool = True
    # It is copied to the saved model's config, and generation needs its cache.
    use_cache: bool = True
    report_to: str | list[str] | None = "none"


class StepCallback(TrainerCallback):
    """Tells sampler and records of a trainer where a new or resumed run starts."""

    def __init__(self, trainer: NaPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Records start at the first step of this call."""
        self.trainer.records.restart(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The sampler shuffles anew; a resumed run begins inside an epoch."""
        self.trainer.sampler.epoch = int(state.epoch or 0)


class NaPOTrainer(Trainer):
    """Noise-aware preference optimization of a multimodal model.

    Args:
        model: a Hugging Face model of images and text, or a PEFT model.
        args: the settings.
        objective: the loss, such as `Objective(VARIANTS["A1"])`.
        train_dataset: rows of RLAIF-V-Bias, images decoded, with the reference's columns. Rows
            without these columns are scored by the model before training.
        processing_class: the model's processor.
        peft_config: adapter to train. Without it, a model that has no adapter is trained itself;
            its vision tower stays frozen.
        kwargs: further arguments of `transformers.Trainer`.

    Raises:
        NapoError: for an empty response, a prompt longer than `max_length`, fewer rows than a
            batch, an unknown LoRA target, or reference "adapter_off" without an adapter.
    """

    def __init__(
        self,
        model: nn.Module,
        args: NaPOConfig,
        objective: Objective,
        train_dataset: Any,
        processing_class: Any,
        peft_config: Any = None,
        **kwargs: Any,
    ) -> None:
        if args.n_gpu > 1:
            args._n_gpu = 1  # else Trainer would use DataParallel silently; see accelerate launch
        if kwargs.get("eval_dataset") is not None or args.eval_strategy != "no":
            raise NapoError(
                "NaPOTrainer does not evaluate during training; leave out eval_dataset and "
                "eval_strategy, and run notebooks/06_evaluate.ipynb afterwards."
            )
        if args.reference not in REFERENCES:
            raise unknown("reference", args.reference, REFERENCES)
        has_adapter = hasattr(model, "peft_config")
        if args.reference == "adapter_off" and peft_config is None and not has_adapter:
            raise NapoError(
                "reference is adapter_off, but this model has no adapter to switch off; "
                "give a peft_config, or use reference cached."
            )
        layout = choose_layout(model)
        # A 4-bit model stays on the device that it was loaded to.
        four_bit = getattr(unwrap(model), "is_loaded_in_4bit", False)
        rows = EncodedRows(
            train_dataset,
            processing_class,
            objective.responses,
            max_length=args.max_length,
            scorer=model if four_bit else model.to(args.device),
            logits_mb=args.logits_mb,
            reference=args.reference == "cached",
        )
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
        batch *= args.world_size
        if len(rows) < batch:
            raise NapoError(
                f"There are {len(rows)} rows, fewer than one batch of {batch}; "
                "lower the batch size or add rows."
            )
        if peft_config is not None and not has_adapter:
            model = add_adapter(model, peft_config, args.seed)
        elif not has_adapter:
            freeze_vision_tower(model)
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=processing_class,
            # A dict, because Trainer looks up names in its inputs.
            data_collator=lambda items: {"batch": rows.collate(items, layout)},
            **kwargs,
        )
        self.objective = objective
        self.loss_is_scaled_for_ga = False  # the loss is a mean over the micro-batch
        self.records = Records(Path(args.output_dir).parent / "records")
        logged = max(1, int(args.logging_steps)) * args.gradient_accumulation_steps
        self.recent_records: deque[dict[str, Tensor]] = deque(maxlen=logged)
        self.sampler = EpochSampler(len(rows), batch, args.seed)
        self.add_callback(StepCallback(self))

    @property
    def run_identity(self) -> dict[str, Any]:
        """Settings and data of this run; a checkpoint with others is refused."""
        return {
            **{name: getattr(self.args, name) for name in IDENTITY},
            "objective": repr(self.objective.definition()),
            "rows": self.train_dataset.digest,
            "schedule": str(self.args.lr_scheduler_type),
            "trained": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
        }

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective of a batch; its records are kept."""
        batch, logits_mb = inputs["batch"], self.args.logits_mb
        if self.args.reference == "adapter_off":
            with torch.no_grad(), self.accelerator.unwrap_model(model).disable_adapter():
                reference = logprobs.response_logprobs(model, batch, logits_mb=logits_mb)
            batch = replace(batch, reference=replace(reference, sum=reference.sum.double()))
        policy = logprobs.response_logprobs(model, batch, logits_mb=logits_mb)
        step = self.state.global_step
        tolerance = float("inf")
        if step == 0:
            half = self.args.bf16 or next(self.model.parameters()).dtype != torch.float32
            tolerance = 0.1 if half else 1e-3
        check_log_probs(policy, batch, tolerance)
        output = self.objective(policy, batch.reference, step=step, seed=self.args.seed)
        if not output.loss.isfinite():
            raise Diverged("The loss is not finite")
        if model.training:
            self.records.add(step, batch.ids, output.records)
            self.recent_records.append(output.records)
        return (output.loss, output) if return_outputs else output.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the averages of recent records beside the loss."""
        if self.recent_records and "loss" in logs:
            means = mean_records(self.recent_records)
            logs |= {name: value for name, value in means.items() if name != "loss"}
            self.recent_records.clear()
        super().log(logs, start_time)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm. Stops before the optimiser uses a gradient that is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not math.isfinite(norm):
            raise Diverged("The gradient is not finite")
        return norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.sampler

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Train as `transformers.Trainer` does, and write the last records.

        Raises:
            NapoError: if numbers are not finite, memory runs out, a row cannot be used, or the
                checkpoint is damaged.
        """
        try:
            output = super().train(resume_from_checkpoint, **kwargs)
            check_weights(self.model)
        except Diverged as error:
            checkpoint = checkpoints.latest(Path(self.args.output_dir), self.run_identity)
            rest = f"{checkpoint} is kept" if checkpoint else "there was no checkpoint yet"
            raise NapoError(
                f"{error} at step {self.state.global_step}; lower the learning rate or beta, or "
                f"use a longer warm-up, in another run folder ({rest})."
            ) from None
        except NapoError as error:  # a data worker's message contains its traceback
            raise NapoError(re.sub(r"(?s).*\nnapo\.[\w.]+: ", "", str(error)).strip()) from None
        except UnpicklingError:  # Trainer reads its state with `weights_only=True`
            raise NapoError(
                f"The optimiser, scheduler or random state in {resume_from_checkpoint} holds more "
                "than tensors and numbers, so it was not loaded; delete this checkpoint."
            ) from None
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise NapoError(
                f"Memory ran out at step {self.state.global_step}; lower micro_batch_size or "
                "logits_mb, set gradient_checkpointing, or use more memory "
                "(napo budget says how much)."
            ) from None
        self.records.flush(self.state.global_step, last=True)
        return output

    def write_weights(self, folder: Path) -> None:
        """Write the trained weights; an existing folder stays complete until it is replaced.

        Raises:
            NapoError: if the disk refuses, or the launcher's settings save no weights.
        """
        if self.is_fsdp_enabled:  # Trainer saves no model from sharded states
            self.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        with writing(folder):
            draft = checkpoints.draft(folder, create=self.args.should_save)
            self.accelerator.wait_for_everyone()
            self.save_model(str(draft), _internal_call=True)
            if not self.args.should_save:
                return
            if not list(draft.glob("*.safetensors")):
                raise NapoError(
                    f"No weights were written to {draft}, and the checkpoints in "
                    f"{self.args.output_dir} are kept; check the launcher's settings for saving."
                )
            checkpoints.install(draft, folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a complete checkpoint; only then remove the previous one."""
        check_weights(self.model)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        self.records.flush(self.state.global_step)
        with writing(folder):
            draft = checkpoints.draft(folder, create=self.args.should_save)
            self.accelerator.wait_for_everyone()
            self.save_model(str(draft), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(draft))
                self._save_scaler(str(draft))
                self._save_rng_state(str(draft))
            if self.args.should_save:
                self.state.save_to_json(str(draft / "trainer_state.json"))
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoints.seal(draft, folder, self.run_identity)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with without_bars():
            super()._save(output_dir, state_dict=state_dict)
        folder = Path(output_dir or self.args.output_dir)
        # Trainer pickles its arguments beside the weights; a run keeps its settings as JSON.
        (folder / "training_args.bin").unlink(missing_ok=True)
        file = folder / "adapter_config.json"
        if file.is_file():  # peft writes sets as lists, in another order in every process
            config = read_json(file)
            for key in ("target_modules", "exclude_modules"):
                if isinstance(config.get(key), list):
                    config[key] = sorted(config[key])
            write_json(file, config)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights strictly; Trainer can leave the initial ones in place."""
        folder = Path(resume_from_checkpoint)
        checkpoints.require(folder, self.run_identity)
        if not self.is_fsdp_enabled and not (folder / "optimizer.pt").is_file():
            raise NapoError(f"{folder} has no optimizer.pt to resume from; delete this checkpoint.")
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif (folder / "adapter_config.json").is_file():
            load_adapter_weights(self.model, folder)
        else:
            saved, _ = load_model(folder, device="cpu")
            self.model.load_state_dict(saved.state_dict(), strict=True)
