"""The stages: each ties one profile and workspace to the modules that do the work.

A notebook calls one or two of these. Each stage claims its folder, skips what is already there,
and seals the folder with a manifest when it is complete (see `napo.workspace`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo import launch, preferences, sources
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
    finished_files,
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
    from napo.generate import Generated, Prompt
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
    return session.workspace.path(given) if given else session.workspace.source


def benchmarks_folder(session: Session) -> Path:
    """Where the four benchmarks are: made by the world, or downloaded."""
    given = session.profile.evaluation.source
    return session.workspace.path(given) if given else session.workspace.benchmarks


def _benchmarks_fingerprint(session: Session) -> str:
    """What the benchmarks hold: their manifest, or names and sizes of what was downloaded."""
    folder = benchmarks_folder(session)
    if not session.profile.evaluation.source:
        return manifest_fingerprint(require(folder))
    wanted = [folder / name for name in session.profile.evaluation.benchmarks]
    for path in wanted:
        if not path.is_dir():
            raise NapoError(
                f"{path} is not there; fetch it (make fetch PROFILE={session.profile.name} YES=1)."
            )
    files = sorted(file for path in wanted for file in path.rglob("*") if file.is_file())
    return fingerprint(
        [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
    )


def build_rows(session: Session) -> Path:
    """Build RLAIF-V-Bias: the base model answers each row with one modality masked (Eqs. 7, 8)."""
    profile, folder = session.profile, session.workspace.rows
    data = profile.data.model_dump(include={"count", "bad_rows", "shard_rows", "seed"})
    settings = {
        "source": _source_fingerprint(session),
        **data,
        **profile.masks.model_dump(),
        **_model_settings(profile),
    }
    if begin(folder, settings):
        launch.shared(session, build_share)
        finish(folder)
    return folder


def build_share(session: Session) -> None:
    """One process's share of `build_rows`; the first one sees all parts done before it returns."""
    profile, folder = session.profile, session.workspace.rows
    source, generate = source_folder(session), _generator(profile)
    total = sources.number_of_rows(source, profile.data.count)
    with _Parts(folder, total, profile.data.shard_rows, "build biased responses") as parts:
        preferences.build(
            source,
            folder,
            generate,
            size=profile.data.shard_rows,
            count=profile.data.count,
            bad_rows=profile.data.bad_rows,
            worker=launch.worker(),
            done=parts.done,
        )


def _generator(profile: Profile) -> preferences.Build:
    """What writes the two biased responses of a batch of rows."""
    from napo.generate import Prompt

    masks, answer = profile.masks, _engine(profile)
    hidden = {
        "language_biased": {"image_mask": masks.image},
        "vision_biased": {"text_mask": masks.text},
    }

    def biased(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            name: answer([Prompt(row["question"], row["image"], **mask) for row in rows])
            for name, mask in hidden.items()
        }

    return biased


def _engine(profile: Profile) -> Callable[[Sequence[Prompt]], list[Generated]]:
    """The base model as something that answers prompts, through transformers or vLLM."""
    masks, seed = profile.masks, profile.data.seed
    if masks.engine == "vllm":
        from napo import vllm_engine

        return partial(vllm_engine.load(profile), decoding=masks.decoding, seed=seed)
    from napo.generate import generate

    model, processor = base_model(profile)
    settings = {"decoding": masks.decoding, "batch_size": masks.batch_size, "seed": seed}
    return lambda prompts: generate(model, processor, prompts, **settings)


