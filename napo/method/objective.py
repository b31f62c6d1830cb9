"""The training objective (Eq. 14): terms of a variant, their weights gamma, and q.

`Objective(VARIANTS["A1"])(policy, reference).loss` is the loss of a batch. The terms of a variant
stand in its entry (`napo.config.variants`).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import inf
from typing import Any

import torch
from torch import Tensor

from napo.config.registry import look_up
from napo.config.variants import LOSSES, Q_RULES, Loss, Term, Variant
from napo.errors import NapoError, unknown
from napo.method import losses
from napo.method.tensors import LogProbs

ROUNDING = 1e-5  # nats; margins up to this may be float32 noise around 0


@dataclass(frozen=True)
class ObjectiveOutput:
    """Loss and records of a batch.

    Attributes:
        loss: a scalar with gradient, the mean over this process's rows.
        records: without gradient. `<response>_logp` and `loss` have shape (batch,). Each term has
            `<term>_psi_sum`, `<term>_psi_mean` and `<term>_loss` of shape (batch,), a scalar
            `<term>_gamma` and, if its loss takes q, `<term>_q`: a scalar, or of shape (batch,)
            under the rules "per-pair" and "posterior". The loss is the one before its weights.
            Where pairs are read one by one, `<term>_spread` is the scalar that was used (before
            its lower limit), and `<term>_weight` of shape (batch,) the weight for gamma "per-pair".
    """

    loss: Tensor
    records: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Objective:
    """A variant as a function of log-probs.

    Attributes:
        variant: the terms and the rule for their weights.
        beta: scale of the reward (§4.1).
        q_rule: "paper" (Eq. 12) or "released"; a variant's own rule takes precedence.
    """

    variant: Variant
    beta: float = 0.1
    q_rule: str = "paper"

    def __post_init__(self) -> None:
        self.variant.require_terms()
        if not 0 < self.beta < inf:
            raise NapoError(f"beta is {self.beta}; it must be positive and finite.")
        if self.q_rule not in Q_RULES:
            raise unknown("q rule", self.q_rule, Q_RULES)

    @property
    def responses(self) -> tuple[str, ...]:
        """The responses to score, the chosen one first."""
        return self.variant.responses

    def definition(self) -> dict[str, Any]:
        """Everything that the loss depends on, as values that JSON can hold."""
        q_rule = self.variant.q_rule or self.q_rule
        if q_rule == "posterior":
            q_rule = f"posterior, else {self.q_rule}"
        return {**self.variant.definition(), "beta": self.beta, "q_rule": q_rule}

    @property
    def reads_pairs(self) -> bool:
        """Whether a weight or a q is each pair's own, from its margin over the spread of all."""
        return "per-pair" in (self.variant.gamma, self.variant.q_rule)

    def __call__(
        self,
        policy: LogProbs,
        reference: LogProbs,
        *,
        step: int = 0,
        seed: int = 0,
        noise: float = ROUNDING,
        progress: float = 1.0,
        spreads: Sequence[float] | None = None,
        posterior: Mapping[str, Tensor] | None = None,
    ) -> ObjectiveOutput:
        """The loss of a batch and its records.

        q and gamma come from margins averaged over the batch of all processes. They carry no
        gradient. Margins that may be noise count as 0 in them: gamma is then uniform, and q that
        of margin 0. Weights and q of single pairs come from their own margins, in the same way.

        Args:
            policy: log-probs under the model in training.
            reference: log-probs under the base model.
            step: the optimiser step, for `pick_one`.
            seed: the run's seed, for `pick_one`.
            noise: a batch average of psi_sum up to this may be noise, as may their total; in nats.
            progress: the share of the run that is done, for the ramp of the weights of pairs.
            spreads: the running spread of |psi_sum| of each term, in nats, for weights and q of
                pairs (`losses.running_spread`); by default this batch's mean over all processes.
            posterior: response -> each row's probability that it is noise, shape (batch,), for the
                q rule "posterior".

        Raises:
            NapoError: if a response was not scored, or the posterior is missing.
        """
        terms = self.variant.terms
        psi_sums, psi_means = zip(
            *(self.margins(term, policy, reference) for term in terms), strict=True
        )
        batch_means = mean_over_processes(
            torch.stack([psi.detach().mean() for psi in (*psi_sums, *psi_means)])
        )
        mean_psi_sums, mean_psi_means = batch_means.chunk(2)
        gammas = self.weights(mean_psi_sums, mean_psi_means, step, seed, noise)
        is_noise = mean_psi_sums.abs() <= noise  # false for NaN, which must reach the loss
        averages = {
            "sum": mean_psi_sums.masked_fill(is_noise, 0.0),
            "mean": mean_psi_means.masked_fill(is_noise, 0.0),
        }
        used_spreads = self.spreads(psi_sums, spreads) if self.reads_pairs else [None] * len(terms)
        ramp = min(1.0, progress / losses.RAMP)
        records = {f"{name}_logp": policy.of(name)[0].detach() for name in self.responses}
        total = torch.zeros_like(psi_sums[0])
        for index, (term, psi, psi_mean) in enumerate(zip(terms, psi_sums, psi_means, strict=True)):
            entry, spread, weight, q = LOSSES[term.loss], used_spreads[index], gammas[index], None
            own = psi.detach().masked_fill(psi.detach().abs() <= noise, 0.0)
            if "q" in loss_function(entry)[1]:
                average = averages[term.average][index]
                q = self.coefficient(term, average, own, spread, posterior)
            value = self.term_loss(term, psi_mean if entry.margin == "mean_log_ratio" else psi, q)
            records |= {
                f"{term.name}_psi_sum": psi.detach(),
                f"{term.name}_psi_mean": psi_mean.detach(),
                f"{term.name}_loss": value.detach(),
                f"{term.name}_gamma": weight,
            }
            if q is not None:
                records[f"{term.name}_q"] = q
            if self.reads_pairs:
                records[f"{term.name}_spread"] = spread
            if self.variant.gamma == "per-pair":
                records[f"{term.name}_weight"] = losses.pair_weights(own, spread, ramp)
                weight = weight * records[f"{term.name}_weight"]
            total = total + weight * value
        if self.variant.sft:
            likelihood_loss = -policy.of("chosen")[1]
            total = total + self.variant.sft * likelihood_loss
            records["sft_loss"] = likelihood_loss.detach()
        records["loss"] = total.detach()
        return ObjectiveOutput(total.mean(), records)

    def margins(self, term: Term, policy: LogProbs, reference: LogProbs) -> tuple[Tensor, Tensor]:
        """psi_sum and psi_mean of a term (Eq. 2), or the reward of its response for "own_reward".

        Returns:
            Two tensors of shape (batch,), in the dtype of the policy's log-probs.
        """
        response, response_reference = policy.of(term.response), reference.of(term.response)
        if LOSSES[term.loss].margin == "own_reward":
            return tuple(
                self.beta * (logp - reference_logp).to(logp.dtype)
                for logp, reference_logp in zip(response, response_reference, strict=True)
            )
        chosen, chosen_reference = policy.of("chosen"), reference.of("chosen")
        columns = zip(chosen, response, chosen_reference, response_reference, strict=True)
        return tuple(
            losses.reward_margin(*logps, beta=self.beta).to(logps[0].dtype) for logps in columns
        )

    def weights(
        self, mean_psi_sums: Tensor, mean_psi_means: Tensor, step: int, seed: int, noise: float
    ) -> Tensor:
        """gamma of each term from the batch averages of psi; all have shape (terms,)."""
        variant = self.variant
        if variant.pick_one:
            # All processes and micro-batches of a step draw the same term.
            digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
            weights = torch.zeros_like(mean_psi_sums)
            weights[int.from_bytes(digest[:8], "big") % len(variant.terms)] = 1.0
            return weights
        if variant.gamma == "fixed":
            return mean_psi_sums.new_tensor(variant.weights)
        if variant.gamma == "per-pair":
            return torch.ones_like(mean_psi_sums)
        if variant.gamma == "mean-margin":
            # The summed margins say what is noise, as they do for q.
            means = mean_psi_means.masked_fill(mean_psi_sums.sum() <= noise, 0.0)
            return losses.dynamic_weights(means)
        return losses.dynamic_weights(mean_psi_sums, variant.gamma, noise, variant.temper)

    def spreads(self, psi_sums: Sequence[Tensor], given: Sequence[float] | None) -> Tensor:
        """The spread of each term's margins, as given or of this batch; shape (terms,)."""
        if given is not None:
            return psi_sums[0].new_tensor(given)
        return mean_over_processes(torch.stack([psi.detach().abs().mean() for psi in psi_sums]))

    def coefficient(
        self,
        term: Term,
        batch_margin: Tensor,
        psi: Tensor,
        spread: Tensor | None,
        posterior: Mapping[str, Tensor] | None,
    ) -> Tensor:
        """q of a term: a scalar, or of shape (batch,) where each pair has its own.

        Args:
            term: the term.
            batch_margin: batch average of psi_sum or psi_mean, as the term says; a scalar.
            psi: psi_sum of each pair, shape (batch,).
            spread: the spread of the term's psi_sum, a scalar.
            posterior: as in `__call__`.
        """
        rule = self.variant.q_rule or self.q_rule
        if term.q is not None:
            return torch.full_like(batch_margin, term.q)
        if rule == "per-pair":
            return losses.pair_coefficients(psi, spread)
        if rule == "posterior":
            if not posterior:
                raise NapoError(
                    f"{self.variant.name} takes q from the labelled samples, and the rows have no "
                    "probabilities of noise; give posterior, or columns such as "
                    "language_biased_noise."
                )
            if term.response in posterior:
                return posterior[term.response].to(psi.dtype).clamp(*losses.Q_RANGE["paper"])
            rule = self.q_rule
        margin = batch_margin / self.beta if rule == "released" else batch_margin
        return losses.robustness_coefficient(margin, term.alpha, rule)

    def term_loss(self, term: Term, psi: Tensor, q: Tensor | None) -> Tensor:
        """Loss of a term, shape (batch,).

        Args:
            term: the term.
            psi: its margins, psi_sum or psi_mean as its loss says; shape (batch,).
            q: its coefficient, if the loss takes one.
        """
        entry = LOSSES[term.loss]
        function, parameters = loss_function(entry)
        arguments = {
            "q": q,
            "beta": self.beta,
            "label_smoothing": term.label_smoothing,
            "strength": term.strength,
            "average": lambda values: mean_over_processes(values.detach().mean()),
            "largest": lambda values: largest_over_processes(values.detach().amax()),
        }
        margins = psi / self.beta if entry.margin.endswith("log_ratio") else psi
        loss = function(margins, **{name: arguments[name] for name in parameters})
        if getattr(loss, "shape", None) != margins.shape:
            raise NapoError(
                f"The loss {term.loss} does not return one value for each pair; let "
                f"{entry.function} return a tensor of the shape of its margins."
            )
        return loss


@cache
def loss_function(entry: Loss) -> tuple[Callable[..., Tensor], frozenset[str]]:
    """The function of a loss, and the names of the optional arguments that it takes."""
    function = look_up(entry.function, f"The loss {entry.name}")
    known = {"q", "beta", "label_smoothing", "strength", "average", "largest"}
    return function, frozenset(known & set(inspect.signature(function).parameters))


def mean_over_processes(values: Tensor) -> Tensor:
    """The average of each value over all processes, whose batches are equally long."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


def largest_over_processes(values: Tensor) -> Tensor:
    """The maximum of each value over all processes."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        values = values.clone()
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values


def mean_records(batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    """Averages of several batches' records, by column."""
    columns: dict[str, list[Tensor]] = {}
    for records in batches:
        for name, values in records.items():
            columns.setdefault(name, []).append(values.float().mean())
    return {name: torch.stack(values).mean().item() for name, values in columns.items()}
