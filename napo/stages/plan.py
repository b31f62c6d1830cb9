"""The pipeline's plan: folders made with other settings, and outdated outputs.

The settings that a profile gives a folder are compared with those that made the folder. Nothing is
written, and no torch is imported. A deleted input is not compared; results hold the settings of
their run, and runs those of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from napo.config.profile import Profile
from napo.config.runs import contrast_of, result_name, seeds_of, trained
from napo.config.settings import TUNES
from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.models.fingerprint import model_fingerprint
from napo.stages import settings
from napo.stages.inputs import (
    CURRENT,
    base_fingerprint,
    benchmarks_fingerprint,
    current_reference,
    source_fingerprint,
)
from napo.stages.labels import annotator_of, figures4, labels_to_keep, outdated_figure
from napo.stages.posterior import labels_fingerprint, needs_labels
from napo.stages.report import all_results, report_settings
from napo.stages.session import Session
from napo.workspace.files import fingerprint
from napo.workspace.folders import run_name
from napo.workspace.manifests import (
    GONE,
    MANIFEST,
    complete,
    conflicts,
    in_words,
    missing_files,
    sealed,
)

NAMED = 6  # folders in an error message
Runs = Iterable[tuple[str, int, str]]  # each with its variant, seed and tune


def runs_of(
    session: Session, variants: Iterable[str], seeds: str = "", tune: str = ""
) -> list[tuple[str, int, str]]:
    """The runs of these variants in a pipeline; a variant without training is one, of seed 0."""
    every, tune = session.seeds(seeds), session.tune(tune)
    return [(name, seed, tune) for name in variants for seed in seeds_of(name, every)]


def existing_runs(session: Session) -> list[tuple[str, int, str]]:
    """The runs that have a folder of weights or of results, whatever their seed and tune."""
    runs = set()
    data = session.workspace.data
    for variant in VARIANTS:
        if not trained(variant) and session.workspace.result(variant).is_dir():
            runs.add((variant, 0, session.tune()))
    for variant, tune, kind in product(filter(trained, VARIANTS), TUNES, ("runs", "results")):
        folder = data / kind / run_name(variant, 0, tune)
        seeds = [path.name.removeprefix("seed-") for path in folder.parent.glob("seed-*")]
        runs |= {(variant, int(seed), tune) for seed in seeds if seed.isdecimal()}
    return sorted(runs)


def check_settings(session: Session, runs: Runs) -> None:
    """Refuse a profile whose settings differ from those of the folders it would use.

    Raises:
        NapoError: naming the folders and the settings.
    """
    refused = list(refusals(session, runs))
    if not refused:
        return
    folder, words = refused[0]
    root = session.workspace.root
    others = [path.relative_to(root).as_posix() for path, _ in refused[1:]]
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    also = f" So were {', '.join(others[:NAMED])}{more}." if others else ""
    labels = session.workspace.annotations
    kept = labels_to_keep(labels) if labels in dict(refused) else ""
    raise NapoError(
        f"{folder} was made with other settings ({words}).{also} Use another workspace, give the "
        f"profile another name, or delete these folders to make them again.{kept}"
    )


def refusals(session: Session, runs: Runs) -> Iterator[tuple[Path, str]]:
    """The folders that were made with other settings, each with the settings in words."""
    for folder, expected in folders(session, runs):
        if pairs := conflicts(folder, expected):
            yield folder, in_words(pairs)


def folders(session: Session, runs: Runs) -> Iterator[tuple[Path, settings.Settings]]:
    """The folders of a pipeline with these runs, each with the settings that the profile gives."""
    profile, workspace = session.profile, session.workspace
    model = known(base_fingerprint, profile)
    if profile.world.make_rows:
        yield workspace.source, settings.of_source(profile, model)
        yield workspace.benchmarks, settings.of_benchmarks(profile)
    data = settings.of_rows(profile, model, known(source_fingerprint, session))
    yield workspace.rows, data
    rows = sealed(workspace.rows)
    yield workspace.annotations, settings.of_labels(profile, rows, data)
    benchmarks = known(benchmarks_fingerprint, session)
    shared = {"model": model, "benchmarks": benchmarks}
    base = settings.of_result(profile, evaluated=model, **shared)
    yield workspace.result("base"), base
    reference = expected_reference(profile, model, rows)
    for variant, seed, tune in runs:
        if contrast_of(variant):
            run = settings.of_decoding(variant)
            result = settings.of_result(profile, evaluated=model, run=run, **shared)
            yield workspace.result(variant), result
            continue
        folder = workspace.run(variant, seed, tune)
        run = settings.of_run(
            profile,
            variant,
            seed,
            tune,
            model=model,
            rows=rows,
            reference=reference,
            data=data,
            processes=profile.launch.processes,
            labels=known(labels_fingerprint, session) if needs_labels(variant) else GONE,
        )
        yield folder, run
        weights = folder / ("model" if tune == "full" else "adapter")
        evaluated = known(model_fingerprint, weights) if weights.is_dir() else GONE
        result = settings.of_result(profile, evaluated=evaluated, run=run, **shared)
        yield workspace.result(result_name(variant, seed, tune)), result


def known(function: Callable[..., Any], *arguments: Any) -> Any:
    """The fingerprint that a function gives; `GONE` where its files are missing."""
    try:
        return function(*arguments)
    except NapoError:
        return GONE


def expected_reference(profile: Profile, model: str, rows: str) -> str:
    """The name of the reference's folder."""
    if GONE in (model, rows):
        return GONE
    return fingerprint(settings.of_reference(profile, model, rows))


