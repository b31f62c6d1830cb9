"""One optimiser step by hand: the paper's equations on a batch that a run has seen.

Each number comes from the function that trains (`napo.method.losses`), called with the log-probs
of the batch. What the paper has no equation for, such as another loss, is the trainer's record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from IPython.display import HTML

from napo.config.variants import LOSSES, Term
from napo.lab.html import STYLE, against, card, cards, escaped, picture, words
from napo.method import losses
from napo.method.losses import Q_RANGE
from napo.stages.step import RecordedStep

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

EQ13 = ("margin", "tempered", "uniform", "none")  # rules of gamma that `dynamic_weights` has
RECORD = "the trainer's record"


@dataclass(frozen=True)
class TermByHand:
    """One term of Eq. 14 on a batch.

    Attributes:
        name: of the term.
        psi_sum: margins of summed log-probs, shape (batch,).
        psi_mean: margins per token, shape (batch,).
        q: a scalar, or of shape (batch,) where each pair has its own; None if the loss has none.
        gamma: likewise, the weight.
        loss: before its weight, shape (batch,).
        equations: "q", "gamma" and "loss" -> the number of the equation.
    """

    name: str
    psi_sum: Tensor
    psi_mean: Tensor
    q: Tensor | None
    gamma: Tensor
    loss: Tensor
    equations: dict[str, str]

    @property
    def weighted(self) -> Tensor:
        """gamma times the loss, shape (batch,)."""
        return self.gamma * self.loss


def responses(step: RecordedStep, row: int = -1) -> HTML:
    """A row of the batch: its picture, and its responses with their log-probs under both models.

    Args:
        step: the step.
        row: its place in the batch; -1 is the first row whose responses all differ.
    """
    place, names = chosen_row(step, row), step.objective.responses
    entry = step.rows[place]
    parts = [words("Question", escaped(entry["question"]), f"row {entry['id']}")]
    for name in names:
        text = entry.get(name, entry["chosen"])
        content = escaped(text) if name == "chosen" else against(entry["chosen"], text)
        values = [log_probs.of(name) for log_probs in (step.policy, step.reference)]
        tokens = int(step.policy.tokens[place, names.index(name)])
        (policy, policy_mean), (reference, reference_mean) = (
            (total[place].item(), mean[place].item()) for total, mean in values
        )
        parts.append(
            words(name.replace("_", " "), content, f"{tokens} tokens")
            + f"<div>log π<sub>θ</sub> {policy:.3f}, per token {policy_mean:.3f}<br>"
            f"log π<sub>ref</sub> {reference:.3f}, per token {reference_mean:.3f}</div>"
        )
    shown = picture(entry["image"], f"The picture of row {entry['id']}")
    return HTML(STYLE + cards([card(shown, parts[0]), *map(card, parts[1:])]))


def equations(step: RecordedStep, row: int = -1) -> pd.DataFrame:
    """The numbers of one row and of its batch, each beside its equation.

    Args:
        step: the step.
        row: as in `responses`.

    Returns:
        Index `quantity` and `equation`; a column for each term, and `sum`; texts.
    """
    import pandas as pd

    place, parts, total = chosen_row(step, row), by_hand(step), total_loss(step)
    lines = {
        ("ψ_Σ of the row", "Eq. 2"): [part.psi_sum[place] for part in parts],
        ("ψ_μ of the row", "Eq. 2"): [part.psi_mean[place] for part in parts],
        ("ψ_Σ, mean of the batch", "Eq. 2"): [part.psi_sum.mean() for part in parts],
        ("ψ_μ, mean of the batch", "Eq. 2"): [part.psi_mean.mean() for part in parts],
        ("q", named(parts, "q")): [of_row(part.q, place) for part in parts],
        ("γ", named(parts, "gamma")): [of_row(part.gamma, place) for part in parts],
        ("loss of the row", named(parts, "loss")): [part.loss[place] for part in parts],
        ("γ × loss of the row", "Eq. 14"): [part.weighted[place] for part in parts],
        ("γ × loss, mean of the batch", "Eq. 14"): [part.weighted.mean() for part in parts],
    }
    if weight := step.objective.variant.sft:
        likelihood = f"{weight:g} × (-log π(y_w) per token), in the sum"
        lines[likelihood, "variant"] = [None] * len(parts)
    sums = {"γ × loss of the row": total[place], "γ × loss, mean of the batch": total.mean()}
    columns = [part.name for part in parts]
    frame = pd.DataFrame(
        {key: [*values, sums.get(key[0])] for key, values in lines.items()}, [*columns, "sum"]
    ).T
    frame.index.names = ["quantity", "equation"]
    if all(part.q is None for part in parts):
        frame = frame.drop("q", level="quantity")
    return frame.map(lambda value: "" if value is None else f"{float(value):.4f}")


def agreement(step: RecordedStep) -> str:
    """The batch's loss by hand, by the objective, and as the trainer recorded it."""
    total = total_loss(step).mean().item()
    output = step.objective(step.policy, step.reference, **step.options)
    lines = [
        f"Loss of step {step.options['step']} over {len(step.rows)} rows (Eq. 14)",
        f"{'by hand':>15}: {total:.7f}",
    ]
    others = {"napo.Objective": output.loss.item(), "the trainer": step.records["loss"].mean()}
    for name, value in others.items():
        lines.append(f"{name:>15}: {value:.7f}   difference {value - total:+.0e}")
    if step.tune == "qlora":
        lines.append("The trainer differs: under qlora it scores the reference again, in 4 bits.")
    return "\n".join(lines)


