"""Folders that a stage makes: claimed for its settings, sealed by a manifest, required by others.

A folder that is complete has a manifest with the hashes of its files; a stage refuses an input
folder without one, and refuses to continue a folder that other settings began. Commit and machine
stand beside the manifest (`napo.workspace.provenance`): they may differ where the content does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napo.errors import NapoError
from napo.workspace import provenance
from napo.workspace.files import fingerprint, json_value, read_json, sweep, write_json
from napo.workspace.hashing import hash_files

MANIFEST = "manifest.json"
SETTINGS = "settings.json"  # there from the beginning; the manifest seals a finished folder
UNHASHED = (MANIFEST, SETTINGS, provenance.FILE)

# Which notebook makes a folder, for the sentence that a missing input gets.
MADE_BY = {
    "source": "00_icon_world.ipynb",
    "benchmarks": "00_icon_world.ipynb",
    "rows": "01_build_biased_data.ipynb",
    "reference": "01_build_biased_data.ipynb",
    "annotations": "02_annotate_noise.ipynb",
    "runs": "05_train.ipynb",
    "results": "06_evaluate.ipynb",
    "tables": "07_results.ipynb",
}


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found = {}
    for name in ("napo", "torch", "transformers", "peft", "tokenizers", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder, its files not looked at.

    Raises:
        NapoError: when it is damaged.
    """
    found = read_json(folder / MANIFEST)
    lacks = [name for name in ("files", "settings", "versions") if not _maps(found, name)]
    if lacks:
        raise NapoError(
            f"{folder / MANIFEST} is damaged (it has no {' and no '.join(lacks)}); delete {folder} "
            "and make it again."
        )
    return found


def _maps(found: Any, name: str) -> bool:
    return isinstance(found, dict) and isinstance(found.get(name), dict)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that claimed a folder; of a finished one whose file was lost, the manifest's.

    Raises:
        NapoError: when they are damaged.
    """
    path = folder / SETTINGS
    if not path.is_file() and complete(folder):
        write_json(path, read_manifest(folder)["settings"])
    found = read_json(path)
    if not isinstance(found, dict):
        raise NapoError(f"{path} is damaged (it holds no settings); delete {folder}.")
    return found


def complete(folder: Path) -> bool:
    """Whether a folder's stage has finished."""
    return (folder / MANIFEST).is_file()


def finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder is complete and was made with these settings."""
    return complete(folder) and read_settings(folder) == json_value(settings)


def whole(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder is `finished` and none of its files was deleted since."""
    return finished(folder, settings) and not missing_files(folder)


def missing_files(folder: Path) -> list[str]:
    """The files of a finished folder that are missing now."""
    return [name for name in read_manifest(folder)["files"] if not (folder / name).is_file()]


def begin(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Claim a folder for these settings, before anything is written to it.

    Settings hold everything that decides the folder's content, fingerprints of inputs included.

    Returns:
        True if there is work to do, False if the folder is already complete.

    Raises:
        NapoError: when other settings began or finished it, naming those that differ.
    """
    wanted = json_value(settings)
    if not complete(folder):
        sweep(folder)
    if not (folder / SETTINGS).is_file() and not complete(folder):
        write_json(folder / SETTINGS, wanted)
        return True
    there = read_settings(folder)
    if there != wanted and _bare(folder):  # claimed by a call that was refused
        write_json(folder / SETTINGS, wanted)
        return True
    if there != wanted:
        keys = sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k))
        raise NapoError(
            f"{folder} was made with other settings ({', '.join(keys)} differ); "
            "use another workspace, or delete that folder to make it again."
        )
    return not complete(folder)


def _bare(folder: Path) -> bool:
    """Whether a folder holds no file but its settings and hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return all(path.name == SETTINGS or path.name.startswith(".") for path in files)


def restart(folder: Path, settings: Mapping[str, Any]) -> None:
    """Open a folder to be made again with these settings, whatever made it before.

    Its files stay until the making replaces them one by one, so that a kill on the way leaves each
    of them there, old or new; what the making does not write goes at its end (`keep_only`).
    """
    sweep(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # first: it never seals other settings' files
    write_json(folder / SETTINGS, json_value(settings))


def keep_only(folder: Path, files: Iterable[Path]) -> None:
    """Remove what an earlier making left in a folder: all but these files and what seals it."""
    kept = {*files, *(folder / name for name in UNHASHED)}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in kept or path.name.startswith("."):
            continue
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def finish(folder: Path, keep_open: str = "") -> dict[str, Any]:
    """Seal a folder that `begin` claimed: write the manifest with the hash of every file in it.

    The manifest comes last: until it is there, the folder is one to go on with.

    Args:
        folder: the folder.
        keep_open: a pattern of files that go on changing and are left out, such as labels.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in UNHASHED
        and not path.name.startswith(".")  # locks, and what unfinished writers left
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
    """The manifest of an input folder whose files are all there and unchanged in size and hash.

    Raises:
        NapoError: when the folder is missing or unfinished (naming the notebook that makes it), or
            a file in it is missing or was changed.
    """
    if not complete(folder):
        raise NapoError(f"{folder} is not there or not finished; run {_maker(folder)} first.")
    manifest = read_manifest(folder)
    again = f"delete {folder} and run {_maker(folder)} again."
    for name in missing_files(folder):
        raise NapoError(f"{folder / name} is missing; {again}")
    hashes = hash_files(folder / name for name in manifest["files"])
    for name, recorded in manifest["files"].items():
        if hashes[folder / name] != recorded:
            raise NapoError(
                f"{folder / name} is damaged (its hash differs from its record); {again}"
            )
    return manifest


def _maker(folder: Path) -> str:
    """The notebook that makes a folder, and for a run or its results which run it is."""
    stage = next((part for part in reversed(folder.parts) if part in MADE_BY), "")
    if not stage:
        return "the stage that makes it"
    place = len(folder.parts) - folder.parts[::-1].index(stage)
    run = "/".join(folder.parts[place:]) if stage in ("runs", "results") else ""
    return f"notebooks/{MADE_BY[stage]}" + (f" for {run}" if run else "")


def manifest_fingerprint(manifest: Mapping[str, Any]) -> str:
    """The fingerprint of a folder's content, for the manifests and results made from it."""
    return fingerprint(manifest["files"])
