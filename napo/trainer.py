"""Train a variant: a thin subclass of `transformers.Trainer`, and one call for a whole run.

    accelerate launch -m napo.trainer RUN.yaml

The subclass runs the shared-prefix pass, the objective, and keeps per-example records; everything
else (optimiser, schedule, precision, processes) is the ecosystem's.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import TrainOutput

from napo import checkpoints, families, logprobs, modality, models
from napo.checkpoints import Records, read_records
from napo.errors import NapoError, unknown
from napo.logprobs import EncodedRow, LogProbs
from napo.objective import VARIANTS, Objective, mean_records
from napo.progress import Progress
from napo.settings import TUNES
from napo.storage import writing
from napo.workspace import fingerprint, json_value, read_json, sweep, write_json

if TYPE_CHECKING:
    from napo.config import Training

__all__ = ["NaPOConfig", "NaPOTrainer", "read_records", "train_run"]

CACHE_BYTES = 2**30  # encoded rows up to this size stay in memory for all epochs
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
        objective: what is minimised, such as `VARIANTS["A1"]`.
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
        layout = logprobs.choose_layout(model)
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
        pad = logprobs.pad_id(processing_class)

        def collator(items: Sequence[tuple[EncodedRow, LogProbs | None]]) -> dict[str, Any]:
            encoded, scores = zip(*items, strict=True)
            reference = None if self._adapter_off else _joined(scores)
            batch = logprobs.assemble(encoded, pad, layout=layout, reference=reference)
            return {"batch": batch}  # a dict, because Trainer looks for names in its inputs

        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=processing_class,
            data_collator=collator,
            **kwargs,
        )
        self.objective = objective
        self.loss_is_scaled_for_ga = False  # the loss is a mean over the micro-batch
        self.records = Records(Path(args.output_dir).parent / "records")
        logged = max(1, int(args.logging_steps)) * args.gradient_accumulation_steps
        self._recent: deque[dict[str, Tensor]] = deque(maxlen=logged)
        self._sampler = EpochSampler(len(rows), whole, args.seed)
        self.add_callback(_Epochs(self._sampler))

    @property
    def run_identity(self) -> dict[str, Any]:
        """What a checkpoint of this run has to agree with."""
        args = self.args
        return {
            "objective": repr(self.objective),
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

    def _without_adapter(self, model: nn.Module, batch: logprobs.Batch) -> LogProbs:
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

    def _refuse_nonsense(self, batch: logprobs.Batch, policy: LogProbs, *, first: bool) -> None:
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
        with models.without_bars():
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
            models.load_adapter_weights(self.model, path)
        else:
            saved, _ = models.load(path, device="cpu")
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
    return getattr(logprobs.unwrap(model), "is_loaded_in_4bit", False)


def _joined(scores: Sequence[LogProbs]) -> LogProbs:
    sums, tokens = torch.cat([s.sum for s in scores]), torch.cat([s.tokens for s in scores])
    return LogProbs(sums, tokens, scores[0].responses)


class EncodedRows(Dataset):
    """Rows as token ids and pixels, with the reference's log-probs.

    Rows that fit into memory are encoded once. Of larger data the texts are checked first, so that
    no row stops the run later for its length or an empty response, and rows are encoded when they
    are needed.

    Args:
        rows: a Hugging Face dataset or a sequence of dicts.
        processor: the processor.
        responses: responses to score.
        max_length: most tokens of a prompt with one response.
        corruption: how mDPO's image is corrupted.
        scorer: scores the rows first if they have no reference columns.
        logits_mb: for that scoring.
        reference: whether the reference's log-probs come along.
    """

    def __init__(
        self,
        rows: Any,
        processor: Any,
        responses: Sequence[str],
        *,
        max_length: int | None = None,
        corruption: str = "crop",
        scorer: nn.Module | None = None,
        logits_mb: float = 256,
        reference: bool = True,
    ) -> None:
        self._rows, self._processor, self._responses = rows, processor, tuple(responses)
        self._settings: dict[str, Any] = {"max_length": max_length, "corruption": corruption}
        self._kept: list[EncodedRow] | None = None
        if len(rows) == 0:
            raise NapoError("There are no rows to train on.")
        first = self._encode(0)
        held = [value for prompt in first.prompts for value in prompt.pixels.values()]
        pixels = sum(value.nbytes for value in held if isinstance(value, Tensor))
        if len(rows) * (pixels + 4096) <= CACHE_BYTES:
            self._kept = [first, *(self._encode(at) for at in range(1, len(rows)))]
        else:
            self._check(first)
        self._reference = self._scores(scorer, logits_mb) if reference else None
        self.digest = self._digest()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> tuple[EncodedRow, LogProbs | None]:
        encoded = self._kept[at] if self._kept is not None else self._encode(at)
        one, reference = slice(at, at + 1), self._reference
        if reference is None:
            return encoded, None
        return encoded, LogProbs(reference.sum[one], reference.tokens[one], self._responses)

    def _encode(self, at: int) -> EncodedRow:
        return logprobs.encode(self._rows[at], self._processor, self._responses, **self._settings)

    def _check(self, first: EncodedRow) -> None:
        """Encode every row once and keep nothing; without its image where all are equally long."""
        pixels, image = first.prompts[0].pixels, self._rows[0]["image"]
        spared = bool(pixels) and modality.same_length_for_all_images(self._processor)
        # The corrupted image's prompt is then as long as the other, and its response the chosen.
        names = [name for name in self._responses if not spared or name != logprobs.CORRUPTED]
        with Progress(len(self), "check the rows") as progress:
            for row in self._texts() if spared else self._rows:
                row = {**row, "image": image} if spared else row
                given = pixels if spared else None
                logprobs.encode(row, self._processor, names, pixels=given, **self._settings)
                progress.advance()

    def _texts(self) -> Any:
        """The rows, their images not decoded where the dataset can do without."""
        removable = hasattr(self._rows, "remove_columns")
        return self._rows.remove_columns("image") if removable else self._rows

    def _scores(self, scorer: nn.Module | None, logits_mb: float) -> LogProbs:
        columns = getattr(self._rows, "column_names", None) or self._rows[0]
        needed = [f"{name}_{kind}" for name in self._responses for kind in ("logp", "tokens")]
        if all(name in columns for name in needed):
            if hasattr(self._rows, "select_columns"):  # spares decoding the images
                return LogProbs.from_rows(self._rows.select_columns(needed), self._responses)
            return LogProbs.from_rows(self._rows, self._responses)
        if scorer is None:
            raise NapoError(f"The rows lack the reference columns {', '.join(needed)}.")
        rows = [self._rows[at] for at in range(len(self._rows))]
        scored = logprobs.score_reference(
            scorer, self._processor, rows, self._responses, logits_mb=logits_mb, **self._settings
        )
        return LogProbs.from_rows(scored, self._responses)

    def _digest(self) -> str:
        if self._reference is not None:
            return fingerprint([len(self), self._reference.sum.tolist()])
        columns = {"chosen" if r == logprobs.CORRUPTED else r: 0 for r in self._responses}
        return fingerprint(
            [[row[c] for c in ("id", "question", *columns)] for row in self._texts()]
        )


class EpochSampler(Sampler[int]):
    """Rows in a new order every epoch, from the seed; rows that fill no whole batch are left out.

    Args:
        count: number of rows.
        batch: rows of one optimiser step, over all processes.
        seed: the run's seed.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count, self._used, self._seed = count, count - count % batch, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._used

    def __iter__(self) -> Iterator[int]:
        import numpy as np

        # A seed of two numbers: seed 0 in epoch 1 is not seed 1 in epoch 0.
        order = np.random.default_rng([self._seed, self.epoch]).permutation(self._count)
        return iter(order[: self._used].tolist())


