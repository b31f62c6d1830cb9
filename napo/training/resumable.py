"""`ResumableTrainer`: a `transformers.Trainer` whose checkpoints and weights are whole or absent.

All private methods of `transformers.Trainer` that napo overrides are in this file. A test compares
their signatures, and `pyproject.toml` bounds the versions of transformers.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from napo.errors import NapoError
from napo.models.halving import ran_out
from napo.models.load import load_adapter_weights, load_model, without_bars
from napo.training import checkpoints
from napo.training.divergence import Diverged, check_weights
from napo.training.records import Records
from napo.training.sharded import whole_weights
from napo.workspace.files import writing


class ResumableTrainer(Trainer):
    """Saves and resumes a run, and stops it where numbers are not finite.

    Attributes:
        records: the run's per-example records, written with each checkpoint.
        run_identity: settings and data of this run; a checkpoint with others is refused.
    """

    records: Records
    run_identity: dict[str, Any]

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train as `transformers.Trainer` does, and write the last records.

        Args:
            resume_from_checkpoint: a checkpoint of this run, or True for its last one; by default
                that of the settings.
            kwargs: further arguments of `transformers.Trainer.train`.

        Raises:
            NapoError: if numbers are not finite, memory runs out, a row cannot be used, or the
                checkpoint is missing, damaged or of another run.
        """
        checkpoint = resume_from_checkpoint
        if checkpoint is None:
            checkpoint = self.args.resume_from_checkpoint
        output_dir = Path(self.args.output_dir)
        if checkpoint is True:
            checkpoint = checkpoints.latest(output_dir, self.run_identity)
            if checkpoint is None:
                raise NapoError(
                    f"{output_dir} holds no complete checkpoint; "
                    "leave resume_from_checkpoint out to start from the first step."
                )
        if checkpoint:
            checkpoints.require(Path(checkpoint), self.run_identity)
        try:
            output = super().train(str(checkpoint) if checkpoint else None, **kwargs)
            check_weights(self.model)
        except Diverged as error:
            kept = checkpoints.of_run(output_dir, self.run_identity)[-1:]
            rest = f"{kept[0]} is kept" if kept else "there was no checkpoint yet"
            raise NapoError(
                f"{error} at step {self.state.global_step}; lower the learning rate or beta, or "
                f"use a longer warm-up, in another run folder ({rest})."
            ) from None
        except NapoError as error:  # a data worker's message contains its traceback
            raise NapoError(re.sub(r"(?s).*\nnapo\.[\w.]+: ", "", str(error)).strip()) from None
        except UnpicklingError:  # Trainer reads its state with `weights_only=True`
            raise NapoError(
                f"The optimiser, scheduler or random state in {checkpoint} holds more "
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
            self.save_model(str(draft))
            if not self.args.should_save:
                return
            if not list(draft.glob("*.safetensors")):
                raise NapoError(
                    f"No weights were written to {draft}, and the checkpoints in "
                    f"{self.args.output_dir} are kept; check the launcher's settings for saving."
                )
            checkpoints.install(draft, folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write weights, config and processor: no pickles, and the same bytes in every process."""
        with without_bars():
            if self.is_deepspeed_enabled:
                adapter_only = hasattr(self.model, "peft_config")
                weights = whole_weights(self.model, self.args.should_save, adapter_only)
                self._save(output_dir, state_dict=weights)
                if self.args.should_save and not adapter_only:  # else it names DeepSpeed's type
                    self.model.config.dtype = "float32"
                    self.model.config.save_pretrained(output_dir or self.args.output_dir)
            else:
                super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            checkpoints.tidy(Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a complete checkpoint; only then remove older ones."""
        check_weights(self.model)
        output_dir = self.args.output_dir
        folder = Path(output_dir) / f"checkpoint-{self.state.global_step}"
        self.records.flush(self.state.global_step)
        with writing(folder):
            draft = checkpoints.draft(folder, create=self.args.should_save)
            self.accelerator.wait_for_everyone()
            self.args.output_dir = str(draft)  # Trainer writes, and counts checkpoints, in it
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = output_dir
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                limit = self.args.save_total_limit
                checkpoints.seal(draft / folder.name, folder, self.run_identity, limit)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights strictly; Trainer can leave the initial ones in place."""
        folder = Path(resume_from_checkpoint)
        if not self.is_fsdp_enabled and not (folder / "optimizer.pt").is_file():
            raise NapoError(f"{folder} has no optimizer.pt to resume from; delete this checkpoint.")
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif (folder / "adapter_config.json").is_file():
            load_adapter_weights(self.model, folder)
        else:
            saved, _ = load_model(folder, device="cpu")
            self.model.load_state_dict(saved.state_dict(), strict=True)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm. Stops before the optimiser uses a gradient that is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not math.isfinite(norm):
            raise Diverged("The gradient is not finite")
        return norm
