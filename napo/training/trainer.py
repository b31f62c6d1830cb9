"""Train a variant: a thin subclass of `transformers.Trainer`.

    accelerate launch -m napo.training.trainer RUN.yaml      a whole run, see `napo.training.run`

The subclass runs the shared-prefix pass, the objective, and keeps per-example records; everything
else (optimiser, schedule, precision, processes) is the ecosystem's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput

from napo.errors import NapoError, unknown
from napo.method import logprobs
from napo.method.layout import Batch
from napo.method.mask import choose_layout
from napo.method.objective import Objective, mean_records
from napo.method.tensors import LogProbs
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
from napo.training.records import Records
from napo.training.rows import EncodedRows, Epochs, EpochSampler
from napo.workspace.files import read_json, write_json, writing

_SETS = ("target_modules", "exclude_modules")  # of an adapter's configuration
REFERENCES = ("cached", "adapter_off")


@dataclass
class NaPOConfig(TrainingArguments):
    """`TrainingArguments` with what preference training needs, and defaults that suit it."""

    max_length: int | None = field(
        default=None, metadata={"help": "Most tokens of a prompt with one response."}
    )
    logits_mb: float = field(
        default=256, metadata={"help": "Most megabytes of float32 logits held at any time."}
    )
    corruption: str = field(
        default="crop", metadata={"help": "mDPO's corrupted image: crop or mask_token."}
    )
    margin_tolerance: float | None = field(
        default=None,
        metadata={"help": "Largest difference a token between model and reference at step 0."},
    )
    reference: str = field(
        default="cached",
        metadata={
            "help": "cached: the reference's log-probs come with the rows, or are scored before "
            "the first step; adapter_off: each step passes once more without the adapter."
        },
    )
    remove_unused_columns: bool = field(default=False)
    dataloader_drop_last: bool = field(default=True)
    # Passed to the model's config, and so to what is saved: generation wants its cache.
    use_cache: bool = field(default=True)
    report_to: str | list[str] | None = field(default="none")


class NaPOTrainer(Trainer):
    """Noise-aware preference optimization of a multimodal model.

    Args:
        model: a Hugging Face model of images and text, or a PEFT model.
        args: the settings.
        objective: what is minimised, such as `Objective(VARIANTS["A1"])`.
        train_dataset: rows of RLAIF-V-Bias, images decoded, with the reference's columns joined;
            rows without those columns are first scored by the model as it is.
        processing_class: the model's processor.
        peft_config: wraps the model in an adapter; without it, and where the model has none, the
            language model and projector are trained and the vision tower stays as it is.
        kwargs: further arguments of `transformers.Trainer`.

    Raises:
        NapoError: for an empty response, a prompt longer than `max_length`, fewer rows than a
            batch, a LoRA target that does not exist, or reference "adapter_off" without an adapter.
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
            args._n_gpu = 1  # DataParallel would slip in without a word; see accelerate launch
        if kwargs.get("eval_dataset") is not None or args.eval_strategy != "no":
            raise NapoError(
                "NaPOTrainer does not evaluate while it trains; leave out eval_dataset and "
                "eval_strategy, and evaluate with notebooks/06_evaluate.ipynb."
            )
        if args.reference not in REFERENCES:
            raise unknown("reference", args.reference, REFERENCES)
        self._adapter_off = args.reference == "adapter_off"
        if self._adapter_off and peft_config is None and not hasattr(model, "peft_config"):
            raise NapoError(
                "reference is adapter_off, and this model has no adapter to switch off; "
                "give a peft_config, or use reference cached."
            )
        layout = choose_layout(model)
        rows = EncodedRows(
            train_dataset,
            processing_class,
            objective.responses,
            max_length=args.max_length,
            corruption=args.corruption,
            scorer=model if _quantized(model) else model.to(args.device),
            logits_mb=args.logits_mb,
            reference=not self._adapter_off,
        )
        whole = args.per_device_train_batch_size * args.gradient_accumulation_steps
        whole *= args.world_size
        if len(rows) < whole:
            raise NapoError(
                f"There are {len(rows)} rows, fewer than one batch of {whole}; "
                "lower the batch size or add rows."
            )
        model = _trainable(model, peft_config, args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=processing_class,
            # A dict, because Trainer looks for names in its inputs.
            data_collator=lambda items: {"batch": rows.collate(items, layout)},
            **kwargs,
        )
        self.objective = objective
        self.loss_is_scaled_for_ga = False  # the loss is a mean over the micro-batch
        self.records = Records(Path(args.output_dir).parent / "records")
        logged = max(1, int(args.logging_steps)) * args.gradient_accumulation_steps
        self._recent: deque[dict[str, Tensor]] = deque(maxlen=logged)
        self._sampler = EpochSampler(len(rows), whole, args.seed)
        self.add_callback(Epochs(self._sampler))

    @property
    def run_identity(self) -> dict[str, Any]:
        """What a checkpoint of this run has to agree with."""
        args = self.args
        return {
            "objective": repr(self.objective.definition()),
            "rows": self.train_dataset.digest,
            "seed": args.seed,
            "epochs": args.num_train_epochs,
            "max_steps": args.max_steps,
            "learning_rate": args.learning_rate,
            "weight_decay": args.weight_decay,
            "schedule": str(args.lr_scheduler_type),
            "warmup": args.warmup_steps,
            "micro_batch": args.per_device_train_batch_size,
            "accumulation": args.gradient_accumulation_steps,
            "processes": args.world_size,
            "max_length": args.max_length,
            "max_grad_norm": args.max_grad_norm,
            "bf16": args.bf16,
            "corruption": args.corruption,
            "reference": args.reference,
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
        batch = inputs["batch"]
        if self._adapter_off:
            batch = replace(batch, reference=self._without_adapter(model, batch))
        policy = logprobs.response_logprobs(model, batch, logits_mb=self.args.logits_mb)
        step = self.state.global_step
        self._refuse_nonsense(batch, policy, first=step == 0)
        output = self.objective(policy, batch.reference, step=step, seed=self.args.seed)
        if not output.loss.isfinite():
            raise self._diverged("The loss is not finite")
        if model.training:
            self.records.add(step, batch.ids, output.records)
            self._recent.append(output.records)
        return (output.loss, output) if return_outputs else output.loss

    def _without_adapter(self, model: nn.Module, batch: Batch) -> LogProbs:
        """The reference's log-probs: the policy's own, its adapter switched off."""
        with torch.no_grad(), self.accelerator.unwrap_model(model).disable_adapter():
            found = logprobs.response_logprobs(model, batch, logits_mb=self.args.logits_mb)
        return replace(found, sum=found.sum.double())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the averages of the recent steps' records beside the loss."""
        if self._recent and "loss" in logs:
            means = mean_records(self._recent)
            logs |= {name: value for name, value in means.items() if name != "loss"}
            self._recent.clear()
        super().log(logs, start_time)

    def _refuse_nonsense(self, batch: Batch, policy: LogProbs, *, first: bool) -> None:
        """Stop on a log-prob that is no number, and at step 0 on one that the reference lacks."""
        apart = (policy.sum.detach() - batch.reference.sum).abs() / policy.tokens
        tolerance = float("inf")
        if first:
            half = self.args.bf16 or next(self.model.parameters()).dtype != torch.float32
            given = self.args.margin_tolerance
            tolerance = given if given is not None else (0.1 if half else 1e-3)
        wrong = ~(apart <= tolerance) | ~policy.sum.isfinite()
        if not wrong.any():
            return
        row, response = (int(place) for place in wrong.nonzero()[0])
        where = f"row {batch.ids[row]}, {batch.responses[response]}"
        if not torch.isfinite(apart[row, response]):
            if not torch.isfinite(batch.reference.sum[row, response]):
                raise NapoError(
                    f"The reference's log-probability is not a number ({where}); "
                    "run notebooks/01_build_biased_data.ipynb again."
                )
            raise self._diverged(f"A log-probability is not a number ({where})")
        raise NapoError(
            f"Before training, the model and the reference differ by {apart[row, response]:.4f} "
            f"a token ({where}): the reference belongs to another model, data or preprocessing; "
            "run notebooks/01_build_biased_data.ipynb again."
        )

    def _diverged(self, what: str) -> NapoError:
        """What is said when numbers overflow: the step, what to try, and what there is to keep."""
        kept = checkpoints.latest(Path(self.args.output_dir))
        there = f"{kept} is kept" if kept else "there was no checkpoint yet"
        return NapoError(
            f"{what} at step {self.state.global_step}; lower the learning rate or beta, or warm up "
            f"for longer, in another run folder ({there})."
        )

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm; one that is not finite stops before the step that it would spoil."""
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not math.isfinite(norm):
            raise self._diverged("The gradient is not finite")
        return norm

    def refuse_spoilt_weights(self) -> None:
        """Stop before weights that are not finite take the place of a checkpoint.

        Raises:
            NapoError: naming the step and the checkpoint that is kept.
        """
        trained = (each for each in self.model.parameters() if each.requires_grad)
        if not all(each.isfinite().all() for each in trained):
            raise self._diverged("A weight is not finite")

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._sampler

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as `transformers.Trainer` does, and write the last records."""
        try:
            output = super().train(*args, **kwargs)
        except NapoError as error:  # a data worker's comes with its traceback around it
            raise NapoError(str(error).rpartition("NapoError: ")[2].strip()) from None
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise NapoError(
                f"Memory ran out at step {self.state.global_step}; lower micro_batch_size or "
                "logits_mb, set gradient_checkpointing, or use more memory "
                "(python -m napo.commands.budget says how much)."
            ) from None
        self.refuse_spoilt_weights()
        self.records.flush(self.state.global_step, last=True)
        return output

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint that is whole or not there; the one before goes after it."""
        self.refuse_spoilt_weights()
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        self.records.flush(self.state.global_step)
        with writing(folder):
            self._write_checkpoint(folder)

    def _write_checkpoint(self, folder: Path) -> None:
        path = folder.with_name(folder.name + ".part")
        if self.args.should_save:
            checkpoints.draft(folder)
        self.accelerator.wait_for_everyone()
        self.save_model(str(path), _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(str(path))
            self._save_scaler(str(path))
            self._save_rng_state(str(path))
        if self.args.should_save:
            self.state.save_to_json(str(path / "trainer_state.json"))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(path, folder, self.run_identity)
            checkpoints.prune(folder.parent, keep=folder)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with without_bars():
            super()._save(output_dir, state_dict=state_dict)
        # Trainer pickles its arguments beside the weights; a run's settings are JSON.
        folder = Path(output_dir or self.args.output_dir)
        (folder / "training_args.bin").unlink(missing_ok=True)
        adapter = folder / "adapter_config.json"
        if adapter.is_file():  # peft keeps sets, whose order is another one in every process
            config = read_json(adapter)
            sets = {key: sorted(config[key]) for key in _SETS if isinstance(config.get(key), list)}
            write_json(adapter, {**config, **sets})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights strictly; Trainer's own way can leave the initial ones."""
        path = Path(resume_from_checkpoint)
        checkpoints.verify(path, self.run_identity)
        if not self.is_fsdp_enabled and not (path / "optimizer.pt").is_file():
            raise NapoError(f"{path} has no optimizer.pt to resume from; delete this checkpoint.")
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif (path / "adapter_config.json").is_file():
            load_adapter_weights(self.model, path)
        else:
            saved, _ = load_model(path, device="cpu")
            self.model.load_state_dict(saved.state_dict(), strict=True)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _only_tensors(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _only_tensors(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _only_tensors(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        self.records.restart(self.state.global_step if checkpoint else 0)


@contextmanager
def _only_tensors(checkpoint: str | None) -> Iterator[None]:
    """Trainer reads its state with `weights_only=True`; a file that wants to run code is named."""
    try:
        yield
    except UnpicklingError:
        raise NapoError(
            f"The optimiser's, scheduler's or random state in {checkpoint} holds more than tensors "
            "and numbers, so it was not loaded; delete this checkpoint."
        ) from None


def _quantized(model: nn.Module) -> bool:
    """Whether the base is held in 4 bits, which stays on the device that it was loaded to."""
    return getattr(unwrap(model), "is_loaded_in_4bit", False)


def _trainable(model: nn.Module, peft_config: Any, seed: int) -> nn.Module:
    """The model with the parameters that are to be trained: an adapter's, or all but vision."""
    if hasattr(model, "peft_config"):
        return model
    if peft_config is None:
        freeze_vision_tower(model)
        return model
    return add_adapter(model, peft_config, seed)
