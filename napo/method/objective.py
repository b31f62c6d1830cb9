"""The training objective (Eq. 14): the terms of a variant, their weights gamma, and q.

`Objective(VARIANTS["A1"])(policy, reference).loss` is the loss of a batch. The terms of a variant
stand in its entry (`napo.config.variants`).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from napo.config.registry import look_up
from napo.config.variants import LOSSES, Term, Variant
from napo.method import losses
from napo.method.tensors import LogProbs

ROUNDING = 1e-5  # a total margin below this is float32 noise around 0


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
    """A variant as a function of log-probs.

    Attributes:
        variant: the terms and the rule of their weights.
        beta: scale of the reward (§4.1).
        q_rule: "paper" (Eq. 12) or "released", where the variant does not set its own.
    """

    variant: Variant
    beta: float = 0.1
    q_rule: str = "paper"

    @property
    def terms(self) -> tuple[Term, ...]:
        """The variant's terms."""
        return self.variant.terms

    @property
    def responses(self) -> tuple[str, ...]:
        """The responses that have to be scored, the chosen one first."""
        return self.variant.responses

    def definition(self) -> dict[str, Any]:
        """All that the loss depends on, in JSON's terms."""
        q_rule = self.variant.q_rule or self.q_rule
        return {**self.variant.definition(), "beta": self.beta, "q_rule": q_rule}

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
        means = _over_processes(
            torch.stack([margin.detach().mean() for margin in (*psi_sum, *psi_mean)])
        )
        sum_means, mean_means = means.chunk(2)
        gamma = self._weights(sum_means, step, seed)
        records = {f"{name}_logp": policy.of(name)[0].detach() for name in self.responses}
        total = torch.zeros_like(psi_sum[0])
        for at, term in enumerate(self.terms):
            function, takes = _loss(term.loss)
            q = None
            if "q" in takes:
                q = self._coefficient(
                    term, (mean_means if term.average == "mean" else sum_means)[at]
                )
            given = {
                "q": q,
                "beta": self.beta,
                "label_smoothing": term.label_smoothing,
                "strength": term.strength,
                "average": _mean_over_processes,
            }
            log_ratio = LOSSES[term.loss].margin == "log_ratio"
            value = function(
                psi_sum[at] / self.beta if log_ratio else psi_sum[at],
                **{name: argument for name, argument in given.items() if name in takes},
            )
            total = total + gamma[at] * value
            records |= {
                f"{term.name}_psi_sum": psi_sum[at].detach(),
                f"{term.name}_psi_mean": psi_mean[at].detach(),
                f"{term.name}_loss": value.detach(),
                f"{term.name}_gamma": gamma[at],
            }
            if q is not None:
                records[f"{term.name}_q"] = q
        if self.variant.sft:
            likelihood_loss = -policy.of("chosen")[1]
            total = total + self.variant.sft * likelihood_loss
            records["sft_loss"] = likelihood_loss.detach()
        records["loss"] = total.detach()
        return ObjectiveOutput(total.mean(), records)

    def _margins(self, term: Term, policy: LogProbs, reference: LogProbs) -> tuple[Tensor, Tensor]:
        """psi_sum and psi_mean of a term; the anchor's are the reward of its own response."""
        response, base = policy.of(term.response), reference.of(term.response)
        if LOSSES[term.loss].margin == "own_reward":
            return tuple(
                self.beta * (ours - theirs).to(ours.dtype)
                for ours, theirs in zip(response, base, strict=True)
            )
        chosen, chosen_base = policy.of("chosen"), reference.of("chosen")
        return tuple(
            losses.reward_margin(*pair, beta=self.beta).to(pair[0].dtype)
            for pair in zip(chosen, response, chosen_base, base, strict=True)
        )

    def _weights(self, sum_means: Tensor, step: int, seed: int) -> Tensor:
        variant = self.variant
        if variant.pick_one:
            weights = torch.zeros_like(sum_means)
            weights[_draw(seed, step, len(variant.terms))] = 1.0
            return weights
        if variant.gamma == "fixed":
            return torch.tensor(variant.weights, dtype=sum_means.dtype, device=sum_means.device)
        return losses.dynamic_weights(sum_means, rule=variant.gamma, floor=ROUNDING)

    def _coefficient(self, term: Term, batch_margin: Tensor) -> Tensor:
        """q of a term, a scalar."""
        if term.q is not None:
            return torch.full_like(batch_margin, term.q)
        rule = self.variant.q_rule or self.q_rule
        if rule == "released":  # its margin has no beta
            batch_margin = batch_margin / self.beta
        return losses.robustness_coefficient(batch_margin, term.alpha, rule)


@cache
def _loss(name: str) -> tuple[Callable[..., Tensor], frozenset[str]]:
    """The function of a loss, and which keyword arguments it takes."""
    function = look_up(LOSSES[name].function, f"The loss {name}")
    return function, frozenset(inspect.signature(function).parameters)


def _draw(seed: int, step: int, count: int) -> int:
    """The term of a step: the same on all processes and micro-batches."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def _mean_over_processes(values: Tensor) -> Tensor:
    """The mean of values of shape (batch,) over the batch of all processes, without gradient."""
    return _over_processes(values.detach().mean())


def _over_processes(values: Tensor) -> Tensor:
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
