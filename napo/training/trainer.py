"""`NaPOTrainer`: a thin subclass of `transformers.Trainer`.

It runs the shared-prefix pass and the objective, and keeps per-example records. The optimiser,
schedule, precision and processes are those of `transformers` and `accelerate`.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum, inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.losses import running_spread
from napo.method.mask import choose_layout
from napo.method.objective import ROUNDING, Objective, mean_over_processes, mean_records
from napo.models.load import (
    add_adapter,
    freeze_vision_tower,
    load_model,
    unwrap,
    wrap_held_classes,
)
from napo.training.arguments import EVALUATION, NaPOConfig, check_arguments
from napo.training.divergence import NO_BACKWARD, Diverged, check_log_probs, check_trained
from napo.training.records import Records, read_records
from napo.training.resumable import ResumableTrainer
from napo.training.rows import EncodedRows, EpochSampler
from napo.training.sharded import size
from napo.workspace.files import json_value

IDENTITY = (  # settings that a resumed run must share with its checkpoint
    *("seed", "data_seed", "num_train_epochs", "max_steps", "learning_rate", "weight_decay"),
    *("lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "optim_target_modules"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "bf16"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "world_size"),
    *("max_length", "reference"),
)


class StepCallback(TrainerCallback):
    """Tells sampler and records where a run starts, and measures margins after each step."""

    def __init__(self, trainer: NaPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Records start at the first step of this call."""
        self.trainer.recent_records.clear()
        self.trainer.records.restart(state.global_step)
        self.trainer.spreads = [0.0] * len(self.trainer.spreads)
        if state.global_step > 0:
            records = read_records(Path(args.output_dir))
            self.trainer.measure_noise(records[records["step"] == 0].to_dict("list"))
            last = records[records["step"] == state.global_step - 1].to_dict("list")
            self.trainer.measure_spreads(state.global_step - 1, last)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The sampler shuffles anew; a resumed run begins inside an epoch."""
        self.trainer.sampler.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The records of the first step show how far margins lie from 0 by rounding alone."""
        columns, step = self.trainer.records.columns, state.global_step - 1
        if step == 0:
            self.trainer.measure_noise(columns)
        elif self.trainer.objective.reads_pairs:
            first = bisect_left(columns["step"], step)
            rows = {name: values[first:] for name, values in columns.items()}
            self.trainer.measure_spreads(step, rows)


