"""Downloads that a profile needs: what is there, what is missing, what is left to do by hand.

`napo fetch --profile llava-1.5-7b` is a dry run; `--yes` downloads, and continues after an
interruption. `data/downloads/fetched.json` keeps commits, files, sizes and SHA-256. A file that has
changed is downloaded again. Files placed by hand are compared with the hub's hashes.
"""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from napo.config.profile import Profile, Source
from napo.data import hub
from napo.data.downloads import (
    AGAIN,
    PIN,
    arrange,
    download,
    human,
    inside,
    printable,
    size_of,
    unpack,
)
from napo.errors import NapoError, unknown
from napo.workspace.files import write_json
from napo.workspace.folders import Workspace
from napo.workspace.hashing import cached_digest, differing, hash_files, remember_in
from napo.workspace.locks import hold

RECORD = "data/downloads/fetched.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")  # no second weights


class Record(BaseModel, strict=True):
    """What was fetched of one source, as `fetched.json` keeps it."""

    repo: str
    revision: str  # as the profile names it
    commit: str
    at: str = ""  # time of the last change
    whole: bool  # False during a download
    files: dict[str, int]  # of the hub: name -> bytes
    urls: dict[str, dict[str, int]]  # file of an address -> that file or its members: name -> bytes
    hashes: dict[str, str] = {}  # name -> SHA-256 of each file that has arrived

    def serves(self, source: Source) -> bool:
        """Whether this is what the profile wants."""
        return self.repo == source.repo and source.revision in ("", self.revision)


@dataclass(frozen=True)
class ItemStatus:
    """How much of one source is on the disk and, after `_ask_hub`, what the hub has."""

    source: Source
    folder: Path
    record: Record | None  # of what lies in the folder
    commit: str  # what is or would be fetched; empty: the newest
    present: int  # files
    expected: int
    lacks: tuple[str, ...]  # patterns and files that are missing or not whole
    files: Mapping[str, int]  # name -> bytes
    changed: tuple[str, ...] = ()  # files with another hash than recorded or listed
    hub: Mapping[str, hub.HubFile] = field(default_factory=dict)  # the hub's files
    problem: str = ""  # what is wrong with the hub, in one sentence

    @property
    def state(self) -> Literal["complete", "partly", "missing"]:
        """How much of it is on the disk."""
        return "complete" if not self.lacks else "partly" if self.present else "missing"

    @property
    def can_come(self) -> bool:
        """Whether something is missing that a program may download."""
        return bool(self.lacks and (self.source.repo or self.source.url))

    @property
    def is_unrecorded(self) -> bool:
        """Whether only the hub knows the hashes of what is there."""
        return bool(self.source.repo and not (self.record and self.record.hashes))

    @property
    def is_stated(self) -> bool:
        """Whether the size is only what the profile states."""
        return bool(self.source.url) or not self.files

    @property
    def size(self) -> int:
        """Bytes in all, 0 if not known."""
        return max(int(self.source.gigabytes * 1e9) * self.is_stated, sum(self.files.values()))

    @property
    def to_come(self) -> int:
        """Bytes that are still to be downloaded."""
        arrived = sum(max(0, size_of(self.folder / name)) for name in self.files)
        return max(0, self.size - arrived) if self.lacks else 0

    @property
    def place(self) -> Path:
        """The nearest folder that exists."""
        return next(path for path in (self.folder, *self.folder.parents) if path.exists())

    def __str__(self) -> str:
        if self.state == "partly":
            return f"{self.present:,} of {self.expected:,} files"
        return self.state


def items(profile: Profile) -> list[Source]:
    """Everything that a profile downloads, its base model first if that is a hub id."""
    path, revision, sources = profile.model.path, profile.model.revision, list(profile.sources)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not Path(path).exists():
        model = {"name": path, "to": "", "repo": path, "kind": "model", "revision": revision}
        sources.insert(0, Source(**model, files=MODEL_FILES))
    places = [PurePosixPath(_key(source)) for source in sources]  # "a" is the place of "a/" too
    for place in places:
        if places.count(place) > 1:
            raise NapoError(f"Two sources go to {place}; give each its own `to` in the profile.")
    return sources


def status(profile: Profile, workspace: Workspace, only: str = "") -> list[ItemStatus]:
    """The state of every source of a profile, or of the one named `only`, from the disk alone."""
    sources, records = items(profile), read_records(workspace)
    chosen = [source for source in sources if only in ("", source.name)]
    if only and not chosen:
        raise unknown("item to fetch", only, [source.name for source in sources])
    return [_on_disk(source, records.get(_key(source)), workspace) for source in chosen]