def outdated_reference(session: Session) -> bool:
    """Whether the reference was made from other rows or with another profile."""
    current = known(current_reference, session.workspace)
    model, rows = known(base_fingerprint, session.profile), sealed(session.workspace.rows)
    expected = expected_reference(session.profile, model, rows)
    if GONE in (current, expected):
        return False
    return current != expected or not complete(session.workspace.reference(current))


def outdated_report(session: Session, seeds: str, tune: str) -> bool:
    """Whether the tables and the report were made from other results or figures.

    Raises:
        NapoError: when results with different settings would share a table.
    """
    folder = session.workspace.data / session.edition("tables", seeds, tune)
    if not complete(folder):
        return False
    results, tune = all_results(session, seeds, tune), session.tune(tune)
    expected = report_settings(session, results, seeds, tune)
    return bool(missing_files(folder) or conflicts(folder, expected))


def outdated(
    session: Session, variants: Iterable[str], seeds: str = "", tune: str = ""
) -> list[str]:
    """The existing outputs that have to be made again, as paths below the workspace.

    The report is one of them while a result of these variants, or a figure, is missing.
    """
    workspace, variants = session.workspace, list(variants)
    paths = [folder / MANIFEST for folder in incomplete(session, variants, seeds, tune)]
    if outdated_reference(session):
        paths.append(workspace.data / "reference" / CURRENT)
    drawn, problems = figures4(session)
    figures = [
        workspace.figures / f"{name}.png"
        for name, annotator in drawn.items()
        if outdated_figure(session, name, annotator)
    ]
    paths += figures
    if figures and not problems:  # notebook 02 shows how far annotators agree
        paths.append(workspace.annotations / MANIFEST)
    to_come = not all_evaluated(session, runs_of(session, variants, seeds, tune))
    base = workspace.result("base")
    to_come |= not complete(base) or bool(missing_files(base))
    fig3 = [workspace.figures / f"fig3.{kind}" for kind in ("pdf", "svg", "png", "csv")]
    to_come |= bool(figures) or not all(path.is_file() for path in fig3)
    if to_come or outdated_report(session, seeds, tune):
        paths.append(workspace.data / session.edition("tables", seeds, tune) / MANIFEST)
    return [path.relative_to(workspace.root).as_posix() for path in paths if path.is_file()]


def incomplete(
    session: Session, variants: Iterable[str], seeds: str = "", tune: str = ""
) -> list[Path]:
    """The finished results that lack a file, and the runs that lack one and have no whole result.

    Other deleted files are not missed: rows and weights are large, and deleted to save space.
    """
    workspace = session.workspace
    folders = [workspace.result("base")]
    for run in runs_of(session, variants, seeds, tune):
        if not all_evaluated(session, [run]):
            folders += [workspace.run(*run), workspace.result(result_name(*run))]
    return [folder for folder in folders if complete(folder) and missing_files(folder)]


def all_evaluated(session: Session, runs: Runs) -> bool:
    """Whether all these runs have a finished result."""
    results = (session.workspace.result(result_name(*run)) for run in runs)
    return all(complete(folder) and not missing_files(folder) for folder in results)


def variants_of(session: Session, seeds: str, tune: str, baselines: bool) -> list[str]:
    """The variants of a pipeline: the profile's, and baselines if wanted or already evaluated.

    Variants whose q comes from labels are left out while the labels are missing (`waiting`).
    """
    profile = session.profile
    extra = [
        name
        for name in profile.baselines
        if baselines or all_evaluated(session, runs_of(session, [name], seeds, tune))
    ]
    names = list(dict.fromkeys((*profile.variants, *extra)))
    left_out = waiting(session, names, seeds, tune)
    return [name for name in names if name not in left_out]


def waiting(
    session: Session, variants: Iterable[str], seeds: str = "", tune: str = ""
) -> list[str]:
    """The variants that cannot be trained yet, because people have not labelled the samples."""
    names = [name for name in variants if needs_labels(name)]
    names = [
        name for name in names if not all_evaluated(session, runs_of(session, [name], seeds, tune))
    ]
    return names if names and known(annotator_of, session) == GONE else []
