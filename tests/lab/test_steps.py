"""One optimiser step by hand, beside the objective and the trainer's own records."""

import shutil

import numpy as np
import pytest
from lab_fixtures import text_of

from napo import stages
from napo.errors import NapoError
from napo.lab import steps
from napo.stages.session import open_session


def log_sigmoid(value):
    return -np.logaddexp(0, -value)


def test_each_number_of_a1s_last_step_is_that_of_its_equation(smoke):
    step = stages.recorded_step(smoke, "A1")
    place = steps.chosen_row(step, -1)
    rows, records = step.rows.to_pandas(), step.records
    names = ["rejected", "language_biased", "vision_biased"]

    def ratio(name, tokens):
        return (records[f"{name}_logp"] - rows[f"{name}_logp"]) / tokens

    counts = {name: rows[f"{name}_tokens"] for name in ("chosen", *names)}
    sums = [0.1 * (ratio("chosen", 1) - ratio(name, 1)) for name in names]
    per_token = {name: ratio(name, count) for name, count in counts.items()}
    means = [0.1 * (per_token["chosen"] - per_token[name]) for name in names]
    q = [1 / (1 + np.exp(0.5 * means[1].mean())), 1 / (1 + np.exp(0.01 * sums[2].mean()))]
    averages = np.array([psi.mean() for psi in sums])
    gamma = np.clip(averages / averages.sum(), 0.01, 1)
    losses = [-log_sigmoid(sums[0])]
    losses += [(1 - np.exp(k * log_sigmoid(psi))) / k for k, psi in zip(q, sums[1:], strict=True)]
    total = sum(weight * loss for weight, loss in zip(gamma, losses, strict=True))

    table = steps.equations(step).replace("", "nan").astype(float)
    shown = table.loc["ψ_Σ of the row", names].to_numpy()[0]
    np.testing.assert_allclose(shown, [psi[place] for psi in sums], atol=6e-5)
    shown = table.loc["ψ_μ of the row", names].to_numpy()[0]
    np.testing.assert_allclose(shown, [psi[place] for psi in means], atol=6e-5)
    np.testing.assert_allclose(table.loc["q", names[1:]].to_numpy()[0], q, atol=6e-5)
    np.testing.assert_allclose(table.loc["γ", names].to_numpy()[0], gamma, atol=6e-5)
    assert table.loc["γ × loss of the row", "sum"].item() == pytest.approx(total[place], abs=6e-5)
    assert table.loc["γ × loss, mean of the batch", "sum"].item() == pytest.approx(
        total.mean(), abs=6e-5
    )
    assert ("q", "Eq. 12") in table.index and ("loss of the row", "Eq. 3, Eq. 9") in table.index


def test_before_the_first_update_all_margins_are_zero_and_weights_uniform(smoke):
    table = steps.equations(stages.recorded_step(smoke, "A1", step=0))
    terms = ["rejected", "language_biased", "vision_biased"]
    margins = table.loc["ψ_Σ, mean of the batch", terms].astype(float).to_numpy()
    assert (np.abs(margins) < 1e-4).all()
    assert table.loc["γ", terms].to_numpy().tolist() == [["0.3333"] * 3]
    assert table.loc["q", terms].to_numpy().tolist() == [["", "0.5000", "0.5000"]]
    with pytest.raises(NapoError, match=r"has no step 9; give one from 0 to 3"):
        stages.recorded_step(smoke, "A1", step=9)


@pytest.fixture(scope="module")
def micro(smoke, tmp_path_factory):
    """A workspace of its own, in which a step has two micro-batches."""
    root = tmp_path_factory.mktemp("steps")
    shutil.copytree(smoke.workspace.root, root, dirs_exist_ok=True)
    shutil.rmtree(root / "data" / "smoke" / "runs")
    profile = root / "micro.yaml"
    profile.write_text("extends: smoke\nname: smoke\ntraining: {micro_batch_size: 8}\n")
    return open_session(str(profile), str(root))


@pytest.mark.parametrize(
    ("variant", "batch"),  # without q and gamma of a batch, the step is one
    [("A1", 8), ("random", 8), ("beta-dpo", 8), ("A1-sft", 8), ("A2-pair", 8), ("A1-posterior", 8),
     ("mdpo", 16), ("dpo-pair-q", 16)],
)  # fmt: skip
def test_by_hand_the_loss_is_that_of_the_objective_and_of_the_trainer(micro, variant, batch):
    stages.train(micro, variant, 0)
    step = stages.recorded_step(micro, variant, step=2)
    total = steps.total_loss(step)
    assert len(total) == batch
    np.testing.assert_allclose(total, step.records["loss"], atol=1e-6)
    output = step.objective(step.policy, step.reference, **step.options)
    assert output.loss.item() == pytest.approx(total.mean().item(), abs=1e-6)
    assert f"by hand: {total.mean():.7f}" in steps.agreement(step)


def test_a_row_is_shown_with_its_responses_and_their_log_probs_under_both_models(smoke):
    step = stages.recorded_step(smoke, "A1")
    place = steps.chosen_row(step, -1)
    row, said = step.rows[place], text_of(steps.responses(step).data)
    for name in ("question", "chosen", "rejected", "language_biased", "vision_biased"):
        assert "".join(row[name].split()) in "".join(said.split())
    for name in ("chosen", "vision_biased"):
        assert f"{row[f'{name}_logp']:.3f}" in said
        assert f"{step.records[f'{name}_logp'][place]:.3f}" in said
