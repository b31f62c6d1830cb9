"""A session with downloads, the tiny model, and a workspace of its own, for `napo check`."""

import json
import shutil

import pytest
import source_fixtures as web

from napo import stages
from napo.stages.session import open_session

SHAPE = {"max_length": 512, "batch_size": 4, "micro_batch_size": 4}


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory):
    return stages.make_benchmarks(open_session("smoke", str(tmp_path_factory.mktemp("smoke"))))


@pytest.fixture
def profile(tmp_path, benchmarks):
    """Rows and changed settings -> a session with downloads, the tiny model, and its workspace."""
    shutil.copytree(benchmarks, tmp_path / "benchmarks")

    def make(*shards, **changes):
        shards = shards or ([web.published(number) for number in range(8)],)
        web.write(tmp_path / "in" / "rows", *shards)
        settings = {
            "seeds": "0",
            "data": {"source": "in/rows", "expected": sum(map(len, shards)), "bad_rows": "skip"},
            "evaluation": {"source": "benchmarks"},
            "world": {"judge_by_truth": "napo.icon_world.judge:judge_by_truth"},
            **changes,
            "training": SHAPE | changes.get("training", {}),
        }
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps(settings))
        return open_session(str(path), str(tmp_path))

    return make
