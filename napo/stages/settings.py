"""The settings of each stage's folder: everything that its content depends on.

A stage claims its folder with them (`napo.workspace.manifests.begin`). The pipeline's plan and
`napo verify` compare them with those of existing folders. Results hold the settings of their run
and of its rows, so that a table can say what its runs had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napo.benchmarks import module
from napo.config.profile import Profile, Training
from napo.config.study import LOSSES
from napo.config.variants import CORRUPTED, RESPONSES, VARIANTS
from napo.noise.study import Cell
from napo.workspace.manifests import GONE

Settings = dict[str, Any]


def of_model(profile: Profile, model: str) -> Settings:
    """Model settings that a stage's output depends on; `model` is the weights' fingerprint."""
    return {
        "model": model,
        **profile.model.model_dump(exclude={"path", "architecture"}),
        "threads": profile.threads,
    }


def of_source(profile: Profile, model: str) -> Settings:
    """Settings of preference rows that a world makes."""
    made_by = profile.world.make_rows
    data = profile.data.model_dump(exclude={"expected"})  # which is only checked
    return {**data, "made_by": made_by, **of_model(profile, model)}


def of_benchmarks(profile: Profile) -> Settings:
    """Settings of benchmarks that a world makes."""
    settings = profile.evaluation.model_dump(include={"sizes", "seed", "split"})
    own = sorted(name for name in profile.evaluation.benchmarks if hasattr(module(name), "make"))
    return {**settings, "made_by": profile.world.make_benchmarks, "plugins": own}


def of_rows(profile: Profile, model: str, source: str) -> Settings:
    """Settings of RLAIF-V-Bias; `source` is the fingerprint of the preference rows."""
    return {
        "source": source,
        **profile.data.model_dump(include={"count", "bad_rows", "shard_rows", "seed", "p_typical"}),
        **profile.masks.model_dump(),
        "max_length": profile.training.max_length,  # a row with a longer prompt is refused
        **of_model(profile, model),
    }


def of_reference(profile: Profile, model: str, rows: str) -> Settings:
    """Settings of the reference's log-probs; `rows` is the fingerprint of RLAIF-V-Bias."""
    return {
        "rows": rows,
        "responses": [*RESPONSES, CORRUPTED],
        "max_length": profile.training.max_length,
        **of_model(profile, model),
    }


def of_labels(profile: Profile, rows: str, data: Mapping[str, Any]) -> Settings:
    """Settings of the samples and their labels; `data` holds those of the rows (`of_rows`)."""
    samples = profile.annotation.model_dump(include={"samples", "seed"})
    return {"rows": rows, **samples, "data": dict(data)}


def of_run(
    profile: Profile,
    variant: str,
    seed: int,
    tune: str,
    *,
    model: str,
    rows: str,
    reference: str,
    data: Mapping[str, Any],
    processes: int,
    labels: str = GONE,
) -> Settings:
    """Settings of a training run.

    `data` holds the settings of its rows (`of_rows`). q averages a micro-batch of all `processes`;
    0: their number is not known here. `labels` is the fingerprint of the samples' labels, for a
    variant whose q comes from them.
    """
    objective = VARIANTS[variant].definition()
    if objective["q_rule"] == "posterior":
        objective["labels"] = labels
    micro_batch = min(profile.training.micro_batch_size, profile.training.batch_size)
    return {
        "variant": variant,
        "objective": objective,
        "seed": seed,
        "reference": reference,
        "rows": rows,
        **profile.training.identity(tune),
        "q_batch": micro_batch * processes or GONE,
        "tune": tune,
        **of_model(profile, model),
        "data": dict(data),
    }


def of_decoding(variant: str) -> Settings:
    """Settings of a variant without training, in place of a run's."""
    return {"variant": variant, "contrast": VARIANTS[variant].contrast.model_dump()}


def of_result(
    profile: Profile,
    *,
    model: str,
    evaluated: str,
    benchmarks: str,
    run: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a result.

    `model`, `evaluated` and `benchmarks` are fingerprints: of the base model, of the model that
    answers, of the benchmarks. `run` holds the settings of the evaluated run (`of_run`) or of the
    variant without training (`of_decoding`); none for the base and a named model.
    """
    return {
        **profile.evaluation.model_dump(exclude={"source"}),  # a place, whose files are hashed
        "judge_by_truth": profile.world.judge_by_truth,
        "evaluated": evaluated,
        "benchmarks_data": benchmarks,
        **of_model(profile, model),
        "run": dict(run or {}),
    }


def of_study_pairs(profile: Profile, model: str, source: str) -> Settings:
    """Settings of the noise study's pairs; `source` is the fingerprint of downloaded rows."""
    world, study = profile.world, profile.study
    return {
        "training_pairs": study.rows,  # `rows` names a folder of rows, see `napo verify`
        **study.model_dump(include={"held_out", "seed"}),
        "p_typical": profile.data.p_typical,
        "made_by": world.make_rows,
        "reworded_by": world.reword,
        "source": source,
        "max_length": profile.training.max_length,
        **of_model(profile, model),
    }


def of_study_cell(
    profile: Profile, cell: Cell, tune: str, *, model: str, pairs: str, vlind: str
) -> Settings:
    """Settings of a cell of the noise study.

    `model`, `pairs` and `vlind` are fingerprints: of the base model, of the study's pairs, and of
    VLind-Bench, which is empty where LP and CB are not measured.
    """
    budget, noise, seed = cell.job
    training = study_training(profile, budget)
    answering = {"decoding", "vlind_image", "vote_threshold", "batch_size"}
    evaluation = profile.evaluation.model_dump(include=answering)
    return {
        "objective": LOSSES[cell.loss].at(noise.rate).definition(),
        "noise": noise.kind,
        "rate": noise.rate,
        "seed": seed,
        "tune": tune,
        "pairs": pairs,
        **training.identity(tune),
        "vlind": {"instances": profile.study.instances, "data": vlind, **evaluation}
        if vlind
        else {},
        **of_model(profile, model),
    }


def study_training(profile: Profile, budget: str) -> Training:
    """The training section of a profile with a budget of its study."""
    chosen = profile.study.budgets[budget]
    rate = chosen.learning_rate
    changes = {"learning_rate": rate, "lora_learning_rate": rate, "epochs": chosen.epochs}
    return profile.training.model_copy(update={**changes, "report_to": "none"})
