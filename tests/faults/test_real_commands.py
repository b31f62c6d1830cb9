"""Real commands, killed at random moments, end with the bytes of an uninterrupted run."""

import random

import pytest

from faults.real_commands import STAGES, Reference, check, fresh, survive

KILLS = 11  # of each stage: a hundred in all, and some that may come too late


@pytest.mark.long
@pytest.mark.parametrize("part", [0, 1])  # two tests, for two workers
def test_real_commands_killed_a_hundred_times_lose_nothing(tmp_path, show, part):
    mine = STAGES[part::2]
    reference = Reference(fresh(tmp_path / "whole"), STAGES[: STAGES.index(mine[-1]) + 1])
    rng = random.Random(part)
    survivals = [
        survive(stage, reference, fresh(tmp_path / "killed"), KILLS, rng) for stage in mine
    ]
    check(survivals, kills=50, show=show)
