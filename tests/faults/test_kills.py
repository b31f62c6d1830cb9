"""Every stage survives signals at random moments and ends as an uninterrupted run."""

import pytest

from faults import work
from faults.harness import Laboratory

# Stages that write in parts are killed twice.
FEW = {"build": 2, "train full": 2, "train lora": 1, "evaluate": 2, "label": 1, "judge": 1,
       "reference": 1}  # fmt: skip
QUARTER, REST = 2, 6  # kills of each stage: a hundred in all


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, judge):
    return Laboratory(tmp_path_factory.mktemp("kills"), "smoke", judge.environment)


def test_ten_kills_over_the_stages_lose_no_record_and_change_no_byte(small, show):
    assert sum(FEW.values()) == 10
    show("\n".join(small.survive(stage, kills, seed=1) for stage, kills in FEW.items()))


@pytest.mark.parametrize(
    "kills",
    [pytest.param(QUARTER, marks=pytest.mark.long), pytest.param(REST, marks=pytest.mark.faults)],
)
def test_kills_over_all_stages_lose_no_record_and_change_no_byte(smoke, show, kills):
    assert (QUARTER + REST) * len(work.STAGES) >= 100
    show("\n".join(smoke.survive(stage, kills, seed=kills) for stage in work.STAGES))
