"""The noise study: its pairs, what is left to train, and what the finished cells say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napo.data import sources
from napo.data.rows import image_bytes, shards, write_scores, write_shard
from napo.errors import NapoError
from napo.noise.study import REWORDED, Cell, Job, grid
from napo.progress import Progress
from napo.stages import settings
from napo.stages.inputs import base_fingerprint, base_model, benchmarks_folder, source_folder
from napo.stages.inputs import source_fingerprint as downloaded_fingerprint
from napo.stages.plan import known
from napo.stages.session import Session
from napo.workspace.files import make_folder
from napo.workspace.hashing import content_hash
from napo.workspace.locks import work_on
from napo.workspace.manifests import complete, conflicts, in_words, missing_files, require, sealed

TRAIN, HELD_OUT = "train", "held_out"  # values of the pairs' column `split`
PAIR = ("chosen", "rejected")
SECONDS = ".seconds"  # a hidden file: the time of a cell is not part of its content


def make_pairs(session: Session) -> Path:
    """Make the study's clean pairs, and score their responses by the base model.

    A world makes them with the study's own seed. Otherwise the training pairs are the first rows
    of the profile's source, and the held-out pairs its last ones.

    Raises:
        NapoError: if the source has too few rows, or a row cannot be used.
    """
    profile, folder = session.profile, session.workspace.study_pairs
    with work_on(folder, pairs_settings(session)) as todo:
        if todo:
            rows, scores = folder / "rows", folder / "reference"
            make_folder(rows)
            for split, part in split_rows(session).items():
                for start in range(0, len(part), profile.data.shard_rows):
                    shard = part[start : start + profile.data.shard_rows]
                    write_shard(rows / f"{split}-{start:06d}.parquet", shard)
            make_folder(scores)
            model, processor = base_model(profile)
            with Progress(len(shards(rows)), "score the study's pairs", "parts") as progress:
                score = partial(reference_scores, session, model, processor)
                write_scores(rows, scores, score, done=lambda count: progress.advance())
    return folder


def pairs_settings(session: Session, *, strict: bool = True) -> settings.Settings:
    """The settings of the study's pairs, for the inputs that are there now.

    Raises:
        NapoError: if downloaded rows are missing and `strict` is set.
    """
    profile, source = session.profile, ""
    if not profile.world.make_rows:
        read = downloaded_fingerprint
        source = read(session) if strict else known(read, session)
    return settings.of_study_pairs(profile, base_fingerprint(profile), source)


def split_rows(session: Session) -> dict[str, list[dict[str, Any]]]:
    """The training pairs, reworded if the world can, and the held-out pairs, with their `split`."""
    profile, study = session.profile, session.profile.study
    count = study.rows + study.held_out
    make, reword = (profile.world.function(name) for name in ("make_rows", "reword"))
    if make:
        with Progress(count, "make the study's pairs") as progress:
            rows = make(
                *base_model(profile),
                count=count,
                seed=study.seed,
                p_typical=profile.data.p_typical,
                progress=progress,
            )
        rows = [{**row, "image": image_bytes(row["image"])} for row in rows]
    else:
        rows = downloaded_rows(session)
    for number, row in enumerate(rows):
        row["split"] = TRAIN if number < study.rows else HELD_OUT
        if reword and number < study.rows:
            row[REWORDED] = reword(row, np.random.default_rng([study.seed, number]))
    return {TRAIN: rows[: study.rows], HELD_OUT: rows[study.rows :]}


def downloaded_rows(session: Session) -> list[dict[str, Any]]:
    """The first and the last rows of the profile's source."""
    study, folder = session.profile.study, source_folder(session)
    total, count = sources.number_of_rows(folder), study.rows + study.held_out
    if total < count:
        raise NapoError(
            f"{folder} has {total} rows, and the study takes {study.rows} for training and "
            f"{study.held_out} others; lower study.rows or study.held_out."
        )
    first, last = study.rows, total - study.held_out
    rows = sources.read(folder, wanted=lambda number: number < first or number >= last)
    own = ("file", "folder")  # where a row was read
    kept = (sources.with_bytes(row) for _, row in rows)
    return [{name: value for name, value in row.items() if name not in own} for row in kept]


