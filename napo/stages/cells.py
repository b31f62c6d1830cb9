"""Train and evaluate the cells of the noise study: a job is one process, its cells follow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import TrainerCallback

from napo.benchmarks import options as options_of
from napo.benchmarks import runner, vlind
from napo.config.study import LOSSES
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.method.layout import EncodedRow, encode, read_row
from napo.method.logprobs import score_encoded
from napo.method.losses import reward_margin
from napo.method.objective import Objective
from napo.models.files import load_processor
from napo.models.load import unwrap
from napo.models.prompts import pad_id
from napo.noise.study import REWORDED, Cell, Job, NoisyRows, noisy_rows, posterior, step_averages
from napo.progress import Progress
from napo.stages.inputs import benchmarks_folder
from napo.stages.session import Session
from napo.stages.settings import study_training
from napo.stages.study import (
    HELD_OUT,
    PAIR,
    SECONDS,
    TRAIN,
    cell_folder,
    cell_settings,
    check_cells,
    is_finished,
    measures_vlind,
    places,
)
from napo.training import checkpoints
from napo.training.records import read_records
from napo.training.rows import EncodedRows
from napo.training.run import fit, optimiser_batch
from napo.workspace.files import atomic_file, read_json, write_json, write_text
from napo.workspace.locks import work_on
from napo.workspace.manifests import keep_only, require

DIGITS = "%.9g"  # of float32 in CSV
FILES = ("margins.csv", "steps.csv", "epochs.json", "cell.json")


@dataclass(frozen=True)
class Pairs:
    """Pairs to score by a trained model: clean rows with the reference's columns, and encoded."""

    rows: Sequence[dict[str, Any]]
    encoded: Sequence[EncodedRow]
    pad: int
    beta: float
    logits_mb: float

    def margins(self, model: Any, others: Sequence[str] = ("rejected",)) -> dict[str, list[float]]:
        """psi_sum (Eq. 2) of chosen against each of the other responses, a value for each row."""
        if not self.rows:
            return {other: [] for other in others}
        scores = score_encoded(model, self.encoded, self.pad, logits_mb=self.logits_mb)

        def column(rows: Sequence[dict[str, Any]], response: str) -> torch.Tensor:
            return torch.tensor([row[f"{response}_logp"] for row in rows], dtype=torch.float64)

        chosen = column(scores, "chosen"), column(self.rows, "chosen")
        return {
            other: reward_margin(
                chosen[0], column(scores, other), chosen[1], column(self.rows, other), self.beta
            ).tolist()
            for other in others
        }


@dataclass(frozen=True)
class JobData:
    """What the cells of a job share: the noisy rows, and the pairs that are evaluated."""

    session: Session
    job: Job

    @cached_property
    def processor(self) -> Any:
        """The model's processor."""
        model = self.session.profile.model
        return load_processor(model.location, **model.preprocessing)

    @cached_property
    def data(self) -> Any:
        """All pairs with the reference's columns."""
        folder = self.session.workspace.study_pairs
        require(folder)
        return load_rows(folder / "rows", folder / "reference")

    @cached_property
    def train(self) -> Any:
        """The clean training pairs."""
        return self.data.select(places(self.data, TRAIN))

    @cached_property
    def noisy(self) -> dict[str, bool]:
        """Id of each training pair -> whether it is noise."""
        ids = list(self.train["id"])
        flags = noisy_rows(ids, self.job.noise.rate, self.job.seed)
        return dict(zip(ids, flags, strict=True))

    @cached_property
    def rows(self) -> EncodedRows:
        """The training pairs with their noise, encoded once for all losses."""
        noisy, (_, noise, seed) = list(self.noisy.values()), self.job
        without_images = self.train.remove_columns("image")
        rows = NoisyRows(self.train, noisy, noise.kind)
        rows.posterior = posterior(NoisyRows(without_images, noisy, noise.kind), seed)
        training = self.session.profile.training
        return EncodedRows(rows, self.processor, PAIR, max_length=training.max_length)

    @cached_property
    def held_out(self) -> Pairs:
        """The clean held-out pairs."""
        return self.pairs(places(self.data, HELD_OUT), PAIR)

    @cached_property
    def noisy_pairs(self) -> Pairs:
        """The noisy training pairs in their clean form, at most as many as held-out pairs."""
        flags = self.noisy.values()
        chosen = [place for place, noisy in zip(places(self.data, TRAIN), flags, strict=True)
                  if noisy]  # fmt: skip
        return self.pairs(chosen[: self.session.profile.study.held_out], (*PAIR, *self.extra))

    @property
    def extra(self) -> tuple[str, ...]:
        """The response that the noise adds to a pair's own."""
        return (REWORDED,) if self.job.noise.kind == "unbiased" else ()

    def pairs(self, chosen: Sequence[int], responses: Sequence[str]) -> Pairs:
        """Rows of `data`, read and encoded."""
        training = self.session.profile.training
        rows = [self.data[place] for place in chosen]
        encoded = [
            encode(read_row(row, place, responses), self.processor, responses, training.max_length)
            for place, row in enumerate(rows)
        ]
        pad = pad_id(self.processor)
        return Pairs(rows, encoded, pad, training.beta, training.logits_mb)