def fetch(
    profile: Profile,
    workspace: Workspace,
    *,
    yes: bool = False,
    only: str = "",
    say: Callable[[str], None] = print,
) -> None:
    """Show what a profile needs (or only the source named `only`), and with `yes` download it.

    Raises:
        NapoError: when another fetch downloads to the workspace, the disk is too small, a source
            was fetched at another revision, or a download fails; the other sources are then tried.
    """
    remember_in(workspace.hashes)
    statuses, failed = status(profile, workspace, only), []
    if not statuses:
        return say(f"The profile {profile.name} needs no download.")
    # A place that is only read needs no lock.
    get = yes and any(item.can_come or item.is_unrecorded for item in statuses)
    lock = hold(workspace.root / RECORD, "already downloads what it lists in")
    with lock if get else nullcontext():
        statuses = [_ask_hub(item) for item in status(profile, workspace, only)]
        say(_table(statuses, get))
        for item in statuses:
            if get and item.can_come:
                try:
                    _get(item, workspace, say)
                except NapoError as error:
                    text, name = str(error), item.source.name
                    failed.append(text if text.startswith(name) else f"{name}: {text}")
    for item in status(profile, workspace, only):
        if item.source.manual and item.lacks:
            say(f"\nBy hand: {item.source.name} ({item}; lacks {_some(item.lacks)})")
            say(item.source.manual.rstrip())
    if failed:
        raise NapoError(" ".join(failed))
    if not yes:
        say("\nNothing was downloaded; YES=1 (make fetch) or --yes downloads.")


def read_records(workspace: Workspace) -> dict[str, Record]:
    """What was fetched, by its folder, or by its repository in the hub's cache."""
    path = workspace.root / RECORD
    try:
        content = path.read_bytes() if path.is_file() else b"{}"
        return TypeAdapter(dict[str, Record]).validate_json(content)
    except ValidationError:
        raise NapoError(
            f"{path} is damaged (it does not list what was fetched); delete it, then {AGAIN}."
        ) from None


