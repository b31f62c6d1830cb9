"""One optimiser step of a finished run, as its trainer recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from napo.config.variants import BIASED, VARIANTS, Variant
from napo.errors import NapoError
from napo.stages.inputs import biased_rows
from napo.stages.posterior import needs_labels, rows_with_noise
from napo.stages.session import Session
from napo.workspace.files import read_json
from napo.workspace.manifests import require

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from napo.method.objective import Objective
    from napo.method.tensors import LogProbs


class Summary(TypedDict):
    """What a step's loss depends on in a run's `training.json`."""

    steps: int
    margin_noise: float


@dataclass(frozen=True)
class RecordedStep:
    """One batch of an optimiser step, and what its loss is computed from.

    Attributes:
        objective: of the run.
        rows: the batch's rows of RLAIF-V-Bias.
        policy: log-probs under the model in training, from the trainer's records.
        reference: log-probs under the base model, from the stored reference.
        records: the trainer's own records of these rows.
        options: the objective's other arguments: step, seed, noise, progress, spreads, posterior.
        tune: how the run was tuned.
    """

    objective: Objective
    rows: datasets.Dataset
    policy: LogProbs
    reference: LogProbs
    records: pd.DataFrame
    options: dict[str, Any]
    tune: str


def recorded_step(
    session: Session, variant: str, seeds: str = "", tune: str = "", step: int = -1
) -> RecordedStep:
    """A step of a variant's first seed; -1 is the last step, 0 the first.

    If a step has several micro-batches, the first one is taken: q and gamma average over one
    micro-batch.

    Raises:
        NapoError: if the run is not finished, or has no such step.
    """
    import torch

    from napo.method.objective import Objective
    from napo.method.tensors import LogProbs
    from napo.training.records import read_records

    tune, seed = session.tune(tune), session.seeds(seeds)[0]
    folder = session.workspace.run(variant, seed, tune)
    settings = require(folder)["settings"]
    objective = Objective(VARIANTS[variant], settings["beta"], settings["q_rule"])
    summary: Summary = read_json(folder / "training.json", Summary, f"delete {folder}")
    number = step % summary["steps"] if -summary["steps"] <= step < 0 else step
    records = read_records(folder)
    if number not in set(records["step"]):
        raise NapoError(f"{folder} has no step {step}; give one from 0 to {summary['steps'] - 1}.")
    records = first_batch(records[records["step"] == number], objective.variant)
    table = rows_with_noise(session) if needs_labels(variant) else biased_rows(session)
    places = {name: place for place, name in enumerate(table["id"])}
    rows = table.select([places[name] for name in records["id"]])
    texts = rows.remove_columns("image")
    reference = LogProbs.from_rows(texts, objective.responses)
    sums = records[[f"{name}_logp" for name in objective.responses]].to_numpy("float32")
    terms = objective.variant.terms
    options = {
        "step": number,
        "seed": seed,
        # As in the trainer: before the first update every margin is rounding.
        "noise": summary["margin_noise"] if number else inf,
        "progress": number / summary["steps"],
        "spreads": [float(records[f"{term.name}_spread"].iloc[0]) for term in terms]
        if objective.reads_pairs
        else None,
        "posterior": {name: torch.tensor(texts[f"{name}_noise"]) for name in BIASED}
        if needs_labels(variant)
        else None,
    }
    policy = LogProbs(torch.tensor(sums), reference.tokens, objective.responses)
    return RecordedStep(objective, rows, policy, reference, records, options, tune)


def first_batch(records: pd.DataFrame, variant: Variant) -> pd.DataFrame:
    """The rows of a step that share gamma and q with its first row: those of one micro-batch."""
    shared = [f"{term.name}_gamma" for term in variant.terms]
    if variant.q_rule not in ("per-pair", "posterior"):  # where each pair has its own q
        shared += [f"{term.name}_q" for term in variant.terms if f"{term.name}_q" in records]
    same = (records[shared] == records[shared].iloc[0]).all(axis=1)
    return records[same].reset_index(drop=True)
