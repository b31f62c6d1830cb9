"""The paper's claims, as questions that the runs answer with a difference and its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napo.config.benchmarks import Metric, metrics
from napo.results.collect import DUST, NAN, Results, interval, pivot
from napo.results.notes import marks

if TYPE_CHECKING:
    import pandas as pd


class Claim(NamedTuple):
    """One of the paper's claims as a question: is a variant better than another?

    `only` names the metrics of the claim; empty: all metrics of its table.
    """

    question: str
    variant: str
    other: str
    table: int = 2
    only: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[Metric]:
        """The columns that answer it."""
        return [m for m in metrics(self.table) if not self.only or m.name in self.only]


CLAIMS = (
    Claim("Does the full method beat DPO on bias and hallucination (A1 over dpo)?", "A1", "dpo", 1),
    Claim("Does it beat mDPO, made against hallucination (A1 over mdpo)?", "A1", "mdpo", 1),
    Claim("Do the weights gamma help (A1 over A2, the plain sum)?", "A1", "A2"),
    Claim("Does NaPO beat DPO on the same three pairs (A1 over A3, both with gamma)?", "A1", "A3"),
    Claim("Does NaPO beat DPO on language-biased pairs (LB1 over LB2)?", "LB1", "LB2"),
    Claim("Does NaPO beat DPO on vision-biased pairs (VB1 over VB2)?", "VB1", "VB2"),
    Claim(
        "Do language-biased pairs serve LP better than vision-biased ones (LB1 over VB1)?",
        "LB1", "VB1", only=("VLind LP",),
    ),
    Claim(
        "Do vision-biased pairs serve CB and hallucination better (VB1 over LB1)?",
        "VB1", "LB1", only=("VLind CB", "ObjHal CHAIRs", "ObjHal CHAIRi"),
    ),
    Claim("Do both kinds together beat one (A2 over LB1)?", "A2", "LB1"),
    Claim("Do both kinds together beat one (A2 over VB1)?", "A2", "VB1"),
    Claim("Does as much data from all three kinds (random) beat RLAIF-V alone (dpo)?",
          "random", "dpo"),
    Claim("Is psi_mean the better margin for language bias (LB1 over LB-sum)?", "LB1", "LB-sum"),
    Claim("Is psi_sum the better margin for vision bias (VB1 over VB-mean)?", "VB1", "VB-mean"),
)  # fmt: skip

NO_NUMBERS = ("not run", "undefined", "the same")  # answers that stand alone


def claims(results: Results) -> pd.DataFrame:
    """The answers of these runs to the paper's claims, each a difference with its 95 % interval.

    Returns:
        Columns question, variant, other, metric, difference, low, high (nan where not run), answer:
        "better", "worse", "not decided" (the interval holds 0), "the same" (every item has the
        same score, seeds averaged), "undefined" or "not run"; marks: the two variants' marks.
    """
    import pandas as pd

    rows = []
    for claim in CLAIMS:
        question, variant, other, *_ = claim
        marked = [f"{mark} {name}" for name in (variant, other) for mark in marks(results, name)]
        for metric in claim.metrics:
            change = results.difference(variant, other, metric)
            ends = [change.value, change.low, change.high] if change else [NAN] * 3
            ends = [0.0 if abs(number) < DUST else number for number in ends]
            if change is None:
                answer = "not run"
            elif np.isnan(change.value):  # such as CHAIRi of a model that names no object
                answer = "undefined"
            elif not any(ends):
                answer = "the same"
            elif change.decided:
                answer = "better" if change.value * metric.better > 0 else "worse"
            else:
                answer = "not decided"
            texts = (answer, ", ".join(marked))
            rows.append((question, variant, other, metric.title, *ends, *texts))
    names = ["question", "variant", "other", "metric", "difference", "low", "high", "answer"]
    return pd.DataFrame(rows, columns=[*names, "marks"])


def claims_to_read(frame: pd.DataFrame) -> pd.DataFrame:
    """Claims for reading: a row for each question, a column for each metric.

    A cell is such as "+3.1 [+1.0, +5.2] better"; a dash where the claim is not about the metric. A
    question ends with the marks of its variants.
    """
    cells, digits = [], {metric.title: metric.digits for metric in metrics()}
    for row in frame.itertuples():
        form = f"+.{digits[row.metric]}f"
        ends = f"{row.difference:{form}} {interval(row.low, row.high, form)}".replace("-", "−")
        cells.append(row.answer if row.answer in NO_NUMBERS else f"{ends} {row.answer}")
    marked = [f" ({marks})" if marks else "" for marks in frame["marks"]]
    shown = frame.assign(
        cell=cells, question=[q + m for q, m in zip(frame["question"], marked, strict=True)]
    )
    return pivot(shown, "question").fillna("–")
