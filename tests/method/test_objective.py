"""Variants as values, recomputed here in plain Python from the paper's formulas."""

import math
from dataclasses import replace

import pytest
import torch

from napo.config.variants import BIASED, CORRUPTED, LOSSES, RESPONSES, VARIANTS, Loss, Term, Variant
from napo.errors import NapoError
from napo.method import other_losses
from napo.method.objective import Objective, mean_records
from napo.method.tensors import LogProbs

ALL = (*RESPONSES, CORRUPTED)
BETA = 0.1


def log_probs(seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 12, (4, 5), generator=torch.Generator().manual_seed(9))
    sums = -torch.rand(4, 5, generator=generator, dtype=torch.float64) * 30 + shift
    return LogProbs(sums, tokens, ALL)


@pytest.fixture
def policy():
    logps = log_probs(1)
    # The chosen response gained, so that margins are positive on average.
    logps.sum[:, 0] += 40
    return replace(logps, sum=logps.sum.requires_grad_())


@pytest.fixture
def reference():
    return log_probs(2)


def psi(policy, reference, name, kind="sum"):
    """Eq. 2 by hand, a list over the batch."""
    ratios = {}
    for response in ("chosen", name):
        column = ALL.index(response)
        difference = (policy.sum - reference.sum)[:, column]
        ratios[response] = difference / (policy.tokens[:, column] if kind == "mean" else 1)
    return (BETA * (ratios["chosen"] - ratios[name])).tolist()


def mean(values):
    return sum(values) / len(values)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def dpo(margins):
    return mean([math.log1p(math.exp(-m)) for m in margins])


def napo(margins, q):
    return mean([(1 - sigmoid(m) ** q) / q for m in margins])


def paper_q(margins, alpha):
    return min(1.0, max(0.01, 1 - sigmoid(alpha * mean(margins))))


def parts(policy, reference):
    """Each term's loss and the weights, as the paper writes them."""
    sums = {name: psi(policy, reference, name) for name in ALL[1:]}
    means = {name: psi(policy, reference, name, "mean") for name in ALL[1:]}
    lb, vb = sums["language_biased"], sums["vision_biased"]
    terms = {
        "rejected": dpo(sums["rejected"]),
        "lb": napo(lb, paper_q(means["language_biased"], 0.5)),
        "vb": napo(vb, paper_q(vb, 0.01)),
        "lb-dpo": dpo(lb),
        "vb-dpo": dpo(vb),
        "lb-sum": napo(lb, paper_q(lb, 0.01)),
        "vb-mean": napo(vb, paper_q(means["vision_biased"], 0.5)),
        "corrupted": dpo(sums[CORRUPTED]),
        "anchor": dpo((BETA * (policy.sum - reference.sum)[:, 0]).tolist()),
    }
    totals = [mean(sums[name]) for name in RESPONSES[1:]]
    gamma = [min(1.0, max(0.01, total / sum(totals))) for total in totals]
    return terms, gamma


