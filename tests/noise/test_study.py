from itertools import pairwise

import pandas as pd
import pytest

from napo.config.profile import load_profile
from napo.config.study import LOSSES, Noise, Study
from napo.errors import NapoError
from napo.noise import study

IDS = [f"row-{number}" for number in range(50)]
ROW = {
    "id": "row-0", "question": "Which colour?",
    "chosen": "Red.", "chosen_logp": -1.0, "chosen_tokens": 2,
    "rejected": "It is blue.", "rejected_logp": -4.0, "rejected_tokens": 5,
    "reworded": "The car is red.", "reworded_logp": -2.0, "reworded_tokens": 6,
}  # fmt: skip


def chosen_ids(rate, seed=0):
    flags = study.noisy_rows(IDS, rate, seed)
    return {id for id, noisy in zip(IDS, flags, strict=True) if noisy}


def test_the_noisy_rows_of_a_rate_contain_those_of_the_lower_rates():
    sets = [chosen_ids(rate) for rate in (0, 0.1, 0.2, 0.5, 1)]
    assert [len(part) for part in sets] == [0, 5, 10, 25, 50]
    assert all(low < high for low, high in pairwise(sets))


def test_another_seed_draws_other_rows_and_the_order_of_rows_draws_none():
    assert chosen_ids(0.2, seed=0) != chosen_ids(0.2, seed=1)
    flags = study.noisy_rows(IDS[::-1], 0.2, 0)
    assert {id for id, noisy in zip(IDS[::-1], flags, strict=True) if noisy} == chosen_ids(0.2)


def test_a_flip_swaps_the_pair_with_its_log_probs_and_flipping_twice_gives_the_row_back():
    flipped = study.corrupted(ROW, "flip")
    assert (flipped["chosen"], flipped["chosen_logp"], flipped["chosen_tokens"]) == (
        "It is blue.", -4.0, 5,
    )  # fmt: skip
    assert (flipped["rejected"], flipped["rejected_logp"]) == ("Red.", -1.0)
    assert flipped["question"] == "Which colour?"
    assert study.corrupted(flipped, "flip") == ROW


def test_unbiased_noise_rejects_another_wording_of_the_chosen_response():
    noisy = study.corrupted(ROW, "unbiased")
    assert (noisy["chosen"], noisy["chosen_logp"]) == ("Red.", -1.0)
    assert (noisy["rejected"], noisy["rejected_logp"], noisy["rejected_tokens"]) == (
        "The car is red.", -2.0, 6,
    )  # fmt: skip


def test_unbiased_noise_without_another_wording_is_refused():
    with pytest.raises(NapoError, match="no other wording"):
        study.corrupted({**ROW, "reworded": None}, "unbiased")


def test_only_noisy_rows_are_corrupted_when_they_are_read():
    rows = study.NoisyRows([ROW, ROW], [False, True], "flip")
    assert [row["chosen"] for row in rows] == ["Red.", "It is blue."]


def test_the_default_grid_is_that_of_the_issue():
    jobs = study.grid(Study(), range(5))
    assert len(jobs) == 20 and sum(map(len, jobs.values())) == 140
    noises = {job.noise.name for job in jobs}
    assert noises == {"flip-0", "flip-0.2", "flip-0.4", "unbiased-0.4"}
    assert {job.budget for job in jobs} == {"long"}
    losses = ("dpo", "napo", "q-0.5", "mae", "rdpo-true", "ipo", "pair")
    assert next(iter(jobs.values())) == losses


def test_without_a_world_that_rewords_there_are_flips_only():
    jobs = study.grid(load_profile("smoke").study, [0], "full", reworded=False)
    assert {job.noise.kind for job in jobs} == {"flip"}


def test_the_full_grid_has_every_loss_at_every_rate_where_it_exists():
    jobs = study.grid(Study(), [0], "full")
    assert {job.noise.rate for job in jobs if job.noise.kind == "flip"} == {
        0,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
    }
    assert {job.budget for job in jobs} == {"long", "short"}
    assert set(jobs[study.Job("short", Noise("flip", 0.3), 0)]) == set(LOSSES)
    told = {name for name, loss in LOSSES.items() if loss.told}
    assert set(jobs[study.Job("long", Noise("flip", 0.5), 0)]) == set(LOSSES) - told


def test_names_of_jobs_are_read_back():
    job = study.Job("long", Noise("unbiased", 0.4), 3)
    assert job.name == "long/unbiased-0.4/seed-3" and study.Job.read(job.name) == job
    assert study.Cell(job, "pair").name == "long/unbiased-0.4/pair/seed-3"


def test_a_loss_that_is_told_the_rate_gets_it():
    assert LOSSES["rdpo-true"].at(0.3).terms[0].label_smoothing == 0.3
    assert LOSSES["rdpo"].at(0.3).terms[0].label_smoothing == 0.1


def test_the_averages_of_a_step_count_the_noise_that_is_preferred_as_trained():
    records = pd.DataFrame(
        {"step": [0, 0, 0, 1], "id": ["a", "b", "c", "b"],
         "rejected_psi_sum": [1.0, 0.5, -0.6, -1.0], "rejected_q": [0.5, 0.5, 0.5, 0.4]}
    )  # fmt: skip
    frame = study.step_averages(records, {"a": False, "b": True, "c": True})
    assert frame["psi"].tolist() == pytest.approx([0.3, -1.0])
    assert frame[["noisy", "memorised"]].to_numpy().tolist() == [[2, 1], [1, 0]]
    assert frame["q"].tolist() == [0.5, 0.4]


def test_outcomes_are_shares_of_held_out_and_of_noisy_pairs():
    margins = pd.DataFrame(
        {"split": ["held_out"] * 4 + ["noisy"] * 2, "id": list("abcdef"),
         "psi": [1.0, 2.0, -1.0, 0.0, -0.5, 0.5], "trained_psi": [None] * 4 + [0.5, -0.5]}
    )  # fmt: skip
    vlind = pd.DataFrame(
        {"instance": [0, 1], "C": [1, 0], "d": [0.5, 0.0], "c_true": [1, 1], "c_false": [1, 0],
         "d_true": [0.5, 1.0], "d_false": [1.0, 0.0]}
    )  # fmt: skip
    means = {name: values.mean() for name, values in study.outcomes(margins, vlind).items()}
    assert means["accuracy"] == 50 and means["psi"] == 0.5  # a margin of 0 prefers nothing
    assert means["clean"] == 50 and means["memorised"] == 50
    assert means["CB"] == 50 and means["LP"] == 25 and means["LP false"] == 50


def test_the_posterior_separates_noise_where_the_reference_does():
    clean = [{**ROW, "id": id, "chosen_logp": -1.0 - number % 3} for number, id in enumerate(IDS)]
    noisy = study.noisy_rows(IDS, 0.4, 0)
    rows = study.NoisyRows(clean, noisy, "flip")
    probabilities = study.posterior(rows, seed=0)
    of_noise = [p for p, flag in zip(probabilities, noisy, strict=True) if flag]
    of_clean = [p for p, flag in zip(probabilities, noisy, strict=True) if not flag]
    assert min(of_noise) > 0.5 > max(of_clean)
    rows.posterior = probabilities
    assert rows[3]["rejected_noise"] == probabilities[3]
