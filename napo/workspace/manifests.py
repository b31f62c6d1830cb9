"""Manifests of folders. A stage claims its folder for its settings and seals it with a manifest.

The manifest has the hashes of all files. A stage refuses an input folder without a manifest, and a
folder of its own that has other settings. Commit and machine are in a file beside the manifest
(`napo.workspace.provenance`), because they may differ where the content does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from napo.errors import NapoError
from napo.workspace import provenance
from napo.workspace.files import fingerprint, json_value, read_json, sweep, write_json
from napo.workspace.hashing import hash_files

MANIFEST = "manifest.json"
SETTINGS = "settings.json"  # written first; the manifest is written last
UNHASHED = (MANIFEST, SETTINGS, provenance.FILE)
GONE = "an input that is gone"  # in place of its fingerprint, where settings are only compared
HASH = re.compile(r"[0-9a-f]{16}|[0-9a-f]{40}|[0-9a-f]{64}")
SHOWN = 60  # characters of a value in an error message

# What makes a folder, for the error message about a missing input
MADE_BY = {
    "source": "00_icon_world.ipynb",
    "benchmarks": "00_icon_world.ipynb",
    "rows": "01_build_biased_data.ipynb",
    "reference": "01_build_biased_data.ipynb",
    "annotations": "02_annotate_noise.ipynb",
    "runs": "05_train.ipynb",
    "results": "06_evaluate.ipynb",
    "tables": "07_results.ipynb",
    "study": "make study",
}


class Manifest(TypedDict):
    """The content of a manifest."""

    files: dict[str, str]  # name -> SHA-256
    settings: dict[str, Any]
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    numbers = {}
    for name in ("napo", "torch", "transformers", "peft", "tokenizers", "numpy", "pillow"):
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            numbers[name] = "not installed"
    return numbers


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder, without a check of its files."""
    return read_json(folder / MANIFEST, Manifest, f"delete {folder} and make it again")


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that claimed a folder; if their file is lost, those in the manifest."""
    path = folder / SETTINGS
    if not path.is_file() and complete(folder):
        return read_manifest(folder)["settings"]
    return read_json(path, dict[str, Any], f"delete {folder} and make it again")


def complete(folder: Path) -> bool:
    """Whether a folder has a manifest."""
    return (folder / MANIFEST).is_file()


def finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder is complete and has these settings."""
    return complete(folder) and not conflicts(folder, settings)


def missing_files(folder: Path) -> list[str]:
    """The files of a complete folder that do not exist any more."""
    return [name for name in read_manifest(folder)["files"] if not (folder / name).is_file()]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted name, each as (old, new); None for a missing value.

    An input that is `GONE` equals any other.
    """
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if before == now or GONE in (before, now):
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            inner = differences(before, now)
            pairs |= {f"{name}.{key}": values for key, values in inner.items()}
        else:
            pairs[name] = (before, now)
    return pairs


def in_words(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    """Settings that differ, such as "beta: 0.1 there, 0.2 now; rows, source differ"."""
    texts, names = [], []
    for name, pair in sorted(pairs.items()):
        plain = all(isinstance(each, str | int | float | None) for each in pair)
        if plain and not any(isinstance(each, str) and HASH.fullmatch(each) for each in pair):
            before, now = ("not set" if each is None else repr(each)[:SHOWN] for each in pair)
            texts.append(f"{name}: {before} there, {now} now")
        else:
            names.append(name)
    return "; ".join([*texts, *([f"{', '.join(names)} differ"] if names else [])])


def conflicts(folder: Path, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The `differences` that keep a stage with these settings out of a folder.

    There are none where nothing was made yet.
    """
    if not complete(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        empty = all(path.name == SETTINGS or path.name.startswith(".") for path in files)
        if empty or not (folder / SETTINGS).is_file():
            return {}
    return differences(read_settings(folder), json_value(settings))


def begin(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Claim a folder for these settings, before anything is written to it.

    Settings are everything that the folder's content depends on, fingerprints of inputs included.

    Returns:
        True if there is work to do, False if the folder is already complete.

    Raises:
        NapoError: when the folder has other settings, naming those that differ.
    """
    if not complete(folder):
        sweep(folder)
    if pairs := conflicts(folder, settings):
        raise NapoError(
            f"{folder} was made with other settings ({in_words(pairs)}); "
            "use another workspace, or delete that folder to make it again."
        )
    if not complete(folder) or not (folder / SETTINGS).is_file():
        write_json(folder / SETTINGS, json_value(settings))
    return not complete(folder)


def restart(folder: Path, settings: Mapping[str, Any]) -> None:
    """Open a folder to make it again with these settings.

    Old files stay until new ones replace them, so a kill leaves each file old or new. `keep_only`
    removes the rest at the end.
    """
    sweep(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # first: it must not seal files of other settings
    write_json(folder / SETTINGS, json_value(settings))


def keep_only(folder: Path, files: Iterable[Path]) -> None:
    """Remove all files from a folder but these, its settings and its manifest."""
    kept = {*files, *(folder / name for name in UNHASHED)}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in kept or path.name.startswith("."):
            continue
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def finish(folder: Path, keep_open: str = "") -> dict[str, Any]:
    """Seal a folder that `begin` claimed: write the manifest with the hash of every file.

    Args:
        folder: the folder.
        keep_open: a pattern of files that still change and are left out, such as labels.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in UNHASHED
        and not path.name.startswith(".")  # locks and temporary files
        and not (keep_open and path.match(keep_open))
    )
    manifest = {
        "settings": read_settings(folder),
        "versions": versions(),
        "files": {p.relative_to(folder).as_posix(): h for p, h in hash_files(files).items()},
    }
    write_json(folder / provenance.FILE, provenance.record())
    write_json(folder / MANIFEST, manifest)
    return manifest


def require(folder: Path) -> dict[str, Any]:
    """The manifest of an input folder, after a check that all its files are unchanged.

    Raises:
        NapoError: when the folder is missing or unfinished (naming the notebook that makes it), or
            a file in it is missing or was changed.
    """
    if not complete(folder):
        raise NapoError(f"{folder} is missing or unfinished; run {_maker(folder)} first.")
    manifest = read_manifest(folder)
    again = f"delete {folder} and run {_maker(folder)} again."
    for name in missing_files(folder):
        raise NapoError(f"{folder / name} is missing; {again}")
    if read_settings(folder) != manifest["settings"]:
        raise NapoError(f"{folder / SETTINGS} and {MANIFEST} hold different settings; {again}")
    hashes = hash_files(folder / name for name in manifest["files"])
    for name, recorded in manifest["files"].items():
        if hashes[folder / name] != recorded:
            raise NapoError(
                f"{folder / name} is damaged (its hash differs from its record); {again}"
            )
    return manifest


def sealed(folder: Path) -> str:
    """The fingerprint of a complete folder, its files unread; `GONE` if it is not complete."""
    return manifest_fingerprint(read_manifest(folder)) if complete(folder) else GONE


def _maker(folder: Path) -> str:
    """What makes a folder and, for runs and results, the name of the run."""
    for index in range(len(folder.parts) - 1, -1, -1):
        if maker := MADE_BY.get(stage := folder.parts[index]):
            run = "/".join(folder.parts[index + 1 :]) if stage in ("runs", "results") else ""
            place = "notebooks/" if maker.endswith(".ipynb") else ""
            return f"{place}{maker}" + (f" for {run}" if run else "")
    return "the stage that makes it"


def manifest_fingerprint(manifest: Mapping[str, Any]) -> str:
    """The fingerprint of a folder's content, for the settings of folders that depend on it."""
    return fingerprint(manifest["files"])
