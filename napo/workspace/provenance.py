"""What made a result: the code's commit, the profile, the parameters, the machine.

These are not inputs: two machines, or two commits that differ in a comment, must give the same
manifest. So they are in a file beside the manifest, which no hash covers. Seeds, versions and
fingerprints of inputs are in the manifest.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired

import psutil
from typing_extensions import TypedDict

from napo import __version__
from napo.errors import NapoError
from napo.workspace.files import read_json
from napo.workspace.folders import checkout

FILE = "provenance.json"
# Only changes in these paths count as uncommitted code.
CODE = ("napo", "notebooks", "Snakefile", "data/paper")
_REDIRECTS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set within git's hooks
_session: dict[str, Any] = {}  # profile and parameters


class Machine(TypedDict):
    """The part of a machine's record that is read again."""

    cpu: str
    gpus: list[str]
    system: str
    threads: int | str


class Record(TypedDict):
    """The part of a folder's record that is read again."""

    code: dict[str, Any]
    machine: Machine


class FigureRecord(TypedDict):
    """The part of a figure's record that is read again."""

    files: dict[str, str]  # name -> SHA-256
    inputs: NotRequired[dict[str, Any]]  # what it was drawn from


def set_session(
    profile: str, fingerprint: str, parameters: Mapping[str, Any] | None = None
) -> None:
    """Set the profile and the parameters that all later records have.

    Args:
        profile: the profile's name.
        fingerprint: the fingerprint of all its settings.
        parameters: a notebook's parameters, without the workspace.
    """
    _session.update(profile={"name": profile, "fingerprint": fingerprint})
    _session.update(parameters=dict(parameters or {}))
    code()  # now, so that a commit during training is not recorded


def record() -> dict[str, Any]:
    """Code, machine, profile and parameters; no path, no secret, no time."""
    return {"code": code(), "machine": machine(), **_session}


def read_record(folder: Path) -> Record | None:
    """The record of a folder; None where an earlier version wrote none."""
    path = folder / FILE
    return read_json(path, Record, f"delete {folder} and make it again") if path.is_file() else None


def figure_record(path: Path) -> FigureRecord:
    """The record of a figure; without files where it is missing or damaged."""
    try:
        return read_json(path, FigureRecord)
    except NapoError:
        return {"files": {}}


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """Version, commit, and whether the code differs from the commit (None: unknown)."""
    state = {"version": __version__, "commit": None, "dirty": None}
    folder = checkout()
    if not folder:
        return state
    git = ("git", "--no-optional-locks", "-C", str(folder))
    top, _, commit = (_output(*git, "rev-parse", "--show-toplevel", "HEAD") or "").partition("\n")
    if not commit or Path(top).resolve() != folder:  # a repository around our files, not ours
        return state
    changes = _output(*git, "status", "--porcelain", "--untracked-files=normal", "--", *CODE)
    return {**state, "commit": commit, "dirty": None if changes is None else bool(changes)}


def _output(*call: str) -> str | None:
    """What a program prints; None where it is missing, fails or hangs."""
    env = {name: value for name, value in os.environ.items() if name not in _REDIRECTS}
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=20, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """Processor, cores, threads, memory, GPUs, system, Python; no host name, no address."""
    torch = sys.modules.get("torch")  # not imported here: a figure needs no torch
    threads = torch.get_num_threads() if torch else os.environ.get("OMP_NUM_THREADS", "not set")
    return {**_hardware(), "threads": threads}


@lru_cache(maxsize=1)
def _hardware() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    affinity = hasattr(os, "sched_getaffinity")
    # The GPUs' names are not from torch, which would open each GPU in this process too.
    query = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return {
        "cpu": next(iter(names), platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if affinity else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": (_output(*query) or "").splitlines(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def code_in_words(state: Mapping[str, Any]) -> str:
    """The value of `code`, or of a record's "code", in words."""
    if not state.get("commit"):
        return f"napo {state.get('version', '?')}, not from a checkout"
    words = {True: "with changes not committed", False: "clean"}
    return f"commit {state['commit']}, {words.get(state.get('dirty'), 'not compared')}"
