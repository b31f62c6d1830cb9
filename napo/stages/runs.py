"""Train variants, and evaluate them, the base model or any other model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napo.config.runs import contrast_of, result_name, seeds_of, trained
from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.models.fingerprint import model_fingerprint
from napo.stages import launch
from napo.stages.inputs import (
    base_fingerprint,
    benchmarks_fingerprint,
    benchmarks_folder,
    biased_rows,
    reference_folder,
)
from napo.stages.posterior import labels_fingerprint, needs_labels, rows_with_noise
from napo.stages.session import Session
from napo.stages.settings import Settings, of_decoding, of_result, of_run
from napo.workspace.locks import work_on
from napo.workspace.manifests import GONE, manifest_fingerprint, require

if TYPE_CHECKING:
    import pandas as pd

    from napo.benchmarks import Request
    from napo.config.profile import Evaluation


def train(session: Session, variant: str, seed: int, tune: str = "") -> Path:
    """Train one variant with one seed, into its run folder.

    Raises:
        NapoError: if inputs are missing (rows, reference, and labels for a variant whose q comes
            from them), the variant is not trained, or the folder was made with other settings.
    """
    VARIANTS[variant].require_terms()
    profile, workspace = session.profile, session.workspace
    tune = session.tune(tune)
    folder = workspace.run(variant, seed, tune)
    rows = require(workspace.rows)
    settings = of_run(
        profile,
        variant,
        seed,
        tune,
        model=base_fingerprint(profile),
        rows=manifest_fingerprint(rows),
        reference=reference_folder(session).name,
        data=rows["settings"],
        processes=launch.processes(session),
        labels=labels_fingerprint(session) if needs_labels(variant) else GONE,
    )
    with work_on(folder, settings) as todo:
        if todo:
            run = {"variant": variant, "seed": seed, "tune": tune}
            launch.shared(session, train_share, profile.launch.strategy, **run)
    return folder


def train_share(session: Session, variant: str, seed: int, tune: str) -> None:
    """One process of a training run."""
    from napo.training.run import train_run

    profile = session.profile
    train_run(
        session.workspace.run(variant, seed, tune),
        model_path=profile.model.location,
        rows=rows_with_noise(session) if needs_labels(variant) else biased_rows(session),
        variant=variant,
        settings=profile.training,
        seed=seed,
        tune=tune,
        **profile.model.loading,
        data_workers=profile.launch.data_workers,
        hub=(profile.model.path, profile.model.revision) if profile.model.revision else None,
    )


def records(session: Session, variant: str, seeds: str = "", tune: str = "") -> pd.DataFrame:
    """The per-example records of a variant's runs, with the columns `variant` and `seed`.

    Raises:
        NapoError: if a run is not finished.
    """
    import pandas as pd

    from napo.training.records import read_records

    frames, tune = [], session.tune(tune)
    for seed in session.seeds(seeds):
        folder = session.workspace.run(variant, seed, tune)
        require(folder)
        frames.append(read_records(folder).assign(variant=variant, seed=seed))
    return pd.concat(frames, ignore_index=True)


def requests(session: Session, benchmark: str) -> list[Request]:
    """A benchmark's requests under this profile; the answers have the same ids."""
    from napo import benchmarks

    scorer = benchmarks.module(benchmark)
    settings = session.profile.evaluation
    loaded = scorer.load(benchmarks_folder(session) / benchmark)
    return scorer.requests(loaded, **benchmarks.options(benchmark, settings).asking)


def evaluate_all(
    session: Session,
    variant: str,
    seeds: str = "",
    tune: str = "",
    model: str = "",
    dry_run: bool = False,
) -> list[Path]:
    """Evaluate every seed of a variant; what is not trained here has one result.

    Raises:
        NothingSent: in a dry run, with the judge requests of all runs.
    """
    from napo.benchmarks.chat import NothingSent, Plan

    folders, unsent = [], Plan()
    for seed in [0] if model else seeds_of(variant, session.seeds(seeds)):
        try:
            folders.append(evaluate(session, variant, seed, tune, model, dry_run))
        except NothingSent as planned:
            unsent += planned.plan
    if unsent.requests:
        raise NothingSent(unsent)
    return folders


class Evaluated(NamedTuple):
    """What answers the benchmarks.

    `settings` are those of its run or of its decoding; None for the base and a named model.
    """

    name: str  # of its result
    path: str | Path
    adapter: Path | None
    settings: Settings | None
    evaluation: Evaluation


def evaluated(session: Session, variant: str, seed: int, tune: str, model: str) -> Evaluated:
    """The model that a call of `evaluate` means, and how it is decoded.

    Raises:
        NapoError: for an unknown variant or a run that is not finished; for a model and a variant
            without training.
    """
    profile, workspace = session.profile, session.workspace
    tune, evaluation, base = session.tune(tune), profile.evaluation, profile.model.location
    name, contrast = result_name(variant, seed, tune), contrast_of(variant)
    if contrast and model:
        raise NapoError(
            f"{variant} decodes the base model, and model names another one; leave variant out, "
            "and set evaluation.decoding.contrast in a profile."
        )
    if model:
        name = f"model-{Path(model).name}-{model_fingerprint(model)[:8]}"
        return Evaluated(name, model, None, None, evaluation)
    if contrast:
        return Evaluated(name, base, None, of_decoding(variant), evaluation.contrasted(contrast))
    if not trained(variant):
        return Evaluated(name, base, None, None, evaluation)
    run = workspace.run(variant, seed, tune)
    settings = require(run)["settings"]
    path, adapter = (run / "model", None) if tune == "full" else (base, run / "adapter")
    return Evaluated(name, path, adapter, settings, evaluation)


def evaluate(
    session: Session,
    variant: str,
    seed: int = 0,
    tune: str = "",
    model: str = "",
    dry_run: bool = False,
) -> Path:
    """Answer and score the benchmarks with a run, the base, or any model (a folder or hub id).

    A variant without training is the base, decoded with the variant's contrast. A dry run sends
    nothing to a judge's endpoint.

    Raises:
        NapoError: if the run or a benchmark is missing, or for a model and such a variant.
        NothingSent: in a dry run, with the judge's requests; the answers are kept.
    """
    from napo.benchmarks import runner
    from napo.benchmarks.chat import NothingSent
    from napo.models.load import load_model

    profile = session.profile
    source = evaluated(session, variant, seed, tune, model)
    folder = session.workspace.result(source.name)
    settings = of_result(
        profile,
        model=base_fingerprint(profile),
        evaluated=model_fingerprint(source.adapter or source.path),
        benchmarks=benchmarks_fingerprint(session),
        run=source.settings,
    )
    with work_on(folder, settings) as todo:
        if not todo:
            return folder
        with launch.one_gpu(session) as device:
            loaded, processor = load_model(
                source.path,
                **profile.model.loading,
                adapter=source.adapter,
                device=device,
            )
            unsent = runner.evaluate_run(
                loaded,
                processor,
                benchmarks_folder(session),
                folder,
                settings=source.evaluation,
                run=source.name,
                seed=seed,
                fingerprints={k: settings[k] for k in ("evaluated", "benchmarks_data")},
                judge=profile.world.function("judge_by_truth"),
                dry_run=dry_run,
            )
        if unsent.requests:
            raise NothingSent(unsent)
    return folder
