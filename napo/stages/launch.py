"""Start a stage on several GPUs, and be one of its processes.

    python -m napo.stages.launch SPEC.json      what `accelerate launch` runs in each process

A stage that uses several processes claims its folder, starts them, and seals the folder; each
process does its share and writes files of its own. A notebook needs no more than the profile's
`launch` section for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from platform import node
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napo.errors import NapoError
from napo.stages.ranks import WORKER, set_threads
from napo.workspace.files import make_folder

if TYPE_CHECKING:
    from napo.stages.session import Session

STRATEGIES = Path(str(files("napo.training"))) / "accelerate"


def processes(session: Session) -> int:
    """How many processes a stage of this session uses: the profile's, or one for each GPU.

    Raises:
        NapoError: when more GPUs are asked for than are visible.
    """
    import torch

    wanted, there = session.profile.launch.processes, torch.cuda.device_count()
    if torch.cuda.is_available() and wanted > there:
        raise NapoError(
            f"launch.processes is {wanted}, and {there} GPUs are visible; "
            "lower it, or set it to 0 for one process a GPU."
        )
    return wanted or max(1, there)


@contextmanager
def one_gpu(session: Session) -> Iterator[str | None]:
    """A GPU for a job that takes one, while others do the same beside it: its name, such as cuda:2.

    None where there is no choice: without GPUs, or with one, as SLURM gives it to a job.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        yield None
        return
    make_folder(session.workspace.data)
    locks = [FileLock(session.workspace.data / f".gpu-{node()}-{at}.lock") for at in range(count)]
    while True:
        for at, lock in enumerate(locks):
            with suppress(Timeout), lock.acquire(timeout=0):
                yield f"cuda:{at}"
                return
        time.sleep(1.0)


def shared(
    session: Session,
    work: Callable[..., Any],
    strategy: str = "ddp",
    **arguments: Any,
) -> None:
    """Do a stage's work: here, or in several processes if the profile says so.

    Args:
        session: the session.
        work: a function of a module, called as `work(session, **arguments)` in every process.
        strategy: a file of `napo/training/accelerate`.
        arguments: what JSON can hold.

    Raises:
        NapoError: what `work` raised, as the same sentence; or that a process ended by itself.
    """
    count = processes(session)
    if count == 1 or os.environ.get(WORKER):
        work(session, **arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.json"
        content = {
            "work": f"{work.__module__}:{work.__qualname__}",
            "profile": session.profile.model_dump(mode="json"),
            "workspace": str(session.workspace.root),
            "arguments": arguments,
        }
        spec.write_text(json.dumps(content), encoding="utf-8")
        _run(command(spec, count, strategy), spec)


def command(spec: Path, count: int, strategy: str) -> list[str]:
    """The call of `accelerate launch` (without GPUs: of torchrun) for a number of processes.

    Raises:
        NapoError: when the strategy needs DeepSpeed and it is not there.
    """
    import importlib.util

    import torch

    module = ["-m", "napo.stages.launch", str(spec)]
    if not torch.cuda.is_available():
        workers = f"--nproc_per_node={count}"
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", workers, *module]
    if strategy.startswith("zero") and not importlib.util.find_spec("deepspeed"):
        raise NapoError(
            f"launch.strategy is {strategy}, which needs DeepSpeed: pip install deepspeed, "
            "or set launch.strategy to fsdp2."
        )
    call = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    call += ["--config_file", str(STRATEGIES / f"{strategy}.yaml")]
    # Any port that is free: several stages may run on one machine.
    return [*call, "--num_processes", str(count), "--main_process_port", "0", *module]


def _run(call: list[str], spec: Path) -> None:
    """Run it to its end, its lines passed on as they come."""
    process = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, WORKER: "1", "PYTHONUNBUFFERED": "1"},
    )
    last = ""
    try:
        for line in process.stdout or ():
            shown = line.rstrip()
            last = shown or last
            if _ours(shown):
                print(shown, flush=True)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.wait():
        said = spec.with_suffix(".error")
        raise NapoError(
            said.read_text(encoding="utf-8")
            if said.is_file()
            else f"A process of the stage ended early: {last}"
        )


def _ours(line: str) -> bool:
    """Whether a line of the processes is progress or a warning of napo's, not a launcher's."""
    return ", " in line and (" left" in line or " after " in line or line.startswith("napo"))


def main(arguments: list[str]) -> int:
    """One process of a stage: its share of the work."""
    from napo.config.profile import Profile
    from napo.stages.session import Session
    from napo.workspace.folders import Workspace
    from napo.workspace.hashing import remember_in

    spec = Path(arguments[0])
    content: Mapping[str, Any] = json.loads(spec.read_text(encoding="utf-8"))
    profile = Profile(**content["profile"])
    module, _, name = content["work"].partition(":")
    set_threads(profile.threads)
    workspace = Workspace(Path(content["workspace"]), profile.name)
    remember_in(workspace.hashes)  # so that each process need not hash the inputs again
    session = Session(profile, workspace)
    try:
        getattr(import_module(module), name)(session, **content["arguments"])
    except NapoError as error:
        spec.with_suffix(".error").write_text(str(error), encoding="utf-8")
        print(f"napo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
