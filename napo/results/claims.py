"""The paper's claims, as questions that the runs answer with a difference and its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napo.config.benchmarks import Metric, metrics
from napo.results.collect import DUST, NAN, Results, signed
from napo.results.notes import marks
from napo.results.tables import published

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
    Claim("Does it beat mDPO, a method against hallucination (A1 over mdpo)?", "A1", "mdpo", 1),
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

ANSWERS = ("better", "worse", "not decided")  # columns of the table to read
NO_NUMBERS = ("not run", "undefined", "the same")  # answers that stand alone
PAPER = "the paper, 7B"
NO_BREAK = "\N{NO-BREAK SPACE}"


def claims(results: Results) -> pd.DataFrame:
    """The answers of these runs to the paper's claims, each a difference with its 95 % interval.

    Returns:
        Columns question, variant, other, metric, published (the paper's difference, 7B),
        difference, low, high (nan where not run), answer: "better", "worse", "not decided" (the
        interval contains 0, or the seeds have different signs), "the same" (every item has the same
        score, seeds averaged), "undefined" or "not run"; marks: the two variants' marks.
    """
    import pandas as pd

    rows = []
    for claim in CLAIMS:
        question, variant, other, *_ = claim
        marked = [f"{mark} {name}" for name in (variant, other) for mark in marks(results, name)]
        paper = published_differences(claim)
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
            rows.append((question, variant, other, metric.title, paper[metric.name], *ends, *texts))
    names = ["question", "variant", "other", "metric", "published", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "answer", "marks"])


def published_differences(claim: Claim) -> pd.Series:
    """The claim's differences by metric in the first of the paper's tables with both variants.

    All tables have the 7B model, so the differences are those of 7B.
    """
    for number in (claim.table, 3, 4):
        rows = published(number).query("model == '7B'").set_index("variant")
        if {claim.variant, claim.other} <= set(rows.index):
            names = [metric.name for metric in claim.metrics]
            return rows.loc[claim.variant, names] - rows.loc[claim.other, names]
    raise KeyError(f"no table of the paper compares {claim.variant} with {claim.other}")


def claims_to_read(frame: pd.DataFrame) -> pd.DataFrame:
    """Claims for reading: a row for each question.

    Columns: what the paper found, then the metrics on which these runs are better, worse, or not
    decided, a line each, such as "VLind LP +3.1 [+1.0, +5.2]"; a dash for none. A question ends
    with the marks of its variants.
    """
    import pandas as pd

    known = {metric.title: metric for metric in metrics()}
    rows = {}
    for question, group in frame.groupby("question", sort=False):
        found: dict[str, list[str]] = {answer: [] for answer in ANSWERS}
        better, others = [], []
        for row in group.itertuples():
            metric = known[row.metric]
            (better if row.published * metric.better > 0 else others).append(metric.name)
            number = signed(row.difference, row.low, row.high, metric.digits)
            number = number.replace(" ", NO_BREAK)
            if row.answer == "not decided" and (row.low > 0 or row.high < 0):
                number += ", seeds differ"
            text = row.answer if row.answer in NO_NUMBERS else number
            found.get(row.answer, found["not decided"]).append(f"{metric.name} {text}")
        cells = {answer: "\n".join(texts) or "–" for answer, texts in found.items()}
        if set(group["answer"]) == {"not run"}:
            cells["not decided"] = "not run"
        paper = f"better on {len(better)} of {len(group)}"
        paper += f", not on {', '.join(others)}" if others else ""
        marked = f" ({group['marks'].iloc[0]})" if group["marks"].iloc[0] else ""
        rows[question + marked] = {PAPER: paper, **cells}
    table = pd.DataFrame.from_dict(rows, orient="index")
    here = {answer: f"{answer} here" for answer in ANSWERS}
    return table.rename(columns=here).rename_axis("question")