class HeldOut(TrainerCallback):
    """Measures held-out pairs after each epoch; a resumed run keeps the earlier epochs.

    Attributes:
        margins: psi_sum of each held-out pair after the last epoch.
    """

    def __init__(self, path: Path, pairs: Pairs, rows: int) -> None:
        self.path, self.pairs, self.rows = path, pairs, rows
        self.epochs: list[dict[str, float]] = []
        self.margins: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the epochs before the checkpoint that the run resumes from."""
        known = read_json(self.path, list[dict[str, Any]]) if self.path.is_file() else []
        self.epochs = [epoch for epoch in known if epoch["step"] <= state.global_step]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure at the last step of an epoch, before its checkpoint is written."""
        if state.global_step % (self.rows // optimiser_batch(args)):
            return
        model = kwargs["model"]
        self.margins = self.pairs.margins(model)["rejected"]
        model.train()
        shares = [psi > 0 for psi in self.margins]
        self.epochs.append(
            {
                "step": state.global_step,
                "accuracy": 100 * sum(shares) / len(shares),
                "psi": sum(self.margins) / len(shares),
            }
        )
        write_json(self.path, self.epochs)


def run_job(session: Session, job: Job, losses: Sequence[str]) -> None:
    """Train and evaluate the unfinished cells of a job, one after another.

    Raises:
        NapoError: if the pairs or VLind-Bench are missing, or a cell has other settings.
    """
    require_one_process(session)
    wanted = [Cell(job, loss) for loss in losses]
    check_cells(session, wanted)
    todo = [cell for cell in wanted if not is_finished(cell_folder(session, cell))]
    data, settings = JobData(session, job), cell_settings(session)
    with Progress(len(todo), f"study {job.name}", "cells") as progress:
        for cell in todo:
            with work_on(cell_folder(session, cell), settings(cell), remake=True) as unfinished:
                if unfinished:
                    run_cell(data, cell)
            progress.advance()
    write_json(session.workspace.study_job(job.name), {"ended": job.name})


def require_one_process(session: Session) -> None:
    """Refuse a profile that trains a run in several processes.

    Raises:
        NapoError: with the remedy.
    """
    count = session.profile.launch.processes
    if count > 1:
        raise NapoError(
            f"launch.processes is {count}, and a cell of the study is trained by one process; set "
            "it to 1, and training.tune to lora if the model does not fit into one GPU."
        )


def run_cell(data: JobData, cell: Cell) -> None:
    """Train and evaluate one cell into its folder, which keeps no weights."""
    began, session, folder = time.monotonic(), data.session, cell_folder(data.session, cell)
    profile, (budget, noise, seed) = data.session.profile, cell.job
    training = study_training(profile, budget)
    variant = LOSSES[cell.loss].at(noise.rate)
    held_out = HeldOut(folder / "epochs.json", data.held_out, len(data.rows))
    trainer = fit(
        folder,
        profile.model.location,
        data.rows,
        Objective(variant, training.beta, training.q_rule),
        training,
        seed,
        session.tune(),
        **profile.model.loading,
        callbacks=[held_out],
    )
    model = trainer.model
    write_csv(folder / "margins.csv", final_margins(data, held_out.margins, model))
    write_csv(folder / "steps.csv", step_averages(read_records(folder), data.noisy))
    files = list(FILES)
    if measures_vlind(session):
        items, counts = ask_vlind(session, unwrap(model).eval(), data.processor, folder, seed)
        write_csv(folder / "vlind.csv", items)
        files.append("vlind.csv")
    else:
        counts = {}
    write_json(folder / "cell.json", {"steps": trainer.state.global_step, "answers": counts})
    checkpoints.clear(folder)
    keep_only(folder, [folder / name for name in files])
    write_text(folder / SECONDS, f"{time.monotonic() - began:.1f}\n")


def final_margins(data: JobData, held_out: Sequence[float], model: Any) -> pd.DataFrame:
    """The margins of the trained model, as `napo.noise.study.outcomes` reads them."""
    held = pd.DataFrame({"id": [row["id"] for row in data.held_out.rows], "psi": held_out})
    noisy = data.noisy_pairs.margins(model, ("rejected", *data.extra))
    trained = noisy[REWORDED] if data.extra else [-psi for psi in noisy["rejected"]]
    ids = [row["id"] for row in data.noisy_pairs.rows]
    noisy_frame = pd.DataFrame({"id": ids, "psi": noisy["rejected"], "trained_psi": trained})
    frames = [held.assign(split="held_out"), noisy_frame.assign(split="noisy")]
    frame = pd.concat([part for part in frames if len(part)], ignore_index=True)
    return frame.reindex(columns=["split", "id", "psi", "trained_psi"])


def ask_vlind(
    session: Session, model: Any, processor: Any, folder: Path, seed: int
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The items of VLind-Bench for a model, and the counts of its answers.

    LP and CB need stages c and d only. The other stages are not asked; their columns are left out.
    """
    settings = session.profile.evaluation
    everything = vlind.load(benchmarks_folder(session) / "vlind")
    first = everything.instances[: session.profile.study.instances]
    benchmark = vlind.Benchmark(everything.folder, first)
    options = options_of("vlind", settings)
    requests = vlind.requests(benchmark, **options.asking)
    asked = [request for request in requests if request.id.split("/")[1][0] in "cd"]
    progress = Progress(len(asked), "VLind-Bench", "answers")
    path = folder / "vlind.answers.jsonl"
    entries = runner.answer(model, processor, asked, path, settings, seed, progress)
    answers = {request.id: "" for request in requests}
    answers |= {entry["id"]: entry["answer"] for entry in entries}
    items = vlind.evaluate(benchmark, answers, **options.scoring)[1]
    kept = ["instance", "C", "d", "c_true", "c_false", "d_true", "d_false"]
    return items[kept], runner.counts(entries)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table with the digits of float32."""
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, float_format=DIGITS, lineterminator="\n")
