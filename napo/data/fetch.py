"""Downloads that a profile names: what is there, what is missing, what has to be done by hand.

`python -m napo.data.fetch --profile llava-1.5-7b` is a dry run; with `--yes` it
downloads, and goes on where it was interrupted. `data/downloads/fetched.json` keeps commits, files
and sizes.
"""

from __future__ import annotations

import argparse
import errno
import glob
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from napo.config.profile import Profile, Source, load_profile
from napo.data.downloads import (
    AGAIN,
    Free,
    arrange,
    download,
    human,
    inside,
    shown,
    size_of,
    unpack,
)
from napo.errors import NapoError, unknown
from napo.workspace.files import read_json, write_json
from napo.workspace.folders import Workspace
from napo.workspace.locks import hold

RECORD = "data/downloads/fetched.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")  # no second weights
Record = dict[str, Any]  # repo, revision, commit, at, whole; files of the hub, urls with theirs


@dataclass(frozen=True)
class ItemStatus:
    """How much of one item is on the disk."""

    name: str
    to: str  # folder relative to the workspace; empty: the hub's cache
    state: Literal["complete", "partly", "missing"]
    found: int  # files
    expected: int
    lacks: tuple[str, ...]  # patterns and files that are missing or not whole
    commit: str  # what is or would be fetched; empty: the newest
    manual: str  # what a person has to do, empty if nothing

    def __str__(self) -> str:
        partly = f"{self.found:,} of {self.expected:,} files"
        return partly if self.state == "partly" else self.state


@dataclass(frozen=True)
class _Plan:
    """One item with all that is known of it, here and on the hub."""

    item: Source
    state: ItemStatus
    record: Record
    folder: Path
    commit: str
    files: Mapping[str, int]  # name -> bytes
    problem: str = ""  # why the hub says nothing, a sentence after the item's name

    @property
    def name(self) -> str:
        name, repo = self.item.name, self.item.repo
        return repo if name == repo else f"{name} ({repo})"

    @property
    def stated(self) -> bool:
        """Whether the size is what the profile says; addresses are not asked for theirs."""
        return bool(self.item.url) or not self.files

    @property
    def size(self) -> int:
        stated = int(self.item.gigabytes * 1e9) if self.stated else 0
        return max(stated, sum(self.files.values()))

    @property
    def to_come(self) -> int:
        there = sum(max(0, size_of(self.folder / name)) for name in self.files)
        return 0 if self.state.state == "complete" else max(0, self.size - there)

    @property
    def can_come(self) -> bool:
        """Whether something is missing that a program may download."""
        return self.state.state != "complete" and bool(self.item.repo or self.item.url)

    @property
    def place(self) -> Path:
        """The nearest folder that exists."""
        return next(path for path in (self.folder, *self.folder.parents) if path.exists())


def items(profile: Profile) -> list[Source]:
    """Everything that a profile downloads, the base model first if its path is a hub id.

    Raises:
        NapoError: when two of them would go to one place.
    """
    path, revision = profile.model.path, profile.model.revision
    found = [
        Source(name=path, to="", repo=path, kind="model", revision=revision, files=MODEL_FILES),
        *profile.sources,
    ]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path) or Path(path).exists():
        found = found[1:]
    _refuse_one_place(found)
    return found


def _refuse_one_place(sources: Sequence[Source]) -> None:
    """Refuse two sources whose files would mix, and whose records would replace each other."""
    there: dict[PurePosixPath, Source] = {}
    for item in sources:
        place = PurePosixPath(_place(item))  # the same with and without a slash at its end
        if place in there:
            raise NapoError(
                f"The sources {there[place].name!r} and {item.name!r} both go to {place}; give "
                "each a `to` of its own in the profile."
            )
        there[place] = item


def status(profile: Profile, workspace: Workspace) -> list[ItemStatus]:
    """The state of every item of a profile, from the disk alone.

    Raises:
        NapoError: when the record of what was fetched is damaged.
    """
    return [_state(item, workspace) for item in items(profile)]