class NaPOTrainer(ResumableTrainer):
    """Noise-aware preference optimization of a multimodal model.

    It writes checkpoints and `records/` into `args.output_dir`. The arguments of
    `transformers.Trainer` that it does not honour are in `napo.training.arguments`.

    Args:
        model: a Hugging Face model of images and text, a PEFT model, or the folder or hub id of
            one, which is loaded in float32.
        args: the settings.
        objective: the loss, such as `Objective(VARIANTS["A1"])`, or a variant's name.
        train_dataset: rows of RLAIF-V-Bias, a dataset or a sequence of dicts (see
            `napo.method.layout.read_row`). Rows without the reference's columns are scored by the
            model before training. Runs on the same rows can share one `EncodedRows`.
        processing_class: the model's processor; not needed with a folder or hub id.
        peft_config: adapter to train. Without it, a model that has no adapter is trained itself;
            its vision tower stays frozen.
        callbacks: further callbacks.
        optimizers: an optimiser of the trained weights and its schedule, in place of the settings'.
        optimizer_cls_and_kwargs: a class of optimisers and its arguments, likewise.
        others: none of these is honoured.

    Raises:
        NapoError: for an argument that is not honoured, rows that cannot be used, fewer rows than
            a batch, an unknown LoRA target, nothing to train, or reference "adapter_off" without
            an adapter.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        args: NaPOConfig,
        objective: Objective | str,
        train_dataset: Any,
        processing_class: Any = None,
        peft_config: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        **others: Any,
    ) -> None:
        check_arguments(args, others)
        if args.n_gpu > 1:
            warnings.warn(
                f"NaPOTrainer uses one of {args.n_gpu} GPUs; accelerate launch uses them all.",
                stacklevel=2,
            )
            args._n_gpu = 1  # else Trainer would use DataParallel
        if isinstance(model, str | Path):
            model, processor = load_model(model, device="cpu")
            processing_class = processing_class or processor
        if not hasattr(processing_class, "tokenizer"):
            raise NapoError(
                f"processing_class is {type(processing_class).__name__}; give the model's "
                "processor, the second value of napo.load_model."
            )
        if isinstance(objective, str):
            objective = Objective(VARIANTS[objective])
        has_adapter = hasattr(model, "peft_config")
        if has_adapter and peft_config is not None:
            raise NapoError(
                "peft_config is refused: the model has an adapter already; leave peft_config out, "
                "or merge the adapter first."
            )
        if has_adapter and list(model.peft_config) != ["default"]:
            raise NapoError(
                f"The model's adapters are named {', '.join(model.peft_config)}, and a run could "
                "not be resumed; give a model with one adapter, loaded under peft's own name, "
                "default."
            )
        if args.reference == "adapter_off" and peft_config is None and not has_adapter:
            raise NapoError(
                "reference is adapter_off, but this model has no adapter to switch off; "
                "give a peft_config, or use reference cached."
            )
        wrap_held_classes(unwrap(model))
        layout = choose_layout(model)
        attention = unwrap(model).config.get_text_config()._attn_implementation
        if attention == "flex_attention" and args.device.type == "cpu":
            raise NapoError(NO_BACKWARD)
        # A 4-bit model stays on the device that it was loaded to.
        four_bit = getattr(unwrap(model), "is_loaded_in_4bit", False)
        scorer = model if four_bit else model.to(args.device)
        rows = train_dataset
        if not isinstance(rows, EncodedRows):
            rows = EncodedRows(
                train_dataset,
                processing_class,
                objective.responses,
                max_length=args.max_length,
                scorer=scorer,
                logits_mb=args.logits_mb,
                reference=args.reference == "cached",
                posterior=objective.variant.q_rule == "posterior",
            )
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        if len(rows) < batch:
            raise NapoError(
                f"There are {len(rows)} rows, fewer than one batch of {batch}; "
                "lower the batch size or add rows."
            )
        if peft_config is not None:
            model = add_adapter(model, peft_config, args.seed)
        elif not has_adapter:
            freeze_vision_tower(model)
        check_trained(model, optimizers[0], masters=args.deepspeed_plugin is not None)
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=processing_class,
            # A dict, because Trainer looks up names in its inputs.
            data_collator=lambda items: {"batch": rows.collate(items, layout)},
            callbacks=list(callbacks or ()),
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        self.objective = objective
        self.loss_is_scaled_for_ga = False  # the loss is a mean over the micro-batch
        self.margin_noise = ROUNDING
        self.spreads = [0.0] * len(objective.variant.terms)  # running means of |psi_sum|
        self.records = Records(Path(args.output_dir) / "records")
        self.recent_records: list[dict[str, Tensor]] = []  # since the last report
        seed = args.seed if args.data_seed is None else args.data_seed
        self.sampler = EpochSampler(len(rows), batch, seed)
        self.add_callback(StepCallback(self))

    @property
    def run_identity(self) -> dict[str, Any]:
        """Settings and data of this run; a checkpoint with others is refused."""
        return json_value(
            {
                **{name: getattr(self.args, name) for name in IDENTITY},
                "objective": repr(self.objective.definition()),
                "rows": self.train_dataset.digest,
                "schedule": str(self.args.lr_scheduler_type),
                "trained": sum(size(p) for p in self.model.parameters() if p.requires_grad),
            }
        )

    def measure_noise(self, records: dict[str, list[float]]) -> None:
        """Set `margin_noise` from records of the first step: mean |psi_sum|, added over the terms.

        The total of that step's batch averages is at most this. Three digits are kept, so that a
        resumed run and other numbers of processes get the same value.
        """
        psi_sums = [records[f"{term.name}_psi_sum"] for term in self.objective.variant.terms]
        means = [fsum(map(abs, values)) / len(values) for values in psi_sums]
        total = mean_over_processes(torch.tensor(means, device=self.args.device)).sum().item()
        self.margin_noise = max(ROUNDING, float(f"{total:.2e}"))

    def measure_spreads(self, step: int, records: Mapping[str, list[float]]) -> None:
        """Set `spreads` from the records of a step, for the next one.

        They change once a step and not with each micro-batch: so the loss of a pair does not depend
        on how a batch is divided over micro-batches and processes. The records hold the values
        that a step used, in float32, so that a resumed run goes on with the same bits. The first
        step does not count: no weight has moved, so its margins are rounding.
        """
        if step == 0 or not self.objective.reads_pairs:
            return
        names = [term.name for term in self.objective.variant.terms]
        sizes = [records[f"{name}_psi_sum"] for name in names]
        local = [fsum(map(abs, values)) / len(values) for values in sizes]
        means = mean_over_processes(
            torch.tensor(local, dtype=torch.float64, device=self.args.device)
        ).tolist()
        used = [records[f"{name}_spread"][0] for name in names]
        pairs = zip(used, means, strict=True)
        spreads = [running_spread(spread, mean, step) for spread, mean in pairs]
        self.spreads = torch.tensor(spreads, dtype=torch.float32).tolist()

    def get_train_dataloader(self) -> DataLoader:
        """Batches of rows, in the order of the sampler."""
        args = self.args
        loader = DataLoader(
            self.train_dataset,
            batch_size=args.train_batch_size,
            sampler=self.sampler,
            collate_fn=self.data_collator,
            drop_last=True,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )
        return self.accelerator.prepare(loader)

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
        step, noise = self.state.global_step, self.margin_noise
        tolerance = inf
        if step == 0:  # no weight has moved, so every margin is rounding
            noise = inf
            half = self.args.bf16 or next(self.model.parameters()).dtype != torch.float32
            tolerance = 0.1 if half else 1e-3
        check_log_probs(policy, batch, tolerance, self.args.reference == "adapter_off")
        output = self.objective(
            policy,
            batch.reference,
            step=step,
            seed=self.args.seed,
            noise=noise,
            progress=step / max(1, self.state.max_steps),
            spreads=self.spreads,
            posterior=batch.posterior,
        )
        if not output.loss.isfinite():
            raise Diverged("The loss is not finite")
        if model.training:
            self.records.add(step, batch.ids, output.records)
            if self.args.logging_strategy != "no":
                self.recent_records.append(output.records)
        return (output.loss, output) if return_outputs else output.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report psi, q, gamma and accuracies beside the loss, averaged over the same steps.

        The accuracy of a term is the share of its examples whose psi is above 0.
        """
        if self.recent_records and "loss" in logs:
            means = mean_records(
                {
                    **values,
                    **{
                        f"{name.removesuffix('_psi_sum')}_accuracy": psi > 0
                        for name, psi in values.items()
                        if name.endswith("_psi_sum")
                    },
                }
                for values in self.recent_records
            )
            local = torch.tensor(list(means.values()), device=self.args.device)
            averages = self.accelerator.reduce(local, reduction="mean").tolist()
            logs |= dict(zip(means, averages, strict=True)) | {"loss": logs["loss"]}
            self.recent_records.clear()
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Refused.

        Raises:
            NapoError: always.
        """
        raise NapoError(f"{EVALUATION}.")

    predict = evaluate
