"""Real commands, killed at random moments, end with the bytes of an uninterrupted run."""

import random

import pytest

from faults.real_commands import STAGES, Reference, check, fresh, survive


@pytest.mark.long
def test_real_commands_killed_five_times_each_lose_nothing(tmp_path, show):
    reference = Reference(fresh(tmp_path / "whole"))
    rng = random.Random(1)
    survivals = [survive(stage, reference, fresh(tmp_path / "killed"), 5, rng) for stage in STAGES]
    check(survivals, kills=40, show=show)