EXPECTED = {
    "dpo": lambda t, g: t["rejected"],
    "mdpo": lambda t, g: t["rejected"] + t["corrupted"] + t["anchor"],
    "A1": lambda t, g: g[0] * t["rejected"] + g[1] * t["lb"] + g[2] * t["vb"],
    "A2": lambda t, g: t["rejected"] + t["lb"] + t["vb"],
    "A3": lambda t, g: g[0] * t["rejected"] + g[1] * t["lb-dpo"] + g[2] * t["vb-dpo"],
    "LB1": lambda t, g: t["rejected"] + t["lb"],
    "LB2": lambda t, g: t["rejected"] + t["lb-dpo"],
    "VB1": lambda t, g: t["rejected"] + t["vb"],
    "VB2": lambda t, g: t["rejected"] + t["vb-dpo"],
    "LB-sum": lambda t, g: t["rejected"] + t["lb-sum"],
    "VB-mean": lambda t, g: t["rejected"] + t["vb-mean"],
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_variant_is_the_papers_formula(policy, reference, name):
    terms, gamma = parts(policy, reference)
    loss = Objective(VARIANTS[name])(policy, reference).loss
    assert loss.item() == pytest.approx(EXPECTED[name](terms, gamma), rel=1e-9)


def test_random_takes_one_of_a1s_terms_a_step_by_seed_and_step(policy, reference):
    terms, _ = parts(policy, reference)
    known = [terms["rejected"], terms["lb"], terms["vb"]]

    def drawn(seed):
        losses = [
            Objective(VARIANTS["random"])(policy, reference, step=step, seed=seed).loss.item()
            for step in range(30)
        ]
        return [min(range(3), key=lambda n: abs(known[n] - loss)) for loss in losses], losses

    order, losses = drawn(0)
    assert all(loss == pytest.approx(known[n]) for n, loss in zip(order, losses, strict=True))
    assert set(order) == {0, 1, 2} and order == drawn(0)[0] and order != drawn(1)[0]


def test_a_variants_own_q_rule_wins_over_the_profiles(policy, reference):
    released = Objective(replace(VARIANTS["A1"], q_rule="released"), q_rule="paper")
    same = Objective(VARIANTS["A1"], q_rule="released")
    for name, value in same(policy, reference).records.items():
        assert torch.equal(released(policy, reference).records[name], value)


@pytest.mark.parametrize("name", sorted(name for name in VARIANTS if VARIANTS[name].trained))
def test_every_variant_gives_a_finite_gradient_and_moves_the_chosen_response_up(name, reference):
    start = replace(reference, sum=reference.sum.clone().requires_grad_())
    posterior = {biased: torch.full((4,), 0.3) for biased in BIASED}
    output = Objective(VARIANTS[name])(start, reference, posterior=posterior)
    (gradient,) = torch.autograd.grad(output.loss, start.sum)
    assert gradient.isfinite().all() and (gradient[:, 0] < 0).all()
    scored = [ALL.index(response) for response in VARIANTS[name].responses]
    unscored = [column for column in range(len(ALL)) if column not in scored]
    assert gradient[:, unscored].eq(0).all()


def test_weights_and_coefficients_carry_no_gradient(policy, reference):
    """The gradient is the same as with their values fixed."""
    output = Objective(VARIANTS["A1"])(policy, reference)
    (gradient,) = torch.autograd.grad(output.loss, policy.sum)
    values = output.records
    terms = VARIANTS["A1"].terms
    fixed = Objective(
        Variant(
            "fixed",
            tuple(
                replace(t, q=values[f"{t.name}_q"].item()) if t.loss == "napo" else t for t in terms
            ),
            gamma="fixed",
            weights=tuple(values[f"{t.name}_gamma"].item() for t in terms),
        )
    )
    (same,) = torch.autograd.grad(fixed(policy, reference).loss, policy.sum)
    assert torch.allclose(gradient, same, rtol=1e-6)


def test_at_the_start_weights_are_uniform_even_where_rounding_leaves_a_trace(reference):
    trace = torch.tensor([[1e-6, -2e-6, 3e-6, -1e-6, 0.0]], dtype=torch.float64)
    start = replace(reference, sum=reference.sum + trace)
    records = Objective(VARIANTS["A1"])(start, reference).records
    for term in RESPONSES[1:]:
        assert records[f"{term}_gamma"].item() == pytest.approx(1 / 3)
    assert records["language_biased_q"].item() == pytest.approx(0.5, abs=1e-6)


def test_margins_within_the_noise_give_the_weights_and_q_of_margin_zero(policy, reference):
    objective = Objective(VARIANTS["A1"])
    size = max(abs(mean(psi(policy, reference, name))) for name in RESPONSES[1:])
    records = objective(policy, reference, noise=3 * size).records
    assert [records[f"{name}_gamma"].item() for name in RESPONSES[1:]] == pytest.approx([1 / 3] * 3)
    assert records["vision_biased_q"].item() == 0.5
    above = objective(policy, reference, noise=size / 1e3).records
    assert above["vision_biased_gamma"].item() != pytest.approx(1 / 3)
    assert above["vision_biased_q"].item() != 0.5


def test_released_rule_reads_the_margin_without_beta(policy, reference):
    released = Objective(VARIANTS["A1"], q_rule="released")
    q = released(policy, reference).records["vision_biased_q"].item()
    margin = mean(psi(policy, reference, "vision_biased")) / BETA
    assert q == pytest.approx(min(1.0, max(0.001, 2 * (1 - sigmoid(0.01 * margin)))))


def test_gamma_rules(policy, reference):
    for gamma, expected in (("none", [1, 1, 1]), ("uniform", [1 / 3] * 3)):
        records = Objective(replace(VARIANTS["A1"], gamma=gamma))(policy, reference).records
        assert [records[f"{t}_gamma"].item() for t in RESPONSES[1:]] == pytest.approx(expected)
    fixed = replace(VARIANTS["A1"], gamma="fixed", weights=(0.04, 0.48, 0.48))
    records = Objective(fixed)(policy, reference).records
    assert records["rejected_gamma"].item() == pytest.approx(0.04)


def test_gamma_of_mean_margins_is_equation_13_with_psi_per_token(policy, reference):
    records = Objective(replace(VARIANTS["A1"], gamma="mean-margin"))(policy, reference).records
    means = [mean(psi(policy, reference, name, "mean")) for name in RESPONSES[1:]]
    sums = [mean(psi(policy, reference, name)) for name in RESPONSES[1:]]
    gammas = [records[f"{name}_gamma"].item() for name in RESPONSES[1:]]
    assert gammas == pytest.approx([value / sum(means) for value in means])
    assert gammas != pytest.approx([value / sum(sums) for value in sums], rel=1e-3)
    noise = 2 * sum(sums)
    quiet = Objective(VARIANTS["A1-mean-gamma"])(policy, reference, noise=noise).records
    assert [quiet[f"{name}_gamma"].item() for name in RESPONSES[1:]] == pytest.approx([1 / 3] * 3)


def test_gamma_of_tempered_margins_has_the_variants_power(policy, reference):
    sums = [mean(psi(policy, reference, name)) for name in RESPONSES[1:]]
    assert min(sums) > 0
    for temper in (0.5, 0.25):
        variant = replace(VARIANTS["A1-tempered"], temper=temper)
        records = Objective(variant)(policy, reference).records
        powers = [value**temper for value in sums]
        gammas = [records[f"{name}_gamma"].item() for name in RESPONSES[1:]]
        assert gammas == pytest.approx([power / sum(powers) for power in powers])


def test_each_pair_has_its_weight_from_its_own_margin(policy, reference):
    output = Objective(VARIANTS["A2-pair"])(policy, reference)
    margins = {name: psi(policy, reference, name) for name in RESPONSES[1:]}
    q = {
        "language_biased": paper_q(psi(policy, reference, "language_biased", "mean"), 0.5),
        "vision_biased": paper_q(margins["vision_biased"], 0.01),
    }
    expected = 0.0
    for name, values in margins.items():
        spread = mean([abs(value) for value in values])
        weights = [1 + math.tanh(value / spread) for value in values]
        assert output.records[f"{name}_weight"].tolist() == pytest.approx(weights)
        assert output.records[f"{name}_spread"].item() == pytest.approx(spread)
        assert output.records[f"{name}_gamma"].item() == 1
        one = (lambda m: dpo([m])) if name == "rejected" else (lambda m, q=q[name]: napo([m], q))
        expected += mean([w * one(m) for w, m in zip(weights, values, strict=True)])
    assert output.loss.item() == pytest.approx(expected, rel=1e-9)


def test_each_pair_has_its_q_from_its_own_margin_and_the_given_spread(policy, reference):
    output = Objective(VARIANTS["dpo-pair-q"])(policy, reference, spreads=[2.0])
    margins = psi(policy, reference, "rejected")
    q = [min(1.0, max(0.01, sigmoid(-2 * value / 2.0))) for value in margins]
    assert output.records["rejected_q"].tolist() == pytest.approx(q)
    expected = mean([napo([m], each) for m, each in zip(margins, q, strict=True)])
    assert output.loss.item() == pytest.approx(expected, rel=1e-9)
    assert (
        output.records["rejected_spread"].item() == 2.0 and "rejected_weight" not in output.records
    )


@pytest.mark.parametrize(("progress", "ramp"), [(0.0, 0.0), (1 / 6, 0.5), (1 / 3, 1.0), (0.9, 1.0)])
def test_weights_of_pairs_are_ramped_in_over_the_first_third(policy, reference, progress, ramp):
    objective, spread = Objective(VARIANTS["dpo-pair"]), 2.0
    records = objective(policy, reference, progress=progress, spreads=[spread]).records
    margins = psi(policy, reference, "rejected")
    weights = [1 + ramp * math.tanh(value / spread) for value in margins]
    assert records["rejected_weight"].tolist() == pytest.approx(weights)


def test_pairs_within_the_noise_have_weight_one_and_q_one_half(policy, reference):
    for name, column, value in (("dpo-pair", "weight", 1.0), ("dpo-pair-q", "q", 0.5)):
        records = Objective(VARIANTS[name])(policy, reference, noise=math.inf).records
        assert records[f"rejected_{column}"].tolist() == [value] * 4


def test_weights_and_q_of_pairs_carry_no_gradient(policy, reference):
    """The gradient is that of the pairs' losses, each times its weight."""
    output = Objective(VARIANTS["dpo-pair"])(policy, reference)
    (gradient,) = torch.autograd.grad(output.loss, policy.sum)
    margins = torch.tensor(psi(policy, reference, "rejected"), dtype=torch.float64)
    slopes = -output.records["rejected_weight"] * torch.sigmoid(-margins) * BETA / 4
    assert torch.allclose(gradient[:, 0], slopes, rtol=1e-9)


def test_a_fixed_q_wins_over_a_q_for_each_pair(policy, reference):
    terms = (Term("rejected", "napo", q=0.3),)
    objective = Objective(Variant("x", terms, "none", q_rule="per-pair"))
    assert objective(policy, reference).records["rejected_q"].item() == pytest.approx(0.3)


def test_q_of_the_posterior_is_the_probability_of_noise_where_labels_exist(policy, reference):
    noise = {"language_biased": [0.0, 0.2, 0.9, 1.0], "vision_biased": [0.5, 0.001, 0.7, 0.4]}
    posterior = {name: torch.tensor(values) for name, values in noise.items()}
    original = replace(VARIANTS["A1-original"], q_rule="posterior")
    records = Objective(original)(policy, reference, posterior=posterior).records
    assert records["language_biased_q"].tolist() == pytest.approx([0.01, 0.2, 0.9, 1.0])
    assert records["vision_biased_q"].tolist() == pytest.approx([0.5, 0.01, 0.7, 0.4])
    q = paper_q(psi(policy, reference, "rejected"), 0.01)
    assert records["rejected_q"].item() == pytest.approx(q)
    with pytest.raises(
        NapoError, match=r"A1-posterior takes q .* columns such as language_biased_"
    ):
        Objective(VARIANTS["A1-posterior"])(policy, reference)


def test_records_hold_what_the_figures_need(policy, reference):
    output = Objective(VARIANTS["A1"])(policy, reference)
    records = output.records
    for term in RESPONSES[1:]:
        for kind in ("sum", "mean"):
            expected = psi(policy, reference, term, kind)
            assert records[f"{term}_psi_{kind}"].tolist() == pytest.approx(expected)
        assert records[f"{term}_loss"].shape == (4,)
    assert "rejected_q" not in records and records["vision_biased_q"].shape == ()
    assert torch.equal(records["chosen_logp"], policy.sum.detach()[:, 0])
    assert records["loss"].mean().item() == pytest.approx(output.loss.item())
    assert not any(value.requires_grad for value in records.values())
    assert mean_records([records, records])["loss"] == pytest.approx(output.loss.item(), rel=1e-6)


def test_the_ipo_target_is_one_over_two_beta(policy, reference):
    objective = Objective(Variant("ipo alone", (Term("rejected", "ipo"),), "none"))
    h = [value / BETA for value in psi(policy, reference, "rejected")]
    expected = mean([(value - 1 / (2 * BETA)) ** 2 for value in h])
    assert objective(policy, reference).loss.item() == pytest.approx(expected)


def test_ipo_per_token_takes_mean_log_probs(policy, reference):
    objective = Objective(Variant("ipo alone", (Term("rejected", "ipo-mean"),), "none"))
    h = [value / BETA for value in psi(policy, reference, "rejected", "mean")]
    expected = mean([(value - 1 / (2 * BETA)) ** 2 for value in h])
    assert objective(policy, reference).loss.item() == pytest.approx(expected)


def test_q_0_is_dpo_in_a_variant(policy, reference):
    napo = Variant("q-0", (Term("rejected", "napo", q=0.0),), "none")
    dpo = Objective(VARIANTS["dpo"])(policy, reference).loss
    assert Objective(napo)(policy, reference).loss.item() == dpo.item()


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf")])
def test_an_objective_refuses_a_beta_that_is_not_positive(beta):
    with pytest.raises(NapoError, match=r"beta is .*; it must be positive and finite"):
        Objective(VARIANTS["ipo"], beta=beta)


def test_an_unknown_q_rule_is_refused_with_the_known_ones():
    with pytest.raises(NapoError, match=r"Unknown q rule 'papers'\. Did you mean 'paper'"):
        Objective(VARIANTS["A1"], q_rule="papers")


def hinge(psi, label_smoothing, average):
    """A loss of a user: takes two of the optional arguments."""
    return torch.relu(1 - psi) + label_smoothing * average(psi)


def test_a_loss_from_outside_gets_the_arguments_that_it_names(policy, reference, monkeypatch):
    monkeypatch.setattr(other_losses, "hinge", hinge, raising=False)
    monkeypatch.setitem(LOSSES, "hinge", Loss("hinge", "napo.method.other_losses:hinge"))
    terms = (Term("rejected", "hinge"), Term("vision_biased", "napo"))
    output = Objective(Variant("hinge", terms, "none"))(policy, reference)
    margins = psi(policy, reference, "rejected")
    expected = [max(0.0, 1 - m) + 0.1 * mean(margins) for m in margins]
    assert output.records["rejected_loss"].tolist() == pytest.approx(expected)
    assert "vision_biased_q" in output.records and "rejected_q" not in output.records


def test_a_loss_that_cannot_be_imported_is_named(policy, reference, monkeypatch):
    monkeypatch.setitem(LOSSES, "lost", Loss("lost", "no_such_module:loss"))
    objective = Objective(Variant("lost", (Term("rejected", "lost"),)))
    with pytest.raises(NapoError, match="The loss lost names 'no_such_module:loss'"):
        objective(policy, reference)


def test_a_loss_without_one_value_for_each_pair_is_refused_by_name(policy, reference, monkeypatch):
    monkeypatch.setattr(other_losses, "mean", lambda psi: psi.mean(), raising=False)
    monkeypatch.setitem(LOSSES, "mean", Loss("mean", "napo.method.other_losses:mean"))
    objective = Objective(Variant("one", (Term("rejected", "mean"),), "none"))
    with pytest.raises(NapoError, match="The loss mean does not return one value for each pair"):
        objective(policy, reference)


def test_a_variant_without_terms_is_no_objective():
    with pytest.raises(NapoError, match="vcd is not trained: it decodes the base model"):
        Objective(VARIANTS["vcd"])
