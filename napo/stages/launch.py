"""Run a stage in one process or in several.

    python -m napo.stages.launch SPEC.json

A stage that uses several processes claims its folder, starts them with this command, and seals the
folder. Each process does its share and writes its own files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from platform import node
from typing import Any

from filelock import FileLock, Timeout

from napo.config.profile import Profile
from napo.errors import NapoError
from napo.progress import PROGRESS_LINE
from napo.stages.ranks import WORKER, set_threads
from napo.stages.session import Session
from napo.workspace.files import make_folder
from napo.workspace.folders import Workspace
from napo.workspace.hashing import remember_in

STRATEGIES = Path(str(files("napo.training"))) / "accelerate"
EXIT_CODE = re.compile(r" *exitcode *: (-?\d+)")


def processes(session: Session, gpus: int | None = None) -> int:
    """Number of processes of a stage: the profile's, or by default one for each GPU.

    `gpus` is the number of visible GPUs where the caller knows it.

    Raises:
        NapoError: if the profile sets more than the visible GPUs.
    """
    import torch

    count = session.profile.launch.processes
    gpus = torch.cuda.device_count() if gpus is None else gpus
    if gpus and count > gpus:
        raise NapoError(
            f"launch.processes is {count}, and {gpus} GPUs are visible; "
            "lower it, or set it to 0 for one process a GPU."
        )
    return count or max(1, gpus)


@contextmanager
def one_gpu(session: Session) -> Iterator[str | None]:
    """Reserve a GPU for a job that runs beside others; gives its name, such as "cuda:2".

    Gives None with no GPU or one GPU (SLURM gives each job one).
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        yield None
        return
    folder = session.workspace.data
    make_folder(folder)
    locks = [FileLock(folder / f".gpu-{node()}-{index}.lock") for index in range(count)]
    while True:
        for index, lock in enumerate(locks):
            with suppress(Timeout), lock.acquire(timeout=0):
                yield f"cuda:{index}"
                return
        time.sleep(1.0)


def shared(
    session: Session,
    work: Callable[..., Any],
    strategy: str = "ddp",
    **arguments: Any,
) -> None:
    """Do a stage's work in this process, or in several if the profile says so.

    Every process calls `work(session, **arguments)`, a function of a module with arguments that
    JSON can hold. `strategy` names a file of `napo/training/accelerate`.

    Raises:
        NapoError: the error of `work`, or if a process ended without one.
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
        run_processes(command(spec, count, strategy), spec)


def command(spec: Path, count: int, strategy: str) -> list[str]:
    """The call of `accelerate launch`, or of torchrun without GPUs, for `count` processes.

    Raises:
        NapoError: when the strategy needs DeepSpeed, which is not installed.
    """
    import torch

    module = ["-m", "napo.stages.launch", str(spec)]
    if not torch.cuda.is_available():
        workers = f"--nproc_per_node={count}"
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", workers, *module]
    if strategy.startswith("zero") and not find_spec("deepspeed"):
        raise NapoError(
            f"launch.strategy is {strategy}, which needs DeepSpeed: pip install deepspeed, "
            "or set launch.strategy to fsdp2."
        )
    call = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    call += ["--config_file", str(STRATEGIES / f"{strategy}.yaml")]
    # Port 0 is any free port: several stages may run on one machine.
    return [*call, "--num_processes", str(count), "--main_process_port", "0", *module]


def run_processes(call: list[str], spec: Path) -> None:
    """Run the processes to their end and print their progress lines.

    Raises:
        NapoError: the error that a process wrote beside `spec`, or else how it ended.
    """
    process = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, WORKER: "1", "PYTHONUNBUFFERED": "1"},
    )
    ended = last_line = ""
    try:
        for line in map(str.rstrip, process.stdout):
            last_line = line if line.strip("=- ") else last_line
            if code := EXIT_CODE.match(line):  # in the launcher's account of what failed
                ended = f"exit code {code[1]}"
            if PROGRESS_LINE.match(line) or line.startswith("napo"):  # not the launcher's own
                print(line, flush=True)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.wait():
        error = spec.with_suffix(".error")
        if error.is_file():
            raise NapoError(error.read_text(encoding="utf-8"))
        raise NapoError(f"A process of the stage ended early: {ended or last_line}")


def main(arguments: list[str]) -> int:
    """Do one process's share of a stage."""
    spec = Path(arguments[0])
    content = json.loads(spec.read_text(encoding="utf-8"))
    profile = Profile(**content["profile"])
    workspace = Workspace(Path(content["workspace"]), profile.name)
    module, _, name = content["work"].partition(":")
    set_threads(profile.threads)
    remember_in(workspace.hashes)  # the inputs need not be hashed again
    try:
        getattr(import_module(module), name)(Session(profile, workspace), **content["arguments"])
    except NapoError as error:
        spec.with_suffix(".error").write_text(str(error), encoding="utf-8")
        print(f"napo: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        # The first one: when a process is gone, others fail at talking to it.
        with suppress(FileExistsError), open(spec.with_suffix(".error"), "x") as file:
            text = " ".join(str(error).split())[:500]
            file.write(f"A process of the stage ended early: {type(error).__name__}: {text}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
