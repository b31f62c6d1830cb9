"""The data and the base model that other profiles download, made by a profile's world."""

from __future__ import annotations

from pathlib import Path

from napo.benchmarks import module
from napo.data.rows import image_bytes, write_shard
from napo.errors import NapoError
from napo.progress import Progress
from napo.stages.inputs import base_fingerprint, base_model
from napo.stages.session import Session
from napo.stages.settings import of_benchmarks, of_source
from napo.workspace.files import make_folder
from napo.workspace.locks import work_on


def pretrain(session: Session, seed: int = 0, threads: int = 1) -> Path:
    """Pretrain the world's base model in the workspace; the checkpoint in the package stays."""
    import torch

    make = session.profile.world.function("pretrain")
    if make is None:
        raise NapoError(f"Profile {session.profile.name} has no base model to pretrain.")
    if threads < 1 or seed < 0:
        raise NapoError(
            f"threads is {threads} and seed {seed}; set threads to 1 or more and seed to 0 or more."
        )
    folder = session.workspace.data / "base-model"
    with work_on(folder, {"seed": seed, "threads": threads}) as todo:
        if todo:
            torch.set_num_threads(threads)
            make(folder, masks=session.profile.masks, seed=seed)
            torch.set_num_threads(session.profile.threads)
    return folder


def make_rows(session: Session) -> Path:
    """Write the preference rows that another profile would download (RLAIF-V's columns)."""
    profile, folder = session.profile, session.workspace.source
    make = profile.world.function("make_rows")
    if make is None:
        raise NapoError(
            f"Profile {profile.name} has no world.make_rows: its rows are downloaded, "
            "so set data.source to their folder and run 01_build_biased_data."
        )
    settings = of_source(profile, base_fingerprint(profile))
    count, size = profile.data.count, profile.data.shard_rows
    with work_on(folder, settings) as todo:
        if not todo:
            return folder
        with Progress(count, "make preference rows") as progress:
            rows = make(
                *base_model(profile),
                count=count,
                seed=profile.data.seed,
                p_typical=profile.data.p_typical,
                progress=progress,
            )
        for number, start in enumerate(range(0, count, size)):
            part = rows[start : start + size]
            part = [{**row, "image": image_bytes(row["image"])} for row in part]
            write_shard(folder / f"shard-{number:05d}.parquet", part)
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
    settings = of_benchmarks(profile)
    with work_on(folder, settings) as todo:
        if todo:
            own = settings["plugins"]  # benchmarks that make their data themselves
            make(folder, **profile.evaluation.model_dump(include={"sizes", "seed", "split"}))
            for name in own:
                make_folder(folder / name)
                module(name).make(folder / name)
    return folder
