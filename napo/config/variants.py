"""Losses and variants (Eq. 14, Tables 1 to 4), one entry each. This module imports no torch.

A variant is a weighted sum of terms; a term compares the chosen response with another response. To
add a loss or a variant, write its entry and `register` it; see docs/extend.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, ClassVar

from napo.config.contrast import Contrast
from napo.config.registry import Entry, Registry, register
from napo.errors import NapoError, unknown

BIASED = ("language_biased", "vision_biased")  # image masked; question masked (Eqs. 7, 8)
RESPONSES = ("chosen", "rejected", *BIASED)
CORRUPTED = "chosen_corrupted"  # the chosen response to a corrupted image (mDPO)

MARGINS = ("reward", "log_ratio", "mean_log_ratio", "own_reward")
AVERAGES = ("sum", "mean")
Q_RULES = ("paper", "released")  # of a profile
OWN_Q_RULES = (*Q_RULES, "per-pair", "posterior")  # of a variant
GAMMA_RULES = ("margin", "mean-margin", "tempered", "uniform", "none", "fixed", "per-pair")


@dataclass(frozen=True)
class Loss(Entry):
    """The loss of a term.

    Attributes:
        name: its name in `Term.loss`.
        function: "package.module:function". It takes margins, shape (batch,), and returns losses,
            shape (batch,). Parameters called `q`, `beta`, `label_smoothing`, `strength`,
            `average` or `largest` get the value of that name (`average` and `largest` are
            functions: the mean and the maximum of a (batch,) tensor over all processes).
        margin: "reward" (psi of Eq. 2), "log_ratio" (psi without beta), "mean_log_ratio" (psi_mean
            without beta), or "own_reward" (the reward of the term's own response).
        strength: the default of `Term.strength`.
    """

    registry: ClassVar[Registry] = Registry("loss")

    name: str
    function: str
    margin: str = "reward"
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.margin not in MARGINS:
            raise unknown("margin", self.margin, MARGINS)


LOSSES = Loss.registry


@dataclass(frozen=True)
class Term:
    """One term of the objective: the chosen response against another response.

    Attributes:
        response: the dispreferred response; for the loss "anchor" the response to keep likely.
        loss: a name in `LOSSES`.
        average: the margin that q is computed from: "sum" (psi_sum) or "mean" (psi_mean).
        alpha: scale of that margin (Eq. 12).
        q: a fixed coefficient in place of Eq. 12.
        label_smoothing: assumed share of flipped pairs, for "cdpo" and "rdpo".
        strength: beta' of "drdpo", alpha of "ropo" and "beta-dpo"; by default the loss's.
        name: its name in training records; by default the response.
    """

    response: str
    loss: str = "dpo"
    average: str = "sum"
    alpha: float = 0.01
    q: float | None = None
    label_smoothing: float = 0.1
    strength: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        loss = LOSSES[self.loss]
        if self.response not in (*RESPONSES, CORRUPTED):
            raise unknown("response", self.response, (*RESPONSES, CORRUPTED))
        if self.average not in AVERAGES:
            raise unknown("average", self.average, AVERAGES)
        if self.q is not None and not 0 <= self.q <= 1:
            raise NapoError(f"q is {self.q}; it must lie in [0, 1].")
        if not 0 <= self.alpha < inf:
            raise NapoError(f"alpha is {self.alpha}; it must lie in [0, inf).")
        if not 0 <= self.label_smoothing < 0.5:
            raise NapoError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 0.5).")
        if self.strength is None:
            object.__setattr__(self, "strength", loss.strength)
        elif not 0 < self.strength < inf:
            raise NapoError(f"strength of {self.loss} is {self.strength}; it must be positive.")
        if not self.name:
            object.__setattr__(self, "name", self.response)


@dataclass(frozen=True)
class Variant(Entry):
    """A training objective (Eq. 14): a weighted sum of preference terms; or a way to decode.

    Attributes:
        name: its name in profiles, folders, tables and figures.
        terms: the terms, in the order of the weights. Empty: nothing is trained, and the base model
            is decoded with `contrast`.
        gamma: "margin" (Eq. 13), "mean-margin" (Eq. 13 with psi_mean), "tempered" (Eq. 13 with
            shares of margin^temper), "uniform" (1 / terms), "none" (a plain sum), "fixed", or
            "per-pair" (a plain sum in which each pair has a weight from its own margin).
        weights: the weights for gamma "fixed".
        temper: the power of gamma "tempered", in (0, 1].
        q_rule: "paper" (Eq. 12), "released", "per-pair" (Eq. 12 for each pair, its margin divided
            by the spread of the margins), or "posterior" (the probability that the labelled
            samples give a pair to be noise; terms without labels keep the profile's rule); empty:
            the profile's.
        pick_one: each optimiser step uses one of the terms, with weight 1 (Table 3's "random").
        contrast: of a variant without terms: how the base model is decoded.
        sft: weight of a supervised term: minus the mean log-prob of the chosen response's tokens
            (as in RPO, Pang et al. 2024, Eq. 2).
        title: what it is, in words.
        label: its short name in tables; empty: its title, row or name.
        tables: which of Tables 1 to 4 have a row for it.
        row: its row in the extra table, with its source; empty: no row.
        baseline: whether only `make baselines` trains it.
        colour: in figures, such as "#009E73"; empty: derived from the name.
    """

    registry: ClassVar[Registry] = Registry("variant")

    name: str
    terms: tuple[Term, ...]
    gamma: str = "margin"
    weights: tuple[float, ...] = ()
    temper: float = 0.5
    q_rule: str = ""
    pick_one: bool = False
    contrast: Contrast | None = None
    sft: float = 0.0
    title: str = ""
    label: str = ""
    tables: tuple[int, ...] = ()
    row: str = ""
    baseline: bool = False
    colour: str = ""

    def __post_init__(self) -> None:
        if self.name == "base" or self.name.endswith(("-lora", "-qlora")):
            raise NapoError(f"The name {self.name} is taken by other runs; choose another name.")
        if not isinstance(self.terms, tuple) or not (self.terms or self.contrast):
            raise NapoError(f"The terms of {self.name} are no tuple; write (Term(...),).")
        if self.terms and self.contrast:
            raise NapoError(
                f"{self.name} has terms and a contrast, which is for variants without training; "
                "to decode all models with it, set evaluation.decoding.contrast in the profile."
            )
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise NapoError(f"Two terms of {self.name} have the same name; set Term.name.")
        if self.gamma not in GAMMA_RULES:
            raise unknown("gamma rule", self.gamma, GAMMA_RULES)
        if self.q_rule and self.q_rule not in OWN_Q_RULES:
            raise unknown("q rule", self.q_rule, OWN_Q_RULES)
        if not 0 < self.temper <= 1:
            raise NapoError(f"temper of {self.name} is {self.temper}; it must lie in (0, 1].")
        if self.gamma == "fixed" and len(self.weights) != len(self.terms):
            raise NapoError(
                f"gamma is fixed with {len(self.weights)} weights for {len(self.terms)} terms; "
                "give one for each term."
            )
        for value in (*self.weights, self.sft):
            if not 0 <= value < inf:
                raise NapoError(
                    f"A weight of {self.name} is {value}; weights are finite and not negative."
                )

    def definition(self) -> dict[str, Any]:
        """Fields that affect training, for a run's settings, with the function of each loss.

        The code of a function is not part of it.
        """
        left_out = ["name", "title", "label", "tables", "row", "baseline", "colour", "contrast"]
        if self.gamma != "tempered":
            left_out.append("temper")
        fields = {key: value for key, value in asdict(self).items() if key not in left_out}
        losses = {term.loss: LOSSES[term.loss] for term in self.terms}
        return {**fields, "losses": {k: [v.function, v.margin] for k, v in losses.items()}}

    @property
    def words(self) -> str:
        """Its short name, which stands beside its code."""
        return self.label or self.title or self.row or self.name

    @property
    def trained(self) -> bool:
        """Whether it is trained; if not, it is the base model with another decoding."""
        return bool(self.terms)

    def require_terms(self) -> Variant:
        """The variant itself, where something is to be trained.

        Raises:
            NapoError: if it has no terms.
        """
        if not self.trained:
            raise NapoError(
                f"{self.name} is not trained: it decodes the base model. Evaluate it with "
                "notebooks/06_evaluate.ipynb."
            )
        return self

    @property
    def responses(self) -> tuple[str, ...]:
        """The responses to score, the chosen response first."""
        return tuple(dict.fromkeys(("chosen", *(term.response for term in self.terms))))


VARIANTS = Variant.registry

for _loss in (
    Loss("dpo", "napo.method.losses:dpo_loss"),  # Eq. 3
    Loss("napo", "napo.method.losses:napo_loss"),  # Eq. 9
    Loss("mae", "napo.method.losses:mae_loss"),  # Eq. 4
    Loss("anchor", "napo.method.losses:dpo_loss", margin="own_reward"),  # mDPO
    Loss("cdpo", "napo.method.other_losses:cdpo_loss"),
    Loss("rdpo", "napo.method.other_losses:rdpo_loss"),
    Loss("ipo", "napo.method.other_losses:ipo_loss", margin="log_ratio"),
    Loss("ipo-mean", "napo.method.other_losses:ipo_loss", margin="mean_log_ratio"),
    Loss("drdpo", "napo.method.other_losses:drdpo_loss", strength=1.0),
    Loss("ropo", "napo.method.other_losses:ropo_loss", strength=2.0),
    Loss("beta-dpo", "napo.method.other_losses:beta_dpo_loss", strength=0.6),
):
    register(_loss)

_REJECTED = Term("rejected")
_LB = Term("language_biased", "napo", "mean", 0.5)  # §4.1
_VB = Term("vision_biased", "napo", "sum", 0.01)  # §4.1


def _all_three(loss: str = "napo", **changes: Any) -> tuple[Term, ...]:
    """The terms of A1, with the same change in both NaPO terms."""
    return (_REJECTED, *(replace(term, loss=loss, **changes) for term in (_LB, _VB)))


def _pair(biased: Term, loss: str = "napo", **changes: Any) -> tuple[Term, ...]:
    """The rejected pair and one biased pair (Tables 2 and 4)."""
    return (_REJECTED, replace(biased, loss=loss, **changes))


# Figures and the extra table keep this order.
for _variant in (
    Variant(
        "vcd", (), contrast=Contrast(), title="VCD on the base model, without training",
        label="VCD, no training", tables=(1,), colour="#8B6BB1",
    ),
    Variant(
        "dpo", (_REJECTED,), "none", title="DPO on RLAIF-V's pairs", label="DPO on RLAIF-V",
        tables=(1, 3), colour="#1a1a1a",
    ),
    Variant(
        "mdpo", (_REJECTED, Term(CORRUPTED), Term("chosen", "anchor", name="anchor")), "none",
        title="mDPO: DPO on RLAIF-V's pairs and on corrupted images, and an anchor",
        label="mDPO on RLAIF-V", tables=(1,), colour="#CC79A7",
    ),
    Variant(
        "A1", _all_three(), title="the full method: NaPO on both biased pairs, gamma of Eq. 13",
        label="Full method", tables=(1, 2, 3, 4), row="NaPO, q of Eq. 12 (A1)", colour="#009E73",
    ),
    Variant(
        "A2", _all_three(), "none", title="A1 without gamma: a plain sum", label="Without γ",
        tables=(2,), colour="#33B28F",
    ),
    Variant(
        "A3", _all_three("dpo"), title="A1 with DPO in NaPO's place", label="DPO on all pairs",
        tables=(2,), row="DPO (A3)", colour="#7FD1BA",
    ),
    Variant(
        "LB1", _pair(_LB), "none", title="DPO + NaPO on language-biased pairs",
        label="NaPO, language bias", tables=(2, 4), colour="#D55E00",
    ),
    Variant(
        "LB2", _pair(_LB, "dpo"), "none", title="DPO + DPO on language-biased pairs",
        label="DPO, language bias", tables=(2,), colour="#E59A66",
    ),
    Variant(
        "LB-sum", _pair(_LB, average="sum", alpha=0.01), "none", title="LB1 with q from psi_sum",
        label="Language bias, ψΣ", tables=(4,), colour="#8C3E00",
    ),
    Variant(
        "VB1", _pair(_VB), "none", title="DPO + NaPO on vision-biased pairs",
        label="NaPO, vision bias", tables=(2, 4), colour="#0072B2",
    ),
    Variant(
        "VB2", _pair(_VB, "dpo"), "none", title="DPO + DPO on vision-biased pairs",
        label="DPO, vision bias", tables=(2,), colour="#56B4E9",
    ),
    Variant(
        "VB-mean", _pair(_VB, average="mean", alpha=0.5), "none", title="VB1 with q from psi_mean",
        label="Vision bias, ψμ", tables=(4,), colour="#004A75",
    ),
    Variant(
        "random", _all_three(), pick_one=True, title="one of A1's three terms a step, at random",
        label="Random pairs", tables=(3,), colour="#E69F00",
    ),
    # Beyond the paper's tables
    Variant("cdpo", _all_three("cdpo"), row="cDPO, ε = 0.1 (Mitchell 2023)", baseline=True),
    Variant(
        "rdpo", _all_three("rdpo"), row="rDPO, ε = 0.1 (Chowdhury et al. 2024)", baseline=True
    ),
    Variant("ipo", _all_three("ipo"), row="IPO (Azar et al. 2024)", baseline=True),
    Variant("ipo-mean", _all_three("ipo-mean"), title="IPO on log-probs averaged over tokens"),
    Variant("drdpo", _all_three("drdpo"), row="Dr. DPO, β′ = 1 (Wu et al. 2025)", baseline=True),
    Variant(
        "ropo", _all_three("ropo"), row="ROPO's loss, α = 2 (Liang et al. 2024)", baseline=True
    ),
    Variant(
        "beta-dpo", _all_three("beta-dpo"), row="β-DPO, α = 0.6 (Wu et al. 2024)", baseline=True
    ),
    Variant("q-0.1", _all_three(q=0.1), row="NaPO, q = 0.1", baseline=True),
    Variant("q-0.3", _all_three(q=0.3)),
    Variant("q-0.5", _all_three(q=0.5), row="NaPO, q = 0.5", baseline=True),
    Variant("q-0.7", _all_three(q=0.7)),
    Variant("q-0.9", _all_three(q=0.9), row="NaPO, q = 0.9", baseline=True),
    Variant(
        "A1-original", (replace(_REJECTED, loss="napo"), _LB, _VB),
        row="NaPO on the original pair too (Appendix A)", baseline=True,
    ),
    Variant(
        "A1-sft", _all_three(), sft=0.1, row="A1 and 0.1 × SFT on the chosen response",
        baseline=True,
    ),
    # Eqs. 12 and 13 read in other ways
    Variant(
        "dpo-pair", (_REJECTED,), "per-pair", title="DPO with a weight for each pair",
        row="DPO on the rejected pair, weight per pair", baseline=True,
    ),
    Variant(
        "dpo-pair-q", (replace(_REJECTED, loss="napo"),), "none", q_rule="per-pair",
        title="NaPO on RLAIF-V's pairs with a q for each pair",
        row="NaPO on the rejected pair, q per pair", baseline=True,
    ),
    Variant(
        "A2-pair", _all_three(), "per-pair", title="A2 with a weight for each pair",
        row="A2, weight per pair", baseline=True,
    ),
    Variant(
        "A2-pair-q", _all_three(), "none", q_rule="per-pair", title="A2 with a q for each pair",
        row="A2, q per pair", baseline=True,
    ),
    Variant(
        "A1-posterior", _all_three(), q_rule="posterior",
        title="A1 with q from the labelled samples", row="A1, q from 100 labels", baseline=True,
    ),
    Variant(
        "A1-mean-gamma", _all_three(), "mean-margin", title="A1 with gamma from psi_mean",
        row="A1, γ from ψ per token", baseline=True,
    ),
    Variant(
        "A1-tempered", _all_three(), "tempered", title="A1 with gamma of margin^0.5",
        row="A1, γ of margin^0.5", baseline=True,
    ),
):  # fmt: skip
    register(_variant)
