"""The finished smoke workspace that the explorers read."""

import pytest

from napo import stages
from napo.stages.session import open_session


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A smoke workspace with rows, labels, two runs, and results of base and both."""
    made = open_session("smoke", str(tmp_path_factory.mktemp("explore")))
    stages.make_rows(made)
    stages.build_rows(made)
    stages.score_reference(made)
    stages.annotate(made)
    stages.make_benchmarks(made)
    stages.evaluate(made, "base")
    for variant in ("A1", "dpo"):
        stages.train(made, variant, 0)
        stages.evaluate(made, variant)
    return made
