"""The pipeline on a real SLURM cluster: what it submits, tells, cancels, and finds again."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines.cluster import Cluster

from napo.commands import slurm

pytestmark = pytest.mark.engines
ROOT = Path(__file__).parents[2]
SMALLEST = ROOT / "tests" / "faults" / "smallest.yaml"
SUBMITTED = r"submitted to gpu as job (\d+)"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    running = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _next_test_finds_a_free_cluster(cluster):
    yield
    cluster.cancel()
    cluster.command("scontrol", "update", "PartitionName=gpu", "State=UP")


class Pipeline:
    """`napo reproduce --on slurm` of one notebook, with the shipped settings but quick polling."""

    def __init__(self, cluster, workspace, *options, gpus=0):
        self.cluster, self.data = cluster, workspace / "data" / "smallest"
        text = (slurm.SHIPPED / "slurm" / "config.yaml").read_text()
        text, changed = re.subn("(?<=status-checks: )60", "8", text)
        assert changed == 1
        text = text.replace("set-resources:", f"set-resources:\n  loss_curves: {{gpu: {gpus}}}")
        (workspace / "on").mkdir(exist_ok=True)
        (workspace / "on" / "config.yaml").write_text(text)
        self.output = workspace / "output"
        command = [sys.executable, "-m", "napo", "reproduce", "--profile", SMALLEST, "--cores", "1"]
        command += ["--workspace", workspace]
        command += ["--until", "loss_curves", "--on", workspace / "on", *options]
        environment = {**cluster.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # not nohup's
            )

    @property
    def text(self):
        return self.output.read_text()

    def until(self, pattern, seconds=90):
        """Wait for a line; returns the match."""
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.text)):
            assert time.monotonic() < end and self.process.poll() is None, self.text
            time.sleep(0.1)
        return match

    def until_state(self, state, seconds=90):
        """Wait until the job is in a state."""
        end = time.monotonic() + seconds
        while self.states() != [state]:
            assert time.monotonic() < end and self.process.poll() is None, self.text
            time.sleep(0.1)

    def end(self, seconds=240):
        """Wait for the command's end; returns its exit code."""
        return self.process.wait(seconds)

    def states(self):
        """The state of every job that was submitted, the ended ones included."""
        lines = self.cluster.command("squeue", "-h", "--states=all", "-o", "%j|%T").splitlines()
        return [line.split("|")[1] for line in lines if line.startswith(slurm.prefix(self.data))]


def stop_partition(cluster):
    cluster.command("scontrol", "update", "PartitionName=gpu", "State=DOWN")


def test_a_notebook_runs_as_a_job_whose_submission_is_shown(cluster, tmp_path):
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    assert pipeline.end() == 0, pipeline.text
    assert f"loss_curves {pipeline.until(SUBMITTED)[0]}" in pipeline.text
    assert pipeline.states() == ["COMPLETED"]
    assert (tmp_path / "figures" / "smallest" / "fig3.pdf").is_file()


def test_a_cancelled_job_ends_the_pipeline_with_slurms_word(cluster, tmp_path):
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    number = pipeline.until(SUBMITTED)[1]
    cluster.command("scancel", number)
    assert pipeline.end() == 1
    assert f"napo: SLURM ended job {number} as CANCELLED; what is finished" in pipeline.text


def test_a_notebooks_own_error_is_the_cause(cluster, tmp_path):
    figure = tmp_path / "figures" / "smallest" / "fig3.pdf"
    figure.mkdir(parents=True)  # a folder in the figure's place
    pipeline = Pipeline(cluster, tmp_path)
    assert pipeline.end() == 1
    assert re.search("napo: .*fig3.pdf", pipeline.text), pipeline.text


def test_a_partition_that_does_not_exist_is_told_by_slurm(cluster, tmp_path):
    pipeline = Pipeline(cluster, tmp_path, "--partition", "nope")
    assert pipeline.end() == 1
    assert "napo: SLURM refused the job: invalid partition specified: nope" in pipeline.text


@pytest.mark.apart
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_submitted_jobs(cluster, tmp_path, stop):
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    pipeline.until(SUBMITTED)
    pipeline.process.send_signal(stop)
    assert pipeline.end(30) == 128 + stop
    assert "Interrupted; 1 submitted jobs are cancelled" in pipeline.text
    assert pipeline.states() == ["CANCELLED"]


@pytest.mark.apart
def test_a_pending_job_is_shown_with_slurms_reason(cluster, tmp_path):
    stop_partition(cluster)
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    number = pipeline.until(SUBMITTED)[1]
    pipeline.until(rf"loss_curves \(job {number}\) waits: PartitionDown", 20)
    pipeline.process.terminate()
    pipeline.end(30)


@pytest.mark.apart
def test_a_gpu_job_asks_for_one_machine(cluster, tmp_path):
    stop_partition(cluster)
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu", gpus=8)
    number = pipeline.until(SUBMITTED)[1]
    job = cluster.command("scontrol", "show", "job", number)
    pipeline.process.terminate()
    pipeline.end(30)
    assert "NumNodes=1-1" in job.split()  # at least and at most; without a limit it is NumNodes=1


@pytest.mark.apart
def test_after_a_kill_the_next_command_waits_for_the_job_and_submits_nothing(cluster, tmp_path):
    stop_partition(cluster)
    killed = Pipeline(cluster, tmp_path, "--partition", "gpu")
    number = killed.until(SUBMITTED)[1]
    killed.process.kill()
    killed.end(10)
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    pipeline.until(rf"An earlier command submitted loss_curves \(job {number}, pending")
    cluster.command("scontrol", "update", "PartitionName=gpu", "State=UP")
    assert pipeline.end() == 0, pipeline.text
    assert pipeline.states() == ["COMPLETED"]


@pytest.mark.apart
def test_a_lost_connection_leaves_the_jobs(cluster, tmp_path):
    stop_partition(cluster)
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    pipeline.until(SUBMITTED)
    pipeline.process.send_signal(signal.SIGHUP)
    assert pipeline.end(30) == 128 + signal.SIGHUP
    assert pipeline.states() == ["PENDING"]


@pytest.mark.apart
def test_a_job_over_its_time_limit_is_told(cluster, tmp_path):
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    number = pipeline.until(SUBMITTED)[1]
    pipeline.until_state("RUNNING")
    cluster.command("scontrol", "update", f"JobId={number}", "TimeLimit=1")
    cluster.freeze(number)
    assert pipeline.end() == 1
    assert f"SLURM ended job {number} as TIMEOUT (its time limit;" in pipeline.text


@pytest.mark.apart
def test_a_job_whose_node_goes_down_runs_again(cluster, tmp_path):
    pipeline = Pipeline(cluster, tmp_path, "--partition", "gpu")
    pipeline.until_state("RUNNING")
    node = f"NodeName={cluster.host}"
    cluster.command("scontrol", "update", node, "State=DOWN", "Reason=test")
    pipeline.until(r"loss_curves \(job \d+\) waits: ")
    cluster.command("scontrol", "update", node, "State=RESUME")
    assert pipeline.end(400) == 0, pipeline.text
    assert pipeline.states() == ["COMPLETED"]
