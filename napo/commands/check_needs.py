"""Needs that `napo check` compares with the machine: disk of all runs, memory of every stage.

Needs are computed (`napo.commands.footprint`, `napo.commands.inference`) for the longest rows that
were read. If none were read, for the lengths that `napo budget` assumes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from PIL import Image

from napo.benchmarks.runner import CHUNK
from napo.commands import budget
from napo.commands.check_inputs import Inputs, Remark
from napo.commands.check_machine import Machine
from napo.commands.footprint import Run
from napo.commands.inference import SCORED_ROWS, Inference, Moment
from napo.config.runs import contrast_of, trained
from napo.data import fetch
from napo.data.rows import IN_MEMORY_BYTES
from napo.errors import NapoError
from napo.models.prompts import prompt_inputs
from napo.models.vllm import MEMORY as VLLM_SHARE
from napo.stages import plan
from napo.stages.inputs import CURRENT
from napo.workspace.manifests import complete

ROW = 7_000  # bytes of a made-up row, or request, with its picture (icon world: 6,500)
RECORDED = 250  # bytes of a row's records in an epoch of training
SCORED = 150  # bytes of a row's reference log-probs
ANSWERED = 2e7  # bytes of a run's answers and items; 15,000 answers of 1,000 bytes
INTERPRETER = 0.7e9  # bytes of a process with torch and its libraries
CPU_RATE = 1e12  # FLOP/s of a large CPU
PLANNED = 8  # GPUs, as in the paper, where none is visible
PATIENCE = 3  # days; if a CPU needs longer, the runs are planned for another machine


class Needs:
    """Disk and memory that a profile's stages need on a machine.

    Attributes:
        lengths: tokens of a row.
        assumed: whether these are the budget's assumptions, as no rows were read.
    """

    def __init__(self, inputs: Inputs, machine: Machine) -> None:
        self.session, self.profile, self.machine = inputs.session, inputs.profile, machine
        self.rows = inputs.rows_used
        self.assumed = inputs.longest is None
        visual = image_tokens(inputs.processor) if self.assumed and inputs.processor else 0
        _, self.shape, lengths = budget.describe(self.profile, image_tokens=visual)
        self.lengths = inputs.longest or lengths
        self.processes = self.profile.launch.processes or max(1, len(machine.gpus))
        self.planned = False
        # A machine without GPUs that could never train this, such as a cluster's login node.
        self.planned = not machine.gpus and self.days_on_cpu() > PATIENCE
        if self.planned:
            self.processes = self.profile.launch.processes or PLANNED

    def run(self, **changes: Any) -> Run:
        """A training run of the profile, with changed settings of `training` or `strategy`."""
        strategy = changes.pop("strategy", self.profile.launch.strategy)
        if not self.sharded:
            strategy = "ddp"
        training = self.profile.training.model_copy(update=changes)
        profile = self.profile.model_copy(update={"training": training})
        return Run(profile, self.shape, self.lengths, training.tune, strategy, self.processes)

    @property
    def sharded(self) -> bool:
        """Whether training uses accelerate's strategies: several processes, with GPUs."""
        return self.processes > 1 and (self.planned or bool(self.machine.gpus))

    def disk(self) -> Iterator[Remark]:
        """Disk of everything that is still to be downloaded or made, with all runs."""
        profile, workspace, training = self.profile, self.session.workspace, self.profile.training
        statuses: list[fetch.ItemStatus] = []
        with suppress(NapoError):  # the record of downloads is damaged, which is a fault already
            statuses = fetch.status(profile, workspace)
        downloads = sum(item.to_come for item in statuses if item.source.to)
        data = workspace.path(profile.data.source) if profile.data.source else workspace.source
        coming = sum(item.size for item in statuses if item.folder == data and item.lacks)
        made = 0 if profile.data.source or complete(workspace.source) else self.rows * ROW
        if not profile.evaluation.source and not complete(workspace.benchmarks):
            made += sum(profile.evaluation.sizes.values()) * ROW
        source = max(size_of_folder(data), coming) or self.rows * ROW
        source *= min(1, self.rows / (profile.data.expected or self.rows or 1))
        built = 0 if complete(workspace.rows) else source - size_of_folder(workspace.rows)
        arrow = source if source > IN_MEMORY_BYTES else 0
        arrow -= size_of_folder(workspace.rows.with_name("cache"))
        steps = math.ceil(self.rows / training.batch_size) * training.epochs
        written = min(2, max(0, steps - 1) // training.save_steps) if steps else 2
        every = plan.runs_of(self.session, profile.variants)
        to_train = [run for run in every if trained(run[0])]
        runs = [run for run in to_train if not complete(workspace.run(*run))]
        weights, checkpoint = self.run().disk()
        weights += self.rows * training.epochs * RECORDED
        needs = {
            "downloads": downloads,
            "rows and benchmarks": made,
            "RLAIF-V-Bias": built,
            "its Arrow copy": arrow,
            "reference log-probs": self.rows * SCORED,
            f"weights and records of {len(runs)} runs": len(runs) * weights,
            f"{written} checkpoints of the run that trains": bool(runs) * written * checkpoint,
            "results": (len(runs) + len(every) - len(to_train) + 1) * ANSWERED,
        }
        folder, cache = existing(workspace.root), existing(Path(constants.HF_HUB_CACHE))
        model = next((item for item in statuses if not item.source.to and item.lacks), None)
        download = (model.to_come or 2 * self.shape.total) if model else 0
        if folder.stat().st_dev == cache.stat().st_dev:
            needs["the model in the hub's cache"], download = download, 0
        needs = {name: size for name, size in needs.items() if size > 0}
        total, free = sum(needs.values()), shutil.disk_usage(folder).free
        parts = ", ".join(f"{name} {gb(size)}" for name, size in needs.items())
        text = f"{gb(total)} are still needed ({parts}), and {gb(free)} are free in {folder}"
        remedy = ""
        if total > free:
            remedy = "; free some, use another workspace, or train fewer variants or seeds"
            if training.tune == "full":
                remedy += ", or with training.tune lora, which keeps adapters only"
        yield "fault" if total > free else "ok", f"{text}{remedy}."
        if download:
            free = shutil.disk_usage(cache).free
            text = f"{model.source.name} needs {gb(download)} in {cache}, and {gb(free)} are free"
            yield "fault" if download > free else "ok", f"{text} there."

    def memory(self) -> Iterator[Remark]:
        """Memory of building, scoring, training and evaluating."""
        profile, workspace = self.profile, self.session.workspace
        masks, evaluation = profile.masks, profile.evaluation
        image, question, response = self.lengths
        yield (
            "ok",
            f"memory is computed for {'assumed' if self.assumed else 'the longest'} rows: an image "
            f"of {image} tokens, questions of {question}, responses of {response}.",
        )
        if self.planned:
            yield (
                "note",
                f"without a GPU one training run would take about {self.days_on_cpu():,.0f} days "
                f"(at {CPU_RATE / 1e12:g} TFLOP/s), so run the pipeline where GPUs are; what "
                f"follows is for {self.processes} GPUs, and is compared with nothing.",
            )
        inference = Inference(profile, self.shape, self.lengths)
        if not complete(workspace.rows):
            images = profile.data.shard_rows
            yield self.answering("building", inference, masks, "masks", images)
        if not (workspace.data / "reference" / CURRENT).is_file():
            yield self.batched("scoring by the reference", inference.scoring, SCORED_ROWS)
        yield self.training()
        for contrast in filter(None, map(contrast_of, profile.variants)):
            evaluation = evaluation.contrasted(contrast)  # the variant that needs most
        yield self.answering("evaluating", inference, evaluation, "evaluation", CHUNK)

    def answering(
        self, stage: str, inference: Inference, settings: Any, section: str, images: int
    ) -> Remark:
        """The remark about a stage that generates."""

        def need(batch: int) -> Moment:
            return inference.answering(settings.decoding, batch, images)

        if getattr(settings, "engine", "") == "vllm":  # it fills its share with keys and values
            least, share = need(1).bytes, VLLM_SHARE * self.free()
            text = f"{stage} with vLLM needs {gb(least)} at least"
            if self.planned:
                return "note", f"{text}."
            return "fault" if least > share else "ok", f"{text}; its share is {gb(share)}."
        return self.batched(stage, need, settings.batch_size, f"{section}.batch_size")

    def batched(
        self, stage: str, need: Callable[[int], Moment], batch: int, setting: str = ""
    ) -> Remark:
        """The remark about a stage whose batches are halved where memory runs out."""
        name, size = need(batch)
        text = f"{stage} needs {self.amount(size)} for a batch of {batch} ({name})"
        if self.planned:
            return "note", f"{text}."
        fits = batch
        while fits and not self.fits(need(fits).bytes):
            fits //= 2
        text = f"{text}, {self.has()}"
        if fits == batch:
            return "ok", f"{text}."
        if fits:
            remedy = f"; set {setting} to {fits}" if setting else ""
            return "note", f"{text}: batches will be halved to {fits}{remedy}."
        return (
            "fault",
            f"{text}, and a batch of 1 needs {self.amount(need(1).bytes)}; use model.dtype "
            f"bfloat16, or {self.larger()}.",
        )

    def training(self) -> Remark:
        """The remark about training, with the settings that would fit."""
        training, launching = self.profile.training, self.profile.launch
        if (training.tune, launching.strategy) == budget.REFUSED and self.processes > 1:
            tune, strategy = budget.REFUSED
            return "fault", f"tune {tune} does not load under {strategy}; set strategy to ddp."
        worst = self.run().peak()
        moment = f"at its worst moment ({worst['worst moment']})"
        text = f"training ({training.tune}) needs {self.amount(worst['total'])} {moment}"
        if self.planned:
            return "note", f"{text}."
        text = f"{text}, {self.has()}"
        if self.fits(worst["total"]):
            return "ok", f"{text}."
        changes: tuple[dict[str, Any], ...] = (
            {"strategy": "zero2"},
            {"strategy": "zero3"},
            {"strategy": "fsdp2"},
            {"micro_batch_size": 1},
            {"gradient_checkpointing": True},
            {"gradient_checkpointing": True, "micro_batch_size": 1},
            {"tune": "lora"},
            {"tune": "lora", "gradient_checkpointing": True, "micro_batch_size": 1},
            {"tune": "qlora", "gradient_checkpointing": True, "micro_batch_size": 1},
        )
        fitting = []
        for change in changes:
            if "strategy" in change and not self.sharded:
                continue
            with suppress(NapoError):  # a LoRA target that does not exist is a fault already
                if self.fits(self.run(**change).peak()["total"]):
                    fitting.append(" with ".join(f"{key} {value}" for key, value in change.items()))
        remedy = f"what fits: {'; '.join(fitting[:3])}" if fitting else f"use {self.larger()}"
        return "fault", f"{text}; {remedy}."

    def free(self) -> float:
        """Free bytes for one process."""
        gpus = self.machine.gpus[: self.processes]
        return min((free for free, _ in gpus), default=self.machine.memory / self.processes)

    def has(self) -> str:
        """The free memory, in words."""
        if not self.machine.gpus:
            shared = f" for each of {self.processes} processes" if self.processes > 1 else ""
            return f"{gb(self.free())} are free{shared}"
        return f"{gb(self.free())} of {gb(min(total for _, total in self.machine.gpus))} are free"

    def larger(self) -> str:
        """The remedy where no setting helps."""
        return "larger GPUs, or more of them" if self.machine.gpus else "a machine with more memory"

    def fits(self, size: float) -> bool:
        """Whether a process with this need fits."""
        return size + self.overhead() <= self.free()

    def overhead(self) -> float:
        """Bytes of a process before it has a model."""
        return budget.CONTEXT if self.planned or self.machine.gpus else INTERPRETER

    def amount(self, size: float) -> str:
        """A need with its overhead, and where."""
        where = " on each GPU" if self.planned or self.machine.gpus else ""
        return f"{gb(size + self.overhead())}{where}"

    def days_on_cpu(self) -> float:
        """Days of one training run on a CPU, 0 if the number of rows is not known."""
        flop = self.run().flop() * self.rows * self.profile.training.epochs
        return flop / CPU_RATE / 86_400


def image_tokens(processor: Any) -> int:
    """Visual tokens of a square picture."""
    picture = Image.new("RGB", (336, 336))
    return prompt_inputs(processor, "", picture).ids.count(processor.image_token_id)


def existing(path: Path) -> Path:
    """The nearest folder that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def size_of_folder(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def gb(size: float) -> str:
    """Bytes in GB or MB (10^9 or 10^6 bytes)."""
    if size < 1e9:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / 1e9:,.{1 if size < 1e10 else 0}f} GB"