class _Parts:
    """Progress over the parts of all processes, told by the first, which waits for the others.

    It looks at the folder, not at a barrier: a barrier of hours would time out.
    """

    def __init__(self, folder: Path, rows: int, size: int, label: str) -> None:
        self._folder, self._rows, self._size = folder, rows, size
        self._parts = -(-rows // size)
        self._rank, _ = launch.worker()
        self._progress = Progress(rows, label, done=self._there())

    def _there(self) -> int:
        found = len(finished_files(self._folder, "part-*.parquet"))
        return min(found * self._size, self._rows)

    def done(self, rows: int) -> None:
        if self._rank == 0:
            self._progress.advance(self._there() - self._progress.done)

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._rank:
            return
        while error is None and self._there() < self._rows:
            time.sleep(0.2)
            self.done(0)
        self._progress.__exit__(kind, error, trace)


def _source_fingerprint(session: Session) -> str:
    if session.profile.data.source:
        return preferences.source_fingerprint(source_folder(session))
    return manifest_fingerprint(require(session.workspace.source))


def score_reference(session: Session) -> Path:
    """Score the four responses (and the chosen one under a corrupted image) by the base model."""
    profile, workspace = session.profile, session.workspace
    settings = {
        "rows": manifest_fingerprint(require(workspace.rows)),
        "responses": [*preferences.RESPONSES, "chosen_corrupted"],
        "max_length": profile.training.max_length,
        **_model_settings(profile),
    }
    folder = workspace.reference(fingerprint(settings))
    if begin(folder, settings):
        launch.shared(session, score_share, folder=folder.name)
        finish(folder)
    write_json(workspace.data / "reference" / CURRENT, {"folder": folder.name})
    return folder


def score_share(session: Session, folder: str) -> None:
    """One process's share of `score_reference`."""
    from napo.logprobs import score_reference as score

    profile, workspace = session.profile, session.workspace
    target = workspace.reference(folder)
    model, processor = base_model(profile)
    responses = [*preferences.RESPONSES, "chosen_corrupted"]

    def scored(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        limits = {
            "max_length": profile.training.max_length,
            "logits_mb": profile.training.logits_mb,
        }
        return list(score(model, processor, rows, responses, **limits))

    size = profile.data.shard_rows
    total = len(preferences.shards(workspace.rows)) * size
    with _Parts(target, total, size, "score by the reference") as parts:
        preferences.score(workspace.rows, target, scored, worker=launch.worker(), done=parts.done)


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


def train(session: Session, variant: str, seed: int, tune: str = "") -> Path:
    """Train one variant with one seed; the run folder holds weights, records and manifest."""
    check_variant(variant)
    profile, workspace = session.profile, session.workspace
    tune = session.tune(tune)
    folder = workspace.run(variant, seed, tune)
    settings = {
        "variant": variant,
        "seed": seed,
        "reference": reference_folder(session).name,
        "rows": manifest_fingerprint(require(workspace.rows)),
        **profile.training.model_dump(),
        "tune": tune,
        **_model_settings(profile),
    }
    if begin(folder, settings):
        run = {"variant": variant, "seed": seed, "tune": tune}
        launch.shared(session, train_share, profile.launch.strategy, **run)
        finish(folder)
    return folder


def train_share(session: Session, variant: str, seed: int, tune: str) -> None:
    """One process of a training run."""
    from napo.trainer import train_run

    profile = session.profile
    train_run(
        session.workspace.run(variant, seed, tune),
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


def records(session: Session, variant: str, seeds: str = "", tune: str = "") -> pd.DataFrame:
    """The per-example records of a variant's runs, with the columns `variant` and `seed`."""
    import pandas as pd

    from napo.checkpoints import read_records

    frames, tune = [], session.tune(tune)
    for seed in session.seeds(seeds):
        folder = session.workspace.run(variant, seed, tune)
        require(folder)
        frames.append(read_records(folder).assign(variant=variant, seed=seed))
    return pd.concat(frames, ignore_index=True)


def evaluate_all(
    session: Session,
    variant: str,
    seeds: str = "",
    tune: str = "",
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
    tune: str = "",
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
        tune = session.tune(tune)
        run = workspace.run(variant, seed, tune)
        require(run)
        name = run_name(variant, seed, tune)
        path, adapter = (run / "model", None) if tune == "full" else (path, run / "adapter")
    folder = workspace.result(name)
    settings = {
        **profile.evaluation.model_dump(),
        "evaluated": models.fingerprint(adapter or path),
        "benchmarks_data": _benchmarks_fingerprint(session),
        **_model_settings(profile),
    }
    if begin(folder, settings):
        with launch.one_gpu(session) as device:
            loaded, processor = models.load(
                path,
                dtype=profile.model.dtype,
                attention=profile.model.attention,
                image_mode=profile.model.image_mode,
                adapter=adapter,
                device=device,
            )
            unsent = runner.evaluate_run(
                loaded,
                processor,
                benchmarks_folder(session),
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


def all_results(session: Session, seeds: str = "", tune: str = "") -> Results:
    """The finished runs of the profile's variants and baselines."""
    from napo.results import collect

    profile = session.profile
    names = (*profile.variants, *profile.baselines)
    tune = session.tune(tune)
    return collect(session.workspace.results, names, session.seeds(seeds), tune)


def write_report(session: Session, results: Results, tune: str = "") -> Path:
    """Write Tables 1 to 4, the extra one, the summary and `report.html`, and seal their folder."""
    from napo import baselines, report, views
    from napo.results import HALVES, METRICS, claims, measurements, summary
    from napo.tables import tables

    profile, folder = session.profile, session.workspace.tables
    tune = session.tune(tune)
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