class _Epochs(TrainerCallback):
    """Tells the sampler which epoch it is, also when a run resumes in its middle."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._sampler.epoch = int(state.epoch or 0)


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


def _trainable(model: nn.Module, peft_config: Any, seed: int) -> nn.Module:
    """The model with the parameters that are to be trained: an adapter's, or all but vision."""
    if hasattr(model, "peft_config"):
        return model
    if peft_config is None:
        models.freeze_vision_tower(model)
        return model
    return models.add_adapter(model, peft_config, seed)


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
        settings: a `napo.config.Training`.
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
        objective = replace(VARIANTS[variant], beta=settings.beta, q_rule=settings.q_rule)
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
    model, processor = models.load(
        model_path,
        dtype=dtype,
        attention=attention,
        image_mode=image_mode,
        device=str(args.device) if tune == "qlora" else "cpu",
        four_bit=tune == "qlora",
    )
    trainer = NaPOTrainer(
        model=model,
        args=args,
        objective=objective,
        train_dataset=rows,
        processing_class=processor,
        peft_config=None if tune == "full" else _lora(settings, families.of_config(model.config)),
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
    part = final.with_name(final.name + ".part")
    if args.should_save:
        checkpoints.draft(final)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_fsdp_enabled:  # of shards alone, Trainer saves no model
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    with writing(final):
        trainer.save_model(str(part), _internal_call=True)
    if args.should_save:
        if not list(part.glob("*.safetensors")):
            raise NapoError(
                f"No weights were written to {part}; the checkpoints in {folder / 'checkpoints'} "
                "are kept. Check the launcher's settings for saving."
            )
        with writing(final):
            checkpoints.settle(part, final)
        _describe(folder, trainer, batch, made_from)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return final


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


def _lora(settings: Training, family: families.Family) -> Any:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m napo.trainer RUN.yaml`, alone or under `accelerate launch`."""
    from napo import preferences
    from napo.config import load_run

    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 1:
        print("usage: python -m napo.trainer RUN.yaml", file=sys.stderr)
        return 2
    try:
        run = load_run(Path(given[0]))
        final = train_run(
            run.run_folder,
            model_path=run.model,
            rows=preferences.load(Path(run.rows), Path(run.reference)),
            variant=run.variant,
            settings=run.training,
            seed=run.seed,
            tune=run.tune,
            dtype=run.dtype,
            attention=run.attention,
            image_mode=run.image_mode,
            data_workers=run.data_workers,
        )
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"final": str(final)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
