"""`napo verify`: hash all finished files again; say what differs and what made each folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napo.errors import NapoError
from napo.results.collect import name_in
from napo.stages import plan
from napo.stages.session import Session
from napo.workspace import provenance
from napo.workspace.files import read_json
from napo.workspace.hashing import hash_file
from napo.workspace.manifests import (
    MANIFEST,
    SETTINGS,
    UNHASHED,
    manifest_fingerprint,
    read_manifest,
)


@dataclass(frozen=True)
class Difference:
    """A file that is not as its folder's manifest says.

    Attributes:
        path: the file.
        problem: "missing", "changed", "unlisted" (in no manifest), or "unfinished" (a folder
            without a manifest). The rows' folder is "missing" or "changed" if other folders were
            made from its rows as they were before. A result is of an "other run" if the run in
            `runs` is not the evaluated one. Tables are "outdated" if made from other results.
    """

    path: Path
    problem: str


def report(session: Session) -> int:
    """Print what differs, what made the folders, and the count; return 1 if anything differs."""
    workspace = session.workspace
    count, differences = verify(workspace.data, workspace.figures)
    for difference in differences:
        print(f"{difference.problem:<10} {difference.path}")
    others = list(plan.refusals(session, plan.existing_runs(session)))
    for folder, words in others:
        print(f"settings   {folder} was made with others than the profile's ({words})")
    try:
        outdated = plan.outdated(session, plan.variants_of(session, "", "", baselines=False))
    except NapoError as error:  # results that cannot share a table
        outdated = [str(error)]
    for path in outdated:
        print(f"outdated   {path}")
    for maker, folders in sorted(makers(workspace.data).items()):
        print(f"{folders} folder{'s' * (folders != 1)} made by {maker}")
    print(
        f"{count} files hashed, {len(differences)} not as they were written; {len(others)} folders "
        "with other settings than the profile's."
    )
    return 1 if differences or others or outdated else 0


def verify(data: Path, figures: Path | None = None) -> tuple[int, list[Difference]]:
    """Compare the finished folders of a profile, and its figures, with their recorded hashes.

    Every file is read, whatever the memory of hashes holds.

    Returns:
        The number of files that were hashed, and the differences.

    Raises:
        NapoError: when no stage has finished, or a manifest is damaged.
    """
    manifests = {path.parent: read_manifest(path.parent) for path in sorted(data.rglob(MANIFEST))}
    if not manifests:
        raise NapoError(f"{data} holds no finished stage; run make reproduce first.")
    count, differences = 0, []
    for folder, manifest in manifests.items():
        files = manifest["files"]
        count += len(files)
        differences += compare(folder, files)
        settings = folder / SETTINGS
        if not settings.is_file():
            differences.append(Difference(settings, "missing"))
        elif read_json(settings) != manifest["settings"]:
            differences.append(Difference(settings, "changed"))
        inner = manifests.keys() - {folder}
        for file in sorted(folder.rglob("*")):
            listed = file.relative_to(folder).as_posix() in files
            apart = file.name in UNHASHED or file.name.startswith(".")
            labels = folder.name == "annotations" and file.suffix == ".csv"  # labelling goes on
            if file.is_file() and not (listed or apart or labels or inner & set(file.parents)):
                differences.append(Difference(file, "unlisted"))
    rows, sources = data / "rows", {each["settings"].get("rows") for each in manifests.values()}
    if sources - {None} - {manifest_fingerprint(each) for each in manifests.values()}:
        differences.append(Difference(rows, "changed" if rows in manifests else "missing"))
    differences += stale(data, manifests)
    begun = {path.parent for path in data.rglob(SETTINGS)} - manifests.keys()
    # Annotations get their manifest when their labels are read.
    differences += [
        Difference(folder, "unfinished") for folder in sorted(begun) if folder.name != "annotations"
    ]
    for path in sorted(figures.glob(f"*.{provenance.FILE}")) if figures else ():
        files = provenance.figure_record(path)["files"]
        count += len(files)
        differences += compare(path.parent, files) if files else [Difference(path, "changed")]
    return count, differences


def stale(data: Path, manifests: Mapping[Path, Mapping[str, Any]]) -> Iterator[Difference]:
    """Results whose run was made again later, and tables whose results were."""
    for folder, manifest in manifests.items():
        settings, place = manifest["settings"], folder.relative_to(data).parts
        if place[0] == "results":
            run = manifests.get(data.joinpath("runs", *place[1:]))
            another = run and settings.get("run") and settings["run"] != run["settings"]
            if another or (len(place) == 3 and name_in(settings) != "/".join(place[1:])):
                yield Difference(folder, "other run")
        elif place[0].startswith("tables"):
            for name, made_from in settings.get("results", {}).items():
                result = manifests.get(data / "results" / name)
                if result and manifest_fingerprint(result) != made_from:
                    yield Difference(folder, "outdated")
                    break


def compare(folder: Path, files: Mapping[str, str]) -> Iterator[Difference]:
    """The files that are missing from a folder, or have another hash than the recorded one."""
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            yield Difference(path, "missing")
        elif hash_file(path) != digest:
            yield Difference(path, "changed")


def makers(data: Path) -> Counter[str]:
    """Code and machine that made the finished folders of a profile -> number of folders."""
    counts: Counter[str] = Counter()
    for manifest in data.rglob(MANIFEST):
        record = provenance.read_record(manifest.parent)
        if record is None:
            counts["an earlier napo, which wrote no provenance.json"] += 1
            continue
        machine, code = record["machine"], provenance.code_in_words(record["code"])
        gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
        threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
        counts[f"{code}; {machine['cpu']}, {threads}{gpus}, {machine['system']}"] += 1
    return counts