def remember(source: Source, record: Record, workspace: Workspace) -> None:
    """Write what was fetched of a source."""
    record.at = datetime.now(UTC).isoformat(timespec="seconds")
    records = {**read_records(workspace), _key(source): record}
    write_json(workspace.root / RECORD, {key: r.model_dump() for key, r in records.items()})


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files in a folder, by name."""
    hashes = hash_files(folder / name for name in names)
    return {path.relative_to(folder).as_posix(): digest for path, digest in hashes.items()}


def require_unchanged(profile: Profile, workspace: Workspace) -> None:
    """Stop if a download of a profile has other bytes than it arrived with.

    Raises:
        NapoError: naming the file.
    """
    for item in status(profile, workspace):
        for name in item.changed:
            raise NapoError(
                f"{item.folder / name} has other bytes than {item.source.name} has; call make "
                f"fetch PROFILE={profile.name} YES=1, which gets it again."
            )


def _key(source: Source) -> str:
    return source.to or source.repo


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _on_disk(source: Source, record: Record | None, workspace: Workspace) -> ItemStatus:
    """A source as it is on the disk."""
    same = record is not None and record.serves(source)
    commit = record.commit if same else source.revision
    folder = workspace.path(source.to) if source.to else hub.cache_folder(source, commit)
    if not folder.exists() or not (source.to or same):  # deleted, or another commit in the cache
        record = None
    groups = (record.files, *record.urls.values()) if record else ()
    files = {name: size for group in groups for name, size in group.items()}
    names = tuple(map(glob.escape, files or source.url))
    digests = {name: url.partition(PIN)[2].lower() for name, url in source.url.items()}
    digests = {name: d for name, d in digests.items() if d and not name.endswith(".zip")}
    digests |= record.hashes if record else {}
    if not source.to:
        paths = [path for pattern in source.files for path in folder.glob(pattern)]
        digests |= {path.name: digest for path in paths if (digest := cached_digest(path))}
    changed = differing(folder, digests)
    names = names or (("config.json", "*.safetensors") if source.kind == "model" else ("*",))
    holds = source.holds or dict.fromkeys(names, 1)
    counts = {name: sum(path.is_file() for path in folder.glob(name)) for name in holds}
    lacks = [name for name, number in holds.items() if counts[name] < number]
    lacks += [name for name, size in files.items() if size_of(folder / name) != size]
    lacks += changed
    if record and not record.whole:
        lacks.append("the rest of an interrupted download")
    if record and not same:
        lacks.append(f"revision {source.revision[:12]}")
    present = sum(min(counts[name], number) for name, number in holds.items())
    expected, lacks = sum(holds.values()), tuple(dict.fromkeys(lacks))
    return ItemStatus(source, folder, record, commit, present, expected, lacks, files, changed)


def _ask_hub(item: ItemStatus) -> ItemStatus:
    """The item with the hub's commit, files, sizes and hashes, and what differs from them.

    The hub is not asked about a complete download whose hashes are recorded.
    """
    source = item.source
    if not (source.repo and (item.lacks or item.is_unrecorded)):
        return item
    try:
        commit, files = hub.list_files(source, item.commit)
    except NapoError as error:
        return replace(item, problem=str(error))
    folder = item.folder if source.to else hub.cache_folder(source, commit)
    sizes = {name: file.size for name, file in files.items()}
    present = [name for name in files if (folder / name).is_file()]
    changed = differing(folder, {name: file.digest for name, file in files.items()})
    lacks = item.lacks if item.lacks or not present else tuple(set(files) - set(present))
    news = {"folder": folder, "commit": commit, "files": sizes, "hub": files, "changed": changed}
    return replace(item, **news, lacks=tuple(dict.fromkeys((*lacks, *changed))))


def _table(statuses: Sequence[ItemStatus], get: bool) -> str:
    """The report; with `get`, an error if a disk is too small."""
    rows = [("item", "to", "size", "there", "licence", "revision")]
    disks: dict[int, list[ItemStatus]] = {}
    for item in statuses:
        size = human(item.size) + " (stated)" * item.is_stated if item.size else "not known"
        licence, revision = item.source.licence or "see its page", item.commit[:12] or "the newest"
        to = item.source.to or "the hub's cache"
        rows.append((item.source.name, to, size, str(item), licence, revision))
        disks.setdefault(item.place.stat().st_dev, []).append(item)
    room = ""
    for group in disks.values():
        place, need = group[0].place, sum(item.to_come for item in group)
        free = shutil.disk_usage(place).free
        room += f", {human(free)} free at {place}"
        if get and free < need:
            raise NapoError(
                f"{human(need)} are to come to {place}, where {human(free)} are free; free some "
                "space, or name another WORKSPACE (HF_HOME for the hub's cache)."
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    least = "" if all(item.size for item in statuses) else "at least "
    total, come = sum(item.size for item in statuses), sum(item.to_come for item in statuses)
    lines.append(f"\nIn all {least}{human(total)}, {human(come)} to come{room}.")
    problems = dict.fromkeys(f"Note: {item.problem}" for item in statuses if item.problem)
    return "\n".join([*lines, *problems])


def _get(item: ItemStatus, workspace: Workspace, say: Callable[[str], None]) -> None:
    """Download one source and record it; finished files are kept."""
    source, folder, before = item.source, item.folder, item.record
    if before and not before.serves(source):
        raise NapoError(
            f"{source.name} was fetched at {before.revision[:12] or before.commit[:12]}, and "
            f"the profile asks for {source.revision[:12]}; remove {folder} to fetch that."
        )
    if item.problem:
        raise NapoError(item.problem)
    say(f"\n{source.name}")
    record = Record(
        repo=source.repo, revision=source.revision, commit=item.commit, whole=False,
        files=item.files if source.repo else {}, urls=before.urls if before else {},
        hashes=before.hashes if before else {},
    )  # fmt: skip
    # Before the first byte, so that an interrupted download goes on at the same commit.
    remember(source, record, workspace)
    if source.repo:
        hub.download(source, item.commit, item.hub, folder)
        record.hashes |= hashes_of(folder, record.files)
        if not source.to and not source.revision:
            say(f"  this is commit {item.commit}; set model.revision to it, so that it is loaded")
    for name, address in source.url.items():
        sizes, path = record.urls.get(name), inside(folder, name, source.name)
        wrong = any(file in item.lacks for file in sizes or (name,))
        if sizes and not wrong:
            continue
        if sizes or wrong:
            path.unlink(missing_ok=True)
        if not path.is_file():
            say(f"  {name} from {printable(address)}")
            download(address, path)
        record.urls[name] = unpack(path) if path.suffix == ".zip" else {name: size_of(path)}
        record.hashes |= hashes_of(folder, record.urls[name])
        remember(source, record, workspace)
    arrange(folder)
    record.whole = True
    remember(source, record, workspace)
