"""Every stage survives signals at random moments and ends as an uninterrupted run."""

import pytest

from faults import work
from faults.harness import Laboratory, Outcome, table

# Stages that write in parts are killed twice; the others are in the long group.
FEW = {"build": 2, "train full": 2, "train lora": 1, "evaluate": 2, "label": 1, "judge": 1,
       "reference": 1}  # fmt: skip
MANY = 8  # of each stage, in the long group


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, judge):
    return Laboratory(tmp_path_factory.mktemp("kills"), "smoke", judge.environment)


def check(outcomes: list[Outcome], kills: int, show) -> None:
    show(table(outcomes))
    assert sum(outcome.kills for outcome in outcomes) >= kills
    assert not [o for o in outcomes if o.lost or o.torn or o.different], table(outcomes)


def test_ten_kills_over_the_stages_lose_no_record_and_change_no_byte(small, show):
    check(
        [small.survive(stage, kills, seed=1) for stage, kills in FEW.items()], kills=10, show=show
    )


@pytest.mark.long
def test_a_hundred_kills_over_all_stages_lose_no_record_and_change_no_byte(smoke, show):
    check([smoke.survive(stage, MANY, seed=2) for stage in work.STAGES], kills=100, show=show)
