"""Re-hash a workspace: what changed, what is missing, what nobody wrote down; and what made it.

python -m napo.commands.verify --profile tiny [--workspace W]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.workspace import provenance
from napo.workspace.files import read_json
from napo.workspace.folders import Workspace
from napo.workspace.hashing import hash_file
from napo.workspace.manifests import (
    MANIFEST,
    SETTINGS,
    UNHASHED,
    manifest_fingerprint,
    read_manifest,
)


@dataclass(frozen=True)
class Finding:
    """A file that is not as its folder's manifest says.

    Attributes:
        path: the file.
        problem: "missing", "changed", "unlisted" (no manifest knows it), or "unfinished" (a folder
            that was begun and has no manifest). Of the rows' folder: it is not there, or is not
            the one that other folders were made from.
    """

    path: Path
    problem: str


def verify(data: Path, figures: Path | None = None) -> tuple[int, list[Finding]]:
    """Compare every finished folder under `data/<profile>` with its manifest, and figures too.

    Args:
        data: the folder of a profile.
        figures: the folder of its figures, each with its hashes in `<name>.provenance.json`.

    Returns:
        The number of files that were hashed, and what is not as it was.

    Raises:
        NapoError: when there is nothing to verify, or a manifest is damaged.
    """
    manifests = sorted(data.rglob(MANIFEST))
    if not manifests:
        raise NapoError(f"{data} holds no finished stage; run make reproduce first.")
    count, findings = 0, []
    for path in manifests:
        folder, manifest = path.parent, read_manifest(path.parent)
        files = manifest["files"]
        count += len(files)
        findings += _compared(folder, files)
        settings = folder / SETTINGS
        if not settings.is_file() or read_json(settings) != manifest["settings"]:
            findings.append(Finding(settings, "changed" if settings.is_file() else "missing"))
        inner = {other.parent for other in manifests} - {folder}
        for file in sorted(folder.rglob("*")):
            known = file.relative_to(folder).as_posix() in files
            apart = file.name in UNHASHED or file.name.startswith(".")
            labels = folder.name == "annotations" and file.suffix == ".csv"  # they go on growing
            if file.is_file() and not (known or apart or labels or inner & set(file.parents)):
                findings.append(Finding(file, "unlisted"))
    findings += _inputs({path.parent: read_manifest(path.parent) for path in manifests}, data)
    begun = {path.parent for path in data.rglob(SETTINGS)} - {path.parent for path in manifests}
    # People's labels stand alone until somebody reads them.
    findings += [
        Finding(each, "unfinished") for each in sorted(begun) if each.name != "annotations"
    ]
    for path in sorted(figures.glob(f"*.{provenance.FILE}")) if figures else ():
        known = read_json(path)
        files = known.get("files") if isinstance(known, dict) else None
        if not isinstance(files, dict):
            findings.append(Finding(path, "changed"))
            continue
        count += len(files)
        findings += _compared(path.parent, files)
    return count, findings


def _inputs(manifests: Mapping[Path, Mapping[str, Any]], data: Path) -> Iterator[Finding]:
    """The rows, if what was made from them is here and they are not, or are others."""
    there = {manifest_fingerprint(manifest) for manifest in manifests.values()}
    wanted = {manifest["settings"].get("rows") for manifest in manifests.values()} - {None}
    if not wanted <= there:
        rows = data / "rows"
        yield Finding(rows, "changed" if rows in manifests else "missing")


def _compared(folder: Path, files: Mapping[str, str]) -> Iterator[Finding]:
    """Which files of a folder are not there, or have another hash than was recorded."""
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            yield Finding(file, "missing")
        elif hash_file(file) != digest:
            yield Finding(file, "changed")


def makers(data: Path) -> Counter[str]:
    """What made the finished folders under `data/<profile>`: code, system -> number of folders.

    Raises:
        NapoError: when a record is damaged.
    """
    return Counter(_maker(path.parent) for path in data.rglob(MANIFEST))


def _maker(folder: Path) -> str:
    if not (folder / provenance.FILE).is_file():
        return "an earlier napo, which wrote no provenance.json"
    path = folder / provenance.FILE
    found = read_json(path)
    try:
        machine, code = found["machine"], provenance.code_to_read(found["code"])
        gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
        threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
        return f"{code}; {machine['cpu']}, {threads}{gpus}, {machine['system']}"
    except (KeyError, TypeError, AttributeError):
        raise NapoError(
            f"{path} is damaged (it does not say what made the folder); delete {folder}."
        ) from None


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 if all is as it was written."""
    parser = argparse.ArgumentParser(prog="python -m napo.commands.verify", description=__doc__)
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    given = parser.parse_args(arguments)
    try:
        name = load_profile(given.profile).name
        workspace = Workspace.open(given.workspace, name, write=False)
        count, findings = verify(workspace.data, workspace.figures)
        made_by = makers(workspace.data)
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    for finding in findings:
        print(f"{finding.problem:<10} {finding.path}")
    for maker, folders in sorted(made_by.items()):
        print(f"{folders} folder{'s' * (folders != 1)} made by {maker}")
    print(f"{count} files hashed, {len(findings)} not as they were written.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
