"""The training objective (Eq. 14) and its variants: terms, their weights, the rule for q.

A variant is a value, not a branch: `VARIANTS["A1"](policy, reference).loss`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from napo.errors import NapoError, unknown
from napo.method import losses
from napo.method.layout import CORRUPTED
from napo.method.tensors import LogProbs

LOSSES = ("dpo", "napo", "cdpo", "rdpo", "ipo", "drdpo", "ropo", "beta-dpo", "anchor")
STRENGTH = {"drdpo": 1.0, "ropo": 2.0, "beta-dpo": 0.6}  # where a term names none
Q_RULES = ("paper", "released")
GAMMA_RULES = ("margin", "uniform", "none", "fixed")
ROUNDING = 1e-5  # a total margin below this is float32 noise around 0


@dataclass(frozen=True)
class Term:
    """One term of the objective: the chosen response against another one.

    Attributes:
        response: the dispreferred response; for "anchor" the response whose own reward is kept up.
        loss: one of `LOSSES`.
        average: which margin q is made from, "sum" or "mean" (psi_sum or psi_mean).
        alpha: scale of that margin (Eq. 12).
        q: a fixed coefficient in place of Eq. 12.
        label_smoothing: assumed share of flipped pairs, for "cdpo" and "rdpo".
        strength: beta' of "drdpo", alpha of "ropo" and "beta-dpo"; that of `STRENGTH` by default.
        name: how records call the term; the response by default.
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
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        if self.average not in ("sum", "mean"):
            raise unknown("average", self.average, ("sum", "mean"))
        if self.q is not None and not 0 < self.q <= 1:
            raise NapoError(f"q is {self.q}; it must lie in (0, 1].")
        if not 0 <= self.label_smoothing < 0.5:
            raise NapoError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 0.5).")
        if self.strength is not None and self.strength <= 0:
            raise NapoError(f"strength of {self.loss} is {self.strength}; it must be positive.")
        if not self.name:
            object.__setattr__(self, "name", self.response)


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective gives for a batch.

    Attributes:
        loss: a scalar with gradient, the mean over this process's rows.
        records: without gradient; `<response>_logp` and, for each term, `<term>_psi_sum`,
            `<term>_psi_mean`, `<term>_loss` of shape (batch,), `<term>_gamma` and (NaPO terms)
            `<term>_q` scalars; `loss` of shape (batch,).
    """

    loss: Tensor
    records: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Objective:
    """A weighted sum of preference terms (Eq. 14).

    Attributes:
        terms: the terms, in the order of the weights.
        gamma: "margin" (Eq. 13), "uniform" (1 / terms), "none" (a plain sum) or "fixed".
        weights: the weights of "fixed".
        beta: scale of the reward (§4.1).
        q_rule: "paper" (Eq. 12) or "released".
        pick_one: each optimiser step takes one of the terms, with weight 1 (Table 3's "random").
        sft: weight of a supervised term beside the preferences, minus the mean log-prob of the
            chosen response's tokens (as in RPO, Pang et al. 2024, Eq. 2); 0 leaves it out.
    """

    terms: tuple[Term, ...]
    gamma: str = "margin"
    weights: tuple[float, ...] = ()
    beta: float = 0.1
    q_rule: str = "paper"
    pick_one: bool = False
    sft: float = 0.0

    def __post_init__(self) -> None:
        if self.gamma not in GAMMA_RULES:
            raise unknown("gamma rule", self.gamma, GAMMA_RULES)
        if self.q_rule not in Q_RULES:
            raise unknown("q rule", self.q_rule, Q_RULES)
        if self.gamma == "fixed" and len(self.weights) != len(self.terms):
            raise NapoError(
                f"gamma is fixed with {len(self.weights)} weights for {len(self.terms)} terms; "
                "give one for each term."
            )

    @property
    def responses(self) -> tuple[str, ...]:
        """The responses that have to be scored, the chosen one first."""
        return tuple(dict.fromkeys(("chosen", *(term.response for term in self.terms))))

    def __call__(
        self, policy: LogProbs, reference: LogProbs, *, step: int = 0, seed: int = 0
    ) -> ObjectiveOutput:
        """The loss of a batch and its records.

        q and gamma come from margins averaged over the batch of all processes, and carry no
        gradient.

        Args:
            policy: log-probs under the model in training.
            reference: log-probs under the base model.
            step: the optimiser step, for `pick_one`.
            seed: the run's seed, for `pick_one`.

        Raises:
            NapoError: when a response was not scored.
        """
        psi_sum, psi_mean = zip(
            *(self._margins(term, policy, reference) for term in self.terms), strict=True
        )
        means = _mean_over_processes(
            torch.stack([margin.detach().mean() for margin in (*psi_sum, *psi_mean)])
        )
        sum_means, mean_means = means.chunk(2)
        gamma = self._weights(sum_means, step, seed)
        records = {f"{name}_logp": policy.of(name)[0].detach() for name in self.responses}
        total = torch.zeros_like(psi_sum[0])
        for at, term in enumerate(self.terms):
            batch_margin = (mean_means if term.average == "mean" else sum_means)[at]
            q = self._coefficient(term, batch_margin)
            value = self._loss(term, psi_sum[at], sum_means[at], q)
            total = total + gamma[at] * value
            records |= {
                f"{term.name}_psi_sum": psi_sum[at].detach(),
                f"{term.name}_psi_mean": psi_mean[at].detach(),
                f"{term.name}_loss": value.detach(),
                f"{term.name}_gamma": gamma[at],
            }
            if q is not None:
                records[f"{term.name}_q"] = q
        if self.sft:
            told = -policy.of("chosen")[1]
            total = total + self.sft * told
            records["sft_loss"] = told.detach()
        records["loss"] = total.detach()
        return ObjectiveOutput(total.mean(), records)

    def _margins(self, term: Term, policy: LogProbs, reference: LogProbs) -> tuple[Tensor, Tensor]:
        """psi_sum and psi_mean of a term; the anchor's are the reward of its own response."""
        mine, theirs = policy.of(term.response), reference.of(term.response)
        if term.loss == "anchor":
            return tuple(
                self.beta * (ours - base).to(ours.dtype)
                for ours, base in zip(mine, theirs, strict=True)
            )
        best, best_base = policy.of("chosen"), reference.of("chosen")
        return tuple(
            losses.reward_margin(*pair, beta=self.beta).to(pair[0].dtype)
            for pair in zip(best, mine, best_base, theirs, strict=True)
        )

    def _weights(self, sum_means: Tensor, step: int, seed: int) -> Tensor:
        if self.pick_one:
            chosen = torch.zeros_like(sum_means)
            chosen[_draw(seed, step, len(self.terms))] = 1.0
            return chosen
        if self.gamma == "fixed":
            return torch.tensor(self.weights, dtype=sum_means.dtype, device=sum_means.device)
        return losses.dynamic_weights(sum_means, rule=self.gamma, floor=ROUNDING)

    def _coefficient(self, term: Term, batch_margin: Tensor) -> Tensor | None:
        if term.loss != "napo":
            return None
        if term.q is not None:
            return torch.full_like(batch_margin, term.q)
        if self.q_rule == "released":  # its margin has no beta
            batch_margin = batch_margin / self.beta
        return losses.robustness_coefficient(batch_margin, term.alpha, self.q_rule)

    def _loss(self, term: Term, psi: Tensor, batch_margin: Tensor, q: Tensor | None) -> Tensor:
        strength = term.strength or STRENGTH.get(term.loss)
        if term.loss == "napo":
            return losses.napo_loss(psi, q)
        if term.loss == "cdpo":
            return losses.cdpo_loss(psi, term.label_smoothing)
        if term.loss == "rdpo":
            return losses.rdpo_loss(psi, term.label_smoothing)
        if term.loss == "ipo":
            return losses.ipo_loss(psi / self.beta, self.beta)
        if term.loss == "drdpo":
            likelihood = losses.drdpo_likelihood(psi, strength).mean()
            log_mean = _mean_over_processes(likelihood).log()
            return losses.drdpo_loss(psi, strength, log_mean)
        if term.loss == "ropo":
            return losses.ropo_loss(psi, strength)
        if term.loss == "beta-dpo":
            return losses.dpo_loss(losses.dynamic_beta(batch_margin, strength) * psi)
        return losses.dpo_loss(psi)


def variant(name: str, **changes: Any) -> Objective:
    """A variant by name, with some of its settings changed (`beta`, `q_rule`, `gamma` ...).

    Raises:
        NapoError: for an unknown name, with the nearest known one.
    """
    return replace(VARIANTS[name], **changes)


class _Variants(dict[str, Objective]):
    """Objectives by name; an unknown name is an error that suggests the nearest."""

    def __missing__(self, name: str) -> Objective:
        raise unknown("variant", name, self)


_REJECTED = Term("rejected")
_LB = Term("language_biased", "napo", "mean", 0.5)  # §4.1
_VB = Term("vision_biased", "napo", "sum", 0.01)  # §4.1


def _a1(loss: str = "napo", **changes: Any) -> Objective:
    """A1 with both of its NaPO terms changed in the same way."""
    biased = (replace(term, loss=loss, **changes) for term in (_LB, _VB))
    return Objective((_REJECTED, *biased))


def _pair(biased: Term, loss: str = "napo", **changes: Any) -> Objective:
    """The rejected pair and one biased pair, summed (Tables 2 and 4)."""
    return Objective((_REJECTED, replace(biased, loss=loss, **changes)), gamma="none")


VARIANTS = _Variants(
    {
        # Tables 1 to 4
        "dpo": Objective((_REJECTED,), gamma="none"),
        "mdpo": Objective(
            (_REJECTED, Term(CORRUPTED), Term("chosen", "anchor", name="anchor")), gamma="none"
        ),
        "A1": _a1(),
        "A2": replace(_a1(), gamma="none"),
        "A3": _a1("dpo"),
        "LB1": _pair(_LB),
        "LB2": _pair(_LB, "dpo"),
        "VB1": _pair(_VB),
        "VB2": _pair(_VB, "dpo"),
        "random": replace(_a1(), pick_one=True),
        "LB-sum": _pair(_LB, average="sum", alpha=0.01),
        "VB-mean": _pair(_VB, average="mean", alpha=0.5),
        # Beyond the paper's tables
        "A1-original": Objective((replace(_REJECTED, loss="napo"), _LB, _VB)),  # Appendix A
        **{f"q-{q}": _a1(q=q) for q in (0.1, 0.3, 0.5, 0.7, 0.9)},  # does adapting q matter?
        "cdpo": _a1("cdpo"),
        "rdpo": _a1("rdpo"),
        "ipo": _a1("ipo"),
        "drdpo": _a1("drdpo"),
        "ropo": _a1("ropo"),
        "beta-dpo": _a1("beta-dpo"),
        "A1-sft": replace(_a1(), sft=0.1),
    }
)


def _draw(seed: int, step: int, count: int) -> int:
    """The term of a step: the same on all processes and micro-batches."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def _mean_over_processes(values: Tensor) -> Tensor:
    """The average of each value over all processes; batches are equally long on each."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


def mean_records(records: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    """Averages of several batches' records, by column."""
    gathered: dict[str, list[Tensor]] = {}
    for batch in records:
        for name, values in batch.items():
            gathered.setdefault(name, []).append(values.float().mean())
    return {name: torch.stack(values).mean().item() for name, values in gathered.items()}
