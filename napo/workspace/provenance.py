"""What made an artefact: the code's commit, the profile, the parameters, the machine.

None of it is an input, so none of it belongs to what is compared: two machines, or two commits that
change a comment, have to give the same manifests. It stands in a file of its own beside a folder's
manifest, which no hash covers. Seeds, fingerprints of inputs and versions are in the manifest.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from napo import __version__
from napo.workspace.folders import checkout

FILE = "provenance.json"
# What decides results, the published numbers included; a README may change.
CODE = ("napo", "notebooks", "Snakefile", "data/paper")
_REDIRECTS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set within git's hooks
_asked: dict[str, Any] = {}  # the session's profile and parameters, for whatever it makes


def ask(profile: str, fingerprint: str, parameters: Mapping[str, Any] | None = None) -> None:
    """Say what this process was asked for; what it makes from now on says so.

    Args:
        profile: its name.
        fingerprint: of all its settings.
        parameters: a notebook's, without the folder that it writes to.
    """
    _asked.clear()
    _asked.update(profile={"name": profile, "fingerprint": fingerprint})
    _asked.update(parameters=dict(parameters or {}))
    code()  # now: whoever commits while training runs does not change what runs


def record() -> dict[str, Any]:
    """All that is known of what makes something now; no path, no secret, no time."""
    return {"code": code(), "machine": machine(), **_asked}


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """Version, commit and whether the code differs from it; without a checkout, the version."""
    found = {"version": __version__, "commit": None, "dirty": None}
    folder = checkout()
    if not folder:
        return found
    top, _, commit = (_git(folder, "rev-parse", "--show-toplevel", "HEAD") or "").partition("\n")
    if not commit or Path(top).resolve() != folder:  # somebody else's repository around ours
        return found
    changes = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", *CODE)
    return {**found, "commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where it is missing, fails or hangs."""
    surroundings = {k: v for k, v in os.environ.items() if k not in _REDIRECTS}
    return _output(["git", "--no-optional-locks", "-C", str(folder), *arguments], env=surroundings)


def _output(call: list[str], **options: Any) -> str | None:
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=20, **options)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """Processor, cores, threads, memory, GPUs, system, Python; neither name nor address."""
    torch = sys.modules.get("torch")  # not imported for this: a figure does without
    threads = torch.get_num_threads() if torch else os.environ.get("OMP_NUM_THREADS", "not set")
    return {**_hardware(), "threads": threads}


@lru_cache(maxsize=1)
def _hardware() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "gpus": _gpus(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), platform.processor() or platform.machine())


def _gpus() -> list[str]:
    """Names of the GPUs. Not from torch, which would open each of them in this process too."""
    if not shutil.which("nvidia-smi"):
        return []
    return (_output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "").splitlines()


def code_to_read(found: Mapping[str, Any]) -> str:
    """What `code` found, or a file of it holds, in words."""
    if not found.get("commit"):
        return f"napo {found.get('version', '?')}, not from a checkout"
    dirty = found.get("dirty")
    state = "clean" if dirty is False else "with changes not committed" if dirty else "not compared"
    return f"commit {found['commit']}, {state}"
