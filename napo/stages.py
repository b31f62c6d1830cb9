"""The stages: each ties one profile and workspace to the modules that do the work.

A notebook calls one or two of these. Each stage claims its folder, skips what is already there,
and seals the folder with a manifest when it is complete (see `napo.workspace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo import preferences
from napo.config import Profile
from napo.errors import NapoError, unknown
from napo.notebook import Session
from napo.progress import Progress
from napo.workspace import (
    atomic_file,
    begin,
    complete,
    fingerprint,
    finish,
    json_value,
    manifest_fingerprint,
    read_json,
    remove,
    require,
    run_name,
    write_json,
)

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from napo.annotator import Annotator
    from napo.results import Results

CURRENT = "current.json"


def base_model(profile: Profile) -> tuple[Any, Any]:
    """The base model of a profile, which is also the reference, and its processor."""
    from napo import models

    return models.load(
        profile.model.location,
        dtype=profile.model.dtype,
        attention=profile.model.attention,
        image_mode=profile.model.image_mode,
    )


def _model_settings(profile: Profile) -> dict[str, Any]:
    from napo import models

    return {
        "model": models.fingerprint(profile.model.location),
        **profile.model.model_dump(exclude={"path"}),
        "threads": profile.threads,
    }


def pretrain(session: Session, seed: int = 0, threads: int = 2) -> Path:
    """Pretrain the icon world's base model in the workspace (the package's stays as it is)."""
    import torch

    make = session.profile.world.function("pretrain")
    if make is None:
        raise NapoError(f"Profile {session.profile.name} has no base model to pretrain.")
    folder = session.workspace.data / "base-model"
    if begin(folder, {"seed": seed, "threads": threads}):
        torch.set_num_threads(threads)
        make(folder, seed=seed)
        torch.set_num_threads(session.profile.threads)
        finish(folder)
    return folder


def make_rows(session: Session) -> Path:
    """Write the preference rows that another profile would download (RLAIF-V's columns)."""
    profile, folder = session.profile, session.workspace.source
    make = profile.world.function("make_rows")
    if make is None:
        raise NapoError(
            f"Profile {profile.name} has no world.make_rows: its rows are downloaded, "
            "so set data.source to their folder and go on with 01_build_biased_data."
        )
    settings = {**profile.data.model_dump(), **_model_settings(profile)}
    if begin(folder, settings):
        model, processor = base_model(profile)
        count, size = profile.data.count, profile.data.shard_rows
        with Progress(count, "make preference rows") as progress:
            rows = make(
                model,
                processor,
                count=count,
                seed=profile.data.seed,
                p_typical=profile.data.p_typical,
                progress=progress,
            )
        for number, start in enumerate(range(0, count, size)):
            shard = [
                {**row, "image": preferences.image_bytes(row["image"])}
                for row in rows[start : start + size]
            ]
            preferences.write_shard(folder / f"shard-{number:05d}.parquet", shard)
        finish(folder)
    return folder


def make_benchmarks(session: Session) -> Path:
    """Write the four benchmarks in the formats of their official downloads."""
    profile, folder = session.profile, session.workspace.benchmarks
    make = profile.world.function("make_benchmarks")
    if make is None:
        raise NapoError(
            f"Profile {profile.name} has no world.make_benchmarks: its benchmarks are downloaded "
            f"to {folder}."
        )
    settings = profile.evaluation.model_dump(include={"sizes", "seed", "split"})
    if begin(folder, settings):
        make(folder, **settings)
        finish(folder)
    return folder


def source_folder(session: Session) -> Path:
    """Where this profile's preference rows are: made by the world, or downloaded."""
    given = session.profile.data.source
    return Path(given).expanduser() if given else session.workspace.source


def build_rows(session: Session) -> Path:
    """Build RLAIF-V-Bias: the base model answers each row with one modality masked (Eqs. 7, 8)."""
    from napo.generate import Prompt, generate

    profile, folder = session.profile, session.workspace.rows
    source, masks = source_folder(session), profile.masks
    settings = {
        "source": _source_fingerprint(session),
        **masks.model_dump(),
        **_model_settings(profile),
    }
    if begin(folder, settings):
        model, processor = base_model(profile)
        files = preferences.shards(source)
        done = sum((folder / path.name).is_file() for path in files)
        with Progress(len(files), "build biased responses", "shards", done=done) as progress:

            def biased(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
                hidden = {
                    "language_biased": {"image_mask": masks.image},
                    "vision_biased": {"text_mask": masks.text},
                }
                generated = {
                    name: generate(
                        model,
                        processor,
                        [Prompt(row["question"], row["image"], **mask) for row in rows],
                        masks.decoding,
                        batch_size=masks.batch_size,
                        seed=profile.data.seed,
                    )
                    for name, mask in hidden.items()
                }
                progress.advance()
                return preferences.with_biased(rows, generated)

            preferences.map_shards(source, folder, biased, preferences.write_shard)
        finish(folder)
    return folder


def _source_fingerprint(session: Session) -> str:
    if session.profile.data.source:
        files = preferences.shards(source_folder(session))
        return fingerprint([(path.name, path.stat().st_size) for path in files])
    return manifest_fingerprint(require(session.workspace.source))


def score_reference(session: Session) -> Path:
    """Score the four responses (and the chosen one under a corrupted image) by the base model."""
    from napo.logprobs import score_reference as score

    profile, workspace = session.profile, session.workspace
    settings = {
        "rows": manifest_fingerprint(require(workspace.rows)),
        "responses": [*preferences.RESPONSES, "chosen_corrupted"],
        "max_length": profile.training.max_length,
        **_model_settings(profile),
    }
    folder = workspace.reference(fingerprint(settings))
    if begin(folder, settings):
        model, processor = base_model(profile)
        files = preferences.shards(workspace.rows)
        done = sum((folder / path.name).is_file() for path in files)
        with Progress(len(files), "score by the reference", "shards", done=done) as progress:

            def scored(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
                progress.advance()
                return list(
                    score(
                        model,
                        processor,
                        rows,
                        responses=settings["responses"],
                        max_length=settings["max_length"],
                    )
                )

            preferences.map_shards(workspace.rows, folder, scored, preferences.write_reference)
        finish(folder)
    write_json(workspace.data / "reference" / CURRENT, {"folder": folder.name})
    return folder


def reference_folder(session: Session) -> Path:
    """The reference log-probs that belong to these rows, this model and this preprocessing.

    Raises:
        NapoError: when there are none, or those there were made from something else, naming it.
    """
    profile, workspace = session.profile, session.workspace
    current = workspace.data / "reference" / CURRENT
    if not current.is_file():
        raise NapoError(
            f"{current.parent} holds no reference log-probs; "
            "run notebooks/01_build_biased_data.ipynb first."
        )
    folder = workspace.reference(read_json(current)["folder"])
    made = require(folder)["settings"]
    now = {"rows": manifest_fingerprint(require(workspace.rows)), **_model_settings(profile)}
    changed = sorted(key for key, value in now.items() if made.get(key) != value)
    if changed:
        raise NapoError(
            f"The reference log-probs in {folder} are stale ({', '.join(changed)} changed since); "
            "run notebooks/01_build_biased_data.ipynb again."
        )
    return folder


def biased_rows(session: Session, reference: bool = True) -> datasets.Dataset:
    """RLAIF-V-Bias, with the reference's log-probs joined to it."""
    require(session.workspace.rows)
    folder = reference_folder(session) if reference else None
    return preferences.load(session.workspace.rows, folder)


def annotate(session: Session, annotator: str = "") -> pd.DataFrame:
    """The labels of the 100 samples: by the scenes' truth ("oracle"), or as a person wrote them."""
    from napo import noise

    annotator = annotator or session.profile.annotation.annotator
    rows, samples, path = _to_label(session, annotator)
    if annotator == "oracle":
        label = session.profile.world.function("label_by_truth")
        if label is None:
            raise NapoError(
                f"Profile {session.profile.name} knows no truth to label by; open "
                "notebooks/02_annotate_noise.ipynb in JupyterLab, set `annotator` to your name and "
                "`interactive` to True, and label the samples."
            )
        noise.label_with_oracle(rows, samples, label, path)
    labels = noise.read_labels(path)
    if not complete(path.parent):
        finish(path.parent, keep_open="*.csv")
    return labels


def annotator(session: Session, name: str) -> Annotator:
    """The widget in which a person labels the samples, each label at once in their CSV.

    Raises:
        NapoError: without a name, or with the name that stands for the scenes' truth.
    """
    from napo.annotator import Annotator

    if name in ("", "oracle"):
        raise NapoError("Set `annotator` to your name, so that your labels are told from others'.")
    return Annotator(*_to_label(session, name), name)


def _to_label(session: Session, annotator: str) -> tuple[datasets.Dataset, list[str], Path]:
    """The rows, the ids of the samples, and the CSV of an annotator; the folder claimed."""
    from napo import noise

    folder, settings = session.workspace.annotations, session.profile.annotation
    rows = biased_rows(session, reference=False)
    made = {
        "rows": manifest_fingerprint(require(session.workspace.rows)),
        **settings.model_dump(include={"samples", "seed"}),
    }
    begin(folder, made)
    samples = noise.sample(rows, settings.samples, settings.seed)
    return rows, samples, folder / f"{annotator}.csv"


def margins(session: Session, annotator: str = "") -> pd.DataFrame:
    """Fig. 4's data: each labelled response's log-prob margins under the reference."""
    from napo import noise

    annotator = annotator or session.profile.annotation.annotator
    path = session.workspace.annotations / f"{annotator}.csv"
    require(session.workspace.annotations)
    return noise.margins(biased_rows(session), noise.read_labels(path))


def all_margins(session: Session) -> pd.DataFrame | None:
    """The same for every row, labelled by truth; None where no truth is known."""
    from napo import noise

    label = session.profile.world.function("label_by_truth")
    if label is None:
        return None
    rows = biased_rows(session)
    return noise.margins(rows, noise.oracle_labels(rows, label))


def check_variant(name: str) -> None:
    """Stop on a variant that does not exist, with the nearest that does."""
    from napo.objective import VARIANTS

    if name not in VARIANTS:
        raise unknown("variant", name, VARIANTS)


def train(session: Session, variant: str, seed: int, tune: str = "full") -> Path:
    """Train one variant with one seed; the run folder holds weights, records and manifest."""
    from napo.trainer import train_run

    check_variant(variant)
    profile, workspace = session.profile, session.workspace
    folder = workspace.run(variant, seed, tune)
    settings = {
        "variant": variant,
        "seed": seed,
        "tune": tune,
        "reference": reference_folder(session).name,
        "rows": manifest_fingerprint(require(workspace.rows)),
        **profile.training.model_dump(),
        **_model_settings(profile),
    }
    if begin(folder, settings):
        train_run(
            folder,
            model_path=profile.model.location,
            rows=biased_rows(session),
            variant=variant,
            settings=profile.training,
            seed=seed,
            tune=tune,
            dtype=profile.model.dtype,
            attention=profile.model.attention,
            image_mode=profile.model.image_mode,
        )
        finish(folder)
    return folder


def records(session: Session, variant: str, seeds: str = "", tune: str = "full") -> pd.DataFrame:
    """The per-example records of a variant's runs, with the columns `variant` and `seed`."""
    import pandas as pd

    from napo.checkpoints import read_records

    frames = []
    for seed in session.seeds(seeds):
        folder = session.workspace.run(variant, seed, tune)
        require(folder)
        frames.append(read_records(folder).assign(variant=variant, seed=seed))
    return pd.concat(frames, ignore_index=True)


def evaluate_all(
    session: Session,
    variant: str,
    seeds: str = "",
    tune: str = "full",
    model: str = "",
    dry_run: bool = False,
) -> list[Path]:
    """Evaluate every seed of a variant; the base and a named checkpoint are one run each.

    Raises:
        NothingSent: in a dry run, with what all of them would send to a judge.
    """
    from napo.benchmarks.judges import NothingSent, Plan

    alone = bool(model) or variant == "base"
    folders, unsent = [], Plan()
    for seed in [0] if alone else session.seeds(seeds):
        try:
            folders.append(evaluate(session, variant, seed, tune, model, dry_run))
        except NothingSent as dry:
            unsent += dry.plan
    if unsent.requests:
        raise NothingSent(unsent)
    return folders


def evaluate(
    session: Session,
    variant: str,
    seed: int = 0,
    tune: str = "full",
    model: str = "",
    dry_run: bool = False,
) -> Path:
    """Answer and score the four benchmarks with a run, the base, or any checkpoint (`model`).

    Raises:
        NothingSent: in a dry run that came to a judge behind an endpoint; the answers are kept.
    """
    from napo import models
    from napo.benchmarks import judges, runner

    profile, workspace = session.profile, session.workspace
    path, adapter, name = profile.model.location, None, "base"
    if model:
        path, name = model, f"model-{Path(model).name}-{models.fingerprint(model)[:8]}"
    elif variant != "base":
        check_variant(variant)
        run = workspace.run(variant, seed, tune)
        require(run)
        name = run_name(variant, seed, tune)
        path, adapter = (run / "model", None) if tune == "full" else (path, run / "adapter")
    folder = workspace.result(name)
    settings = {
        **profile.evaluation.model_dump(),
        "evaluated": models.fingerprint(adapter or path),
        "benchmarks_data": manifest_fingerprint(require(workspace.benchmarks)),
        **_model_settings(profile),
    }
    if begin(folder, settings):
        loaded, processor = models.load(
            path,
            dtype=profile.model.dtype,
            attention=profile.model.attention,
            image_mode=profile.model.image_mode,
            adapter=adapter,
        )
        unsent = runner.evaluate_run(
            loaded,
            processor,
            workspace.benchmarks,
            folder,
            settings=profile.evaluation,
            run=name,
            seed=seed,
            fingerprints={k: settings[k] for k in ("evaluated", "benchmarks_data")},
            judge=profile.world.function("judge_by_truth"),
            dry_run=dry_run,
        )
        if unsent.requests:
            raise judges.NothingSent(unsent)
        finish(folder)
    return folder


def all_results(session: Session, seeds: str = "", tune: str = "full") -> Results:
    """The finished runs of the profile's variants and baselines."""
    from napo.results import collect

    profile = session.profile
    names = (*profile.variants, *profile.baselines)
    return collect(session.workspace.results, names, session.seeds(seeds), tune)


def write_report(session: Session, results: Results, tune: str = "full") -> Path:
    """Write Tables 1 to 4, the extra one, the summary and `report.html`, and seal their folder."""
    from napo import baselines, report, views
    from napo.results import HALVES, METRICS, claims, measurements, summary
    from napo.tables import tables

    profile, folder = session.profile, session.workspace.tables
    settings = {
        "profile": profile.model_dump(),
        "tune": tune,
        "results": {
            run: manifest_fingerprint(require(session.workspace.result(run)))
            for runs in results.runs.values()
            for run in runs
        },
    }
    if complete(folder) and read_json(folder / "settings.json") == json_value(settings):
        return folder / "report.html"
    remove(folder)  # made from results alone, in seconds
    begin(folder, settings)
    papers = results.only(profile.variants)
    made = tables(papers, scale=profile.scale, model=profile.paper_model)
    extra = baselines.table(results)
    for table in (*made.values(), extra):
        table.write(folder)
    frames = {
        "summary": summary(results, METRICS + HALVES),
        "claims": claims(papers),
        "measurements": measurements(results),
    }
    for name, frame in frames.items():
        with atomic_file(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
    content = views.report_content(session, papers, [*made.values(), extra], frames["claims"], tune)
    with atomic_file(folder / "report.html") as temporary:
        temporary.write_text(report.build(content), encoding="utf-8")
    finish(folder)
    return folder / "report.html"
