"""Inputs of the stages: the base model, rows, reference log-probs, benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from napo.config.profile import Profile
from napo.data import sources
from napo.data.fetch import require_unchanged
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.models.fingerprint import model_fingerprint
from napo.stages import settings
from napo.stages.session import Session
from napo.workspace.files import json_value, read_json
from napo.workspace.folders import Workspace
from napo.workspace.hashing import content_hash
from napo.workspace.manifests import differences, in_words, manifest_fingerprint, require

if TYPE_CHECKING:
    import datasets

CURRENT = "current.json"  # names the folder of the current reference


class Current(TypedDict):
    """The content of `current.json`."""

    folder: str


def base_model(profile: Profile) -> tuple[Any, Any]:
    """The base model of a profile, which is also the reference, and its processor."""
    from napo.models.load import load_model

    return load_model(profile.model.location, **profile.model.loading)


def base_fingerprint(profile: Profile) -> str:
    """The fingerprint of the base model's files."""
    return model_fingerprint(profile.model.location)


def source_folder(session: Session) -> Path:
    """The folder of the preference rows, made by the world or downloaded."""
    downloaded = session.profile.data.source
    return session.workspace.path(downloaded) if downloaded else session.workspace.source


def benchmarks_folder(session: Session) -> Path:
    """The folder of the benchmarks, made by the world or downloaded."""
    downloaded = session.profile.evaluation.source
    return session.workspace.path(downloaded) if downloaded else session.workspace.benchmarks


def source_fingerprint(session: Session) -> str:
    """A hash of the preference rows' files."""
    folder = source_folder(session)
    if not session.profile.data.source:
        return manifest_fingerprint(require(folder))
    return content_hash(sources.files(folder), folder)


def benchmarks_fingerprint(session: Session) -> str:
    """A hash of the benchmarks' files."""
    folder = benchmarks_folder(session)
    if not session.profile.evaluation.source:
        return manifest_fingerprint(require(folder))
    downloads = [folder / name for name in session.profile.evaluation.benchmarks]
    for path in downloads:
        if not path.is_dir():
            raise NapoError(
                f"{path} is missing; fetch it "
                f"(make fetch PROFILE={session.profile.argument} YES=1)."
            )
    require_unchanged(session.profile, session.workspace)
    files = sorted(file for path in downloads for file in path.rglob("*") if file.is_file())
    return content_hash(files, folder)


def current_reference(workspace: Workspace) -> str:
    """The name of the folder of the current reference.

    Raises:
        NapoError: when there is none.
    """
    path = workspace.data / "reference" / CURRENT
    if not path.is_file():
        raise NapoError(
            f"{path.parent} holds no reference log-probs; "
            "run notebooks/01_build_biased_data.ipynb first."
        )
    again = "delete it and run notebooks/01_build_biased_data.ipynb again"
    return read_json(path, Current, again)["folder"]


def reference_folder(session: Session) -> Path:
    """The reference log-probs of these rows, this model and this preprocessing.

    Raises:
        NapoError: when there are none, or when they were made from other inputs, naming these.
    """
    profile, workspace = session.profile, session.workspace
    folder = workspace.reference(current_reference(workspace))
    rows = manifest_fingerprint(require(workspace.rows))
    now = settings.of_reference(profile, base_fingerprint(profile), rows)
    if pairs := differences(require(folder)["settings"], json_value(now)):
        raise NapoError(
            f"The reference log-probs in {folder} are stale ({in_words(pairs)}); "
            "run notebooks/01_build_biased_data.ipynb again."
        )
    return folder


def biased_rows(session: Session, reference: bool = True) -> datasets.Dataset:
    """RLAIF-V-Bias, with the reference's log-probs joined to it."""
    require(session.workspace.rows)
    folder = reference_folder(session) if reference else None
    return load_rows(session.workspace.rows, folder)
