"""The judge, and the finished workspaces that the tests of faults start from."""

from pathlib import Path

import pytest

from faults.harness import Laboratory
from faults.judge_server import JudgeServer

SMALLEST = str(Path(__file__).parent / "smallest.yaml")


@pytest.fixture(scope="session")
def judge():
    pytest.importorskip("openai")
    running = JudgeServer()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def small(tmp_path_factory, judge):
    """Every stage that writes in parts, finished at the smallest scale."""
    stages = ["source", "benchmarks", "build", "reference", "annotate", "label", "train full",
              "train lora", "evaluate", "judge"]  # fmt: skip
    return Laboratory(tmp_path_factory.mktemp("small"), SMALLEST, judge.environment, stages)