def fetch(
    profile: Profile,
    workspace: Workspace,
    *,
    yes: bool = False,
    only: str = "",
    say: Callable[[str], None] = print,
    free: Free = lambda folder: shutil.disk_usage(folder).free,
) -> None:
    """Show what a profile needs, and with `yes` download it.

    Args:
        profile: its `sources`, and its model if that is a hub id.
        workspace: where the sources' `to` begins.
        yes: download; without it nothing is written.
        only: the name of the one item that is meant; empty: all.
        say: takes each line of the report.
        free: folder -> bytes that are free there.

    Raises:
        NapoError: when the disk is too small, an item was fetched at another revision, or a
            download fails; the other items have been tried by then. Before anything is tried,
            when another fetch downloads to the workspace.
    """
    wanted = [item for item in items(profile) if only in ("", item.name)]
    if only and not wanted:
        raise unknown("item to fetch", only, [item.name for item in items(profile)])
    if not wanted:
        return say(f"The profile {profile.name} needs no download.")
    plans: list[_Plan] = []
    for item in wanted:
        plans.append(_plan(item, workspace, plans))
    say(_table(plans, free))
    failed = []
    if yes:
        _check_room(plans, free)
        failed = _get_all(plans, workspace, say, free)
    for item, state in [(item, _state(item, workspace)) for item in wanted if item.manual]:
        if state.state != "complete":
            say(f"\nBy hand: {item.name} ({state}; lacks {_some(state.lacks)})")
            say(item.manual.rstrip())
    if failed:
        raise NapoError(" ".join(failed))
    if not yes:
        say("\nNothing was downloaded; YES=1 (make fetch) or --yes downloads.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _records(workspace: Workspace) -> dict[str, Record]:
    """What was fetched, by its folder, or by its repository in the hub's cache."""
    path = workspace.root / RECORD
    known = read_json(path) if path.is_file() else {}
    if not isinstance(known, dict) or not all(_is_record(each) for each in known.values()):
        raise NapoError(
            f"{path} is damaged (it does not list what was fetched); delete it, then {AGAIN}."
        )
    return known


def _is_record(value: Any) -> bool:
    kinds = {
        "repo": str,
        "revision": str,
        "commit": str,
        "whole": bool,
        "files": dict,
        "urls": dict,
    }
    if not isinstance(value, dict):
        return False
    if not all(isinstance(value.get(name), kind) for name, kind in kinds.items()):
        return False
    groups = [value["files"], *value["urls"].values()]
    return all(isinstance(each, dict) for each in groups) and all(
        isinstance(size, int) for each in groups for size in each.values()
    )


def _record(item: Source, workspace: Workspace) -> Record:
    return _records(workspace).get(_place(item), {})


def _remember(item: Source, workspace: Workspace, record: Record) -> None:
    record = {**record, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(workspace.root / RECORD, {**_records(workspace), _place(item): record})


def _place(item: Source) -> str:
    return item.to or item.repo


def _agree(item: Source, record: Record) -> bool:
    """Whether what was fetched is what the profile asks for."""
    return record["repo"] == item.repo and item.revision in ("", record["revision"])


def _commit(item: Source, record: Record) -> str:
    """The commit to fetch: the one of the record, as long as the profile asks for no other."""
    return record["commit"] if record and _agree(item, record) else item.revision


def _folder(item: Source, workspace: Workspace, commit: str) -> Path:
    if item.to:
        return workspace.path(item.to)
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=item.repo, repo_type=item.kind)
    return Path(constants.HF_HUB_CACHE) / name / "snapshots" / (commit or "unknown")


def _files(record: Record) -> dict[str, int]:
    """File -> bytes of everything that was fetched, members of archives included."""
    groups = (record.get("files", {}), *record.get("urls", {}).values())
    return {name: size for files in groups for name, size in files.items()}


def _state(item: Source, workspace: Workspace) -> ItemStatus:
    record = _record(item, workspace)
    commit = _commit(item, record)
    folder = _folder(item, workspace, commit)
    other = bool(record) and not _agree(item, record) and folder.exists()
    if not item.to and record and record["commit"] != commit:
        record = {}  # the cache holds several commits, and this is another one's record
    files = _files(record)
    lost = [name for name, size in files.items() if size_of(folder / name) != size]
    counts = {
        pattern: (sum(path.is_file() for path in folder.glob(pattern)), number)
        for pattern, number in (item.holds or dict.fromkeys(_names(item, files), 1)).items()
    }
    lacks = [name for name, (found, number) in counts.items() if found < number]
    lacks += [name for name in lost if name not in lacks]
    if record and not record["whole"]:
        lacks.append("the rest of an interrupted download")
    if record and other:
        lacks.append(f"revision {item.revision[:12]}")
    found = sum(min(found, number) for found, number in counts.values())
    total = sum(number for _, number in counts.values())
    state = "complete" if not lacks else "partly" if found else "missing"
    return ItemStatus(item.name, item.to, state, found, total, tuple(lacks), commit, item.manual)


def _names(item: Source, files: Mapping[str, int]) -> Sequence[str]:
    """Files (or a pattern) that an item without `holds` must have."""
    if files or item.url:
        return tuple(map(glob.escape, files or item.url))
    return ("config.json", "*.safetensors") if item.kind == "model" else ("*",)


def _plan(item: Source, workspace: Workspace, before: Sequence[_Plan]) -> _Plan:
    """What is here, and unless it is complete, what the hub says."""
    # A hub that does not answer is asked once.
    silent = next((p for p in before if "cannot be reached" in p.problem), None)
    state, record = _state(item, workspace), _record(item, workspace)
    commit, files, problem = state.commit, _files(record), ""
    if item.repo and state.state != "complete":
        try:
            commit, files = (commit, files) if silent else _ask_hub(item, commit)
        except Exception as error:  # three libraries below the hub's client raise their own
            problem = _problem(item, error)
        problem = silent.problem if silent else problem
    folder = _folder(item, workspace, commit)
    return _Plan(item, state, record, folder, commit, files, problem)


def _ask_hub(item: Source, revision: str) -> tuple[str, dict[str, int]]:
    """Commit, and files with their bytes."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    kind = {"repo_id": item.repo, "repo_type": item.kind}
    commit = HfApi().repo_info(**kind, revision=revision or None, timeout=20).sha
    tree = HfApi().list_repo_tree(**kind, revision=commit, recursive=True)
    sizes = {entry.path: entry.size for entry in tree if hasattr(entry, "size")}
    names = list(filter_repo_objects(sizes, allow_patterns=list(item.files) or None))
    if not names:
        raise NapoError(f"has no file like {', '.join(item.files)}; correct the profile.")
    return commit, {name: sizes[name] for name in names}


PROBLEMS = {  # an exception of the hub's client, or of one of its parents -> what to say
    "NapoError": "{error}",
    "GatedRepoError": "is gated; accept its terms on its page and set HF_TOKEN.",
    "RepositoryNotFoundError": "is not on the hub, or needs a token; correct it or set HF_TOKEN.",
    "HFValidationError": "is not a name that the hub can have; correct it in the profile.",
    "RevisionNotFoundError": "has no revision {revision!r}; correct it in the profile.",
    "LocalEntryNotFoundError": f"lost its connection to the hub; check the network, then {AGAIN}.",
}


def _problem(item: Source, error: Exception) -> str:
    """What went wrong with the hub, in one sentence without the request, which holds the token."""
    names = [kind.__name__ for kind in type(error).__mro__]
    silent = f"cannot be reached on the hub ({names[0]}); check the network, then {AGAIN}."
    if getattr(error, "errno", None) == errno.ENOSPC:
        silent = f"does not fit on the disk; free some space, then {AGAIN}."
    elif names[0] == "OfflineModeIsEnabled":
        silent = f"cannot be reached on the hub: unset HF_HUB_OFFLINE, then {AGAIN}."
    text = next((PROBLEMS[name] for name in names if name in PROBLEMS), silent)
    return text.format(error=error, revision=item.revision)


def _table(plans: Sequence[_Plan], free: Free) -> str:
    rows = [("item", "to", "size", "there", "licence", "revision")]
    for plan in plans:
        item = plan.item
        size = human(plan.size) + " (stated)" * plan.stated if plan.size else "not known"
        licence, revision = item.licence or "see its page", plan.commit[:12] or "the newest"
        rows.append(
            (item.name, item.to or "the hub's cache", size, str(plan.state), licence, revision)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    places = {plan.place.stat().st_dev: plan.place for plan in plans}
    room = "".join(f", {human(free(place))} free at {place}" for place in places.values())
    come = human(sum(plan.to_come for plan in plans))
    least = "" if all(plan.size for plan in plans) else "at least "
    total = human(sum(plan.size for plan in plans))
    lines.append(f"\nIn all {least}{total}, {come} to come{room}.")
    # A silent hub is told once, though every item has it.
    problems = {plan.problem: f"{plan.name} {plan.problem}" for plan in reversed(plans)}
    return "\n".join([*lines, *(told for problem, told in problems.items() if problem)])


def _check_room(plans: Sequence[_Plan], free: Free) -> None:
    for plan in plans:
        device = plan.place.stat().st_dev
        need = sum(other.to_come for other in plans if other.place.stat().st_dev == device)
        if free(plan.place) < need:
            raise NapoError(
                f"{human(need)} are to come to {plan.place}, where {human(free(plan.place))} are "
                "free; free some space, or name another WORKSPACE (HF_HOME for the hub's cache)."
            )


def _get_all(
    plans: Sequence[_Plan], workspace: Workspace, say: Callable[[str], None], free: Free
) -> list[str]:
    """Download what is not complete, one process at a time, and give what went wrong."""
    failed = []
    if not any(plan.can_come for plan in plans):  # a place that is only read needs no lock
        return failed
    with hold(workspace.root / RECORD, "already downloads what it lists in"):
        for plan in plans:
            try:
                plan = _again(plan, workspace)
                if plan.can_come:
                    say(f"\n{plan.item.name}")
                    _get(plan, workspace, say, free)
            except NapoError as error:
                text = str(error)
                name = plan.item.name
                failed.append(text if text.startswith(name) else f"{name}: {text}")
    return failed


def _again(plan: _Plan, workspace: Workspace) -> _Plan:
    """The plan as it is now: another fetch may have ended between the planning and the lock."""
    same = _record(plan.item, workspace) == plan.record
    return plan if same else _plan(plan.item, workspace, ())


def _get(plan: _Plan, workspace: Workspace, say: Callable[[str], None], free: Free) -> None:
    """Download one item and record it; what is whole already is kept."""
    item, folder = plan.item, plan.folder
    before = plan.record if item.to and folder.exists() else {}
    if before and not _agree(item, before):
        raise NapoError(
            f"{item.name} was fetched at {before['revision'][:12] or before['commit'][:12]}, and "
            f"the profile asks for {item.revision[:12]}; remove {folder} to fetch that."
        )
    if plan.problem:
        raise NapoError(f"{plan.name} {plan.problem}")
    urls = before.get("urls", {})
    record = {"repo": item.repo, "revision": item.revision, "commit": plan.commit, "whole": False}
    record |= {"files": dict(plan.files) if item.repo else {}, "urls": urls}
    # Before the first byte, so that an interrupted download goes on at the same commit.
    _remember(item, workspace, record)
    if item.repo:
        _get_repo(plan)
    if item.repo and not item.to and not item.revision:
        say(f"  this is {plan.commit}; write it as model.revision, so that it is what is loaded")
    for name, address in item.url.items():
        if name in urls and all(size_of(folder / n) == size for n, size in urls[name].items()):
            continue
        path = inside(folder, name, item.name)
        if name in urls:
            path.unlink(missing_ok=True)
        if not path.is_file():
            say(f"  {name} from {shown(address)}")
            download(address, path)
        urls[name] = unpack(path, free) if path.suffix == ".zip" else {name: size_of(path)}
        _remember(item, workspace, record)
    arrange(folder)
    _remember(item, workspace, record | {"whole": True})


def _get_repo(plan: _Plan) -> None:
    """Every file of the repository that is wanted, checked by its size."""
    from huggingface_hub import snapshot_download

    item, folder = plan.item, plan.folder
    try:
        snapshot_download(
            item.repo,
            repo_type=item.kind,
            revision=plan.commit,
            allow_patterns=list(item.files) or None,
            local_dir=folder if item.to else None,
        )
    except Exception as error:  # see _plan
        raise NapoError(f"{plan.name} {_problem(item, error)}") from None
    lost = [name for name, size in plan.files.items() if size_of(folder / name) != size]
    if lost:
        raise NapoError(f"{item.name}: {_some(lost)} did not arrive whole; {AGAIN}.")
    if item.to:  # its notes have dates in them, and the folder's content is an input of stages
        for notes in ("download", "trees"):
            shutil.rmtree(folder / ".cache" / "huggingface" / notes, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m napo.data.fetch", description=__doc__)
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    parser.add_argument("--yes", action="store_true", help="download; without it: a dry run")
    parser.add_argument("--only", default="", help="the one item to fetch, by name")
    given = parser.parse_args(arguments)
    try:
        profile = load_profile(given.profile)
        workspace = Workspace.open(given.workspace, profile.name)
        fetch(profile, workspace, yes=given.yes, only=given.only)
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted; {AGAIN}.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