def by_hand(step: RecordedStep) -> list[TermByHand]:
    """The terms of a step's objective on its batch, in the order of the objective."""
    import torch

    terms = step.objective.variant.terms
    margins = [margins_of(step, term) for term in terms]
    gammas, equation = weights_of(step, torch.stack([psi_sum.mean() for psi_sum, _ in margins]))
    parts = []
    for term, gamma, (psi_sum, psi_mean) in zip(terms, gammas, margins, strict=True):
        q, of_q = coefficient_of(step, term, psi_sum if term.average == "sum" else psi_mean)
        loss, of_loss = loss_of(step, term, psi_sum, q)
        names = {"q": of_q, "gamma": equation, "loss": of_loss}
        parts.append(TermByHand(term.name, psi_sum, psi_mean, q, gamma, loss, names))
    return parts


def total_loss(step: RecordedStep) -> Tensor:
    """The weighted sum of the terms (Eq. 14), shape (batch,)."""
    total = sum(part.weighted for part in by_hand(step))
    return total - step.objective.variant.sft * step.policy.of("chosen")[1]


def margins_of(step: RecordedStep, term: Term) -> tuple[Tensor, Tensor]:
    """psi_sum and psi_mean of a term (Eq. 2), shape (batch,) each."""
    if LOSSES[term.loss].margin == "own_reward":
        return step.objective.margins(term, step.policy, step.reference)
    chosen, response = (
        [log_probs.of(name) for log_probs in (step.policy, step.reference)]
        for name in ("chosen", term.response)
    )
    psi_sum, psi_mean = (
        losses.reward_margin(
            chosen[0][kind], response[0][kind], chosen[1][kind], response[1][kind],
            beta=step.objective.beta,
        )
        for kind in (0, 1)  # summed, per token
    )  # fmt: skip
    return psi_sum, psi_mean


def weights_of(step: RecordedStep, psi_means: Tensor) -> tuple[Sequence[Tensor], str]:
    """gamma of each term from the batch means of psi_sum, and its equation."""
    variant = step.objective.variant
    if variant.gamma in EQ13 and not variant.pick_one:
        equation = "Eq. 13" if variant.gamma in ("margin", "tempered") else "plain sum"
        noise = step.options["noise"]
        return losses.dynamic_weights(psi_means, variant.gamma, noise, variant.temper), equation
    kind = "weight" if variant.gamma == "per-pair" else "gamma"
    return [recorded(step, term, kind) for term in variant.terms], RECORD


def coefficient_of(step: RecordedStep, term: Term, psi: Tensor) -> tuple[Tensor | None, str]:
    """q of a term from the margins that it reads, and its equation; None for a loss without q."""
    if f"{term.name}_q" not in step.records:
        return None, ""
    rule = step.objective.variant.q_rule or step.objective.q_rule
    if term.q is not None or rule not in Q_RANGE:
        return recorded(step, term, "q"), RECORD
    margin = psi / step.objective.beta if rule == "released" else psi
    return losses.robustness_coefficient(margin, term.alpha, rule), "Eq. 12"


def loss_of(step: RecordedStep, term: Term, psi: Tensor, q: Tensor | None) -> tuple[Tensor, str]:
    """The loss of each pair, shape (batch,), and its equation."""
    if term.loss == "dpo":
        return losses.dpo_loss(psi), "Eq. 3"
    if term.loss == "napo":
        return losses.napo_loss(psi, q), "Eq. 9"
    return recorded(step, term, "loss"), RECORD


def recorded(step: RecordedStep, term: Term, kind: str) -> Tensor:
    """A number of the trainer's records for each row, shape (batch,)."""
    import torch

    return torch.tensor(step.records[f"{term.name}_{kind}"].to_numpy())


def named(parts: Sequence[TermByHand], number: str) -> str:
    """The equations of a number, such as "Eq. 3, Eq. 9"."""
    return ", ".join(dict.fromkeys(filter(None, (part.equations[number] for part in parts))))


def of_row(value: Tensor | None, place: int) -> Tensor | None:
    """A row's own value, or the one of all rows."""
    return value[place] if value is not None and value.dim() else value


def chosen_row(step: RecordedStep, row: int) -> int:
    """The row's place in the batch; for -1 the first row whose responses all differ."""
    if row >= 0:
        return row
    names = [name for name in step.objective.responses if name in step.rows.column_names]
    texts = step.rows.select_columns(names).to_pandas()
    differing = texts.nunique(axis=1) == len(names)
    return int(differing.argmax())
