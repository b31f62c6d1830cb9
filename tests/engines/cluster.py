"""A SLURM cluster of one node on this machine, in a folder of its own (Debian: slurm-wlm, munge).

Any user can start it. The node claims more cores, memory and GPUs than the machine has, so that the
requests of the shipped profile fit; nothing enforces them.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch")
PATIENCE = 30.0  # seconds until the cluster answers
CONFIGURATION = """\
ClusterName=napo
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
MpiDefault=none
KillWait=2
MinJobAge=300
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=500000 Gres=gpu:8 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE OverTimeLimit=0
PartitionName=short Nodes={host} MaxTime=10
"""


class Cluster:
    """The daemons of a cluster; `environment` makes SLURM's commands speak to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        missing = [name for name in PROGRAMS if not _program(name)]
        assert not missing, f"{', '.join(missing)} missing; apt install slurm-wlm munge"
        configuration = f"SLURM_CONF={folder}/slurm.conf"
        # Snakemake's job steps drop SLURM's variables; srun needs this one.
        srun = folder / "bin" / "srun"
        srun.parent.mkdir()
        srun.write_text(f'#!/bin/sh\n{configuration} exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        self.environment = {
            **os.environ,
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{srun.parent}:{os.environ['PATH']}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all daemons; return when the node takes jobs."""
        folder, host = self.folder, self.host
        for name in ("state", "spool"):
            (folder / name).mkdir()
        text = CONFIGURATION.format(
            folder=folder, host=host, user=getpass.getuser(), ports=_free_ports(2)
        )
        (folder / "slurm.conf").write_text(text)
        for number in range(8):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        subprocess.run([_program("mungekey"), "-c", "-k", folder / "munge.key"], check=True)
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid",
            f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        self._wait_for(lambda: (folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        self._daemon("slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", host)
        self._wait_for(
            lambda: self.command("sinfo", "-h", "-p", "gpu", "-o", "%t") == "idle", "slurmd"
        )

    def command(self, *words: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip()

    def freeze(self, number: str) -> None:
        """Stop the notebook of a job as soon as it runs, so that the job never ends by itself."""
        end = time.monotonic() + PATIENCE
        while not (found := [each for each in psutil.process_iter() if _runs(each, number)]):
            assert time.monotonic() < end, f"job {number} has no notebook"
            time.sleep(0.1)
        for process in found:
            process.suspend()

    def cancel(self) -> None:
        """Cancel all jobs."""
        self.command("scancel", "--user", getpass.getuser())

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        self.cancel()
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def _daemon(self, name: str, *words: str) -> None:
        with open(self.folder / f"{name}.out", "wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [_program(name), *words], env=self.environment, stdout=out, stderr=out
                )
            )

    def _wait_for(self, ready: Callable[[], bool], name: str) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            log = (self.folder / f"{name}.out").read_text(errors="replace")[-2000:]
            assert time.monotonic() < end, f"{name} does not answer: {log}"
            time.sleep(0.1)


def _runs(process: psutil.Process, number: str) -> bool:
    """Whether a process executes the notebook of a job."""
    with suppress(psutil.Error):
        return (
            any(word.endswith("/papermill") for word in process.cmdline())
            and process.environ().get("SLURM_JOB_ID") == number
        )
    return False


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