def reference_scores(
    session: Session, model: Any, processor: Any, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The base model's log-probs of all responses that training or evaluation needs."""
    from napo.method.logprobs import score_reference

    training = session.profile.training
    responses = (*PAIR, REWORDED) if rows[0].get(REWORDED) else PAIR
    return score_reference(
        model,
        processor,
        rows,
        responses,
        max_length=training.max_length,
        logits_mb=training.logits_mb,
    )


def places(data: Any, split: str) -> list[int]:
    """Where the rows of a split are."""
    return [place for place, value in enumerate(data["split"]) if value == split]


def study_grid(session: Session, name: str = "", seeds: str = "") -> dict[Job, tuple[str, ...]]:
    """The jobs of the study and their losses; other `name` and `seeds` than the profile's.

    Raises:
        NapoError: if there is none.
    """
    study, reworded = session.profile.study, bool(session.profile.world.reword)
    jobs = grid(study, session.seeds(seeds or study.seeds), name, reworded=reworded)
    if not any(jobs.values()):
        raise NapoError(
            "The study has no cell: none of study.losses exists under any of study.noise (unbiased "
            "noise needs world.reword); add dpo to study.losses, and flip-0.4 to study.noise."
        )
    return jobs


def cells_of(jobs: Mapping[Job, Iterable[str]]) -> list[Cell]:
    """The cells of jobs."""
    return [Cell(job, loss) for job, losses in jobs.items() for loss in losses]


def cell_folder(session: Session, cell: Cell) -> Path:
    """The folder of a cell."""
    return session.workspace.study / cell.name


def cell_settings(session: Session, *, strict: bool = True) -> partial[settings.Settings]:
    """A function that gives the settings of a cell, for the inputs that are there now.

    Raises:
        NapoError: if VLind-Bench is missing and `strict` is set.
    """
    vlind = vlind_fingerprint(session) if strict else known(vlind_fingerprint, session)
    return partial(
        settings.of_study_cell,
        session.profile,
        tune=session.tune(),
        model=base_fingerprint(session.profile),
        pairs=sealed(session.workspace.study_pairs),
        vlind=vlind,
    )


def measures_vlind(session: Session) -> bool:
    """Whether the cells are asked VLind-Bench."""
    profile = session.profile
    return profile.study.instances > 0 and "vlind" in profile.evaluation.benchmarks


def vlind_fingerprint(session: Session) -> str:
    """A hash of VLind-Bench's files; empty where the study does not ask it.

    Raises:
        NapoError: when it is missing.
    """
    if not measures_vlind(session):
        return ""
    folder = benchmarks_folder(session)
    if not session.profile.evaluation.source:
        require(folder)
    files = sorted(path for path in (folder / "vlind").rglob("*") if path.is_file())
    if not files:
        raise NapoError(f"{folder / 'vlind'} is missing; fetch it, or set study.instances to 0.")
    return content_hash(files, folder)


def is_finished(folder: Path) -> bool:
    """Whether a cell is complete and lacks no file."""
    return complete(folder) and not missing_files(folder)


def unfinished(session: Session, jobs: Mapping[Job, tuple[str, ...]]) -> dict[Job, tuple[str, ...]]:
    """The jobs that have losses left to train, with these."""
    left = {
        job: tuple(n for n in losses if not is_finished(cell_folder(session, Cell(job, n))))
        for job, losses in jobs.items()
    }
    return {job: losses for job, losses in left.items() if losses}


def check_cells(session: Session, cells: Iterable[Cell]) -> None:
    """Refuse a profile whose settings differ from those of the pairs and cells that it would use.

    Raises:
        NapoError: naming a folder and the settings.
    """
    claim = cell_settings(session, strict=False)
    expected = {session.workspace.study_pairs: pairs_settings(session, strict=False)}
    expected |= {cell_folder(session, cell): claim(cell) for cell in cells}
    for folder, own in expected.items():
        if pairs := conflicts(folder, own):
            raise NapoError(
                f"{folder} was made with other settings ({in_words(pairs)}); use another "
                f"workspace, give the profile another name, or delete {session.workspace.study} "
                "to run the study again."
            )
