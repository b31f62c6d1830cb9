"""The probability that a pair is noise, from labelled samples and the reference's margins.

For each kind of biased response, a logistic regression of the label on the stored margins (summed
and per token) of the labelled samples gives every row a probability. It is the q of a variant with
`q_rule="posterior"`. Where the truth of all rows is known, `reliability` and `scores` say how far
the probabilities can be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.noise.samples import margins_of, without_images
from napo.noise.separation import auroc, wilson

FEATURES = ("margin_sum", "margin_mean")
DIGITS = 6  # of a coefficient: the last bits of a fit depend on the machine


def fit(margins: pd.DataFrame) -> pd.DataFrame:
    """Fit the probability of noise to the labelled samples of each kind.

    Logistic regression on standardised margins with scikit-learn's default penalty (L2, C = 1),
    which keeps a fit to 100 labels finite where a margin separates them fully. Unsure labels are
    left out, as is a kind without labels. Where all labels are the same, the margins say nothing:
    the probability is then (noise + 1/2) / (labels + 1) for every row.

    Args:
        margins: from `napo.noise.samples.response_margins`.

    Returns:
        Index `kind`; columns `intercept`, `margin_sum` and `margin_mean` (log-odds of noise, and
        their change with each nat), `labels` and `noise` (counts).
    """
    decided = margins[margins["label"].isin(("biased", "unbiased"))]
    rows = []
    for kind in BIASED:
        part = decided[decided["kind"] == kind]
        is_noise = (part["label"] == "unbiased").to_numpy()
        if not len(part):
            continue
        values = logistic(part[list(FEATURES)].to_numpy(float), is_noise)
        rounded = (float(f"{value:.{DIGITS}g}") for value in values)
        rows.append((kind, *rounded, len(part), int(is_noise.sum())))
    columns = ["kind", "intercept", *FEATURES, "labels", "noise"]
    return pd.DataFrame(rows, columns=columns).set_index("kind")


def probabilities(margins: pd.DataFrame, coefficients: pd.DataFrame) -> np.ndarray:
    """Each response's probability of being noise.

    Args:
        margins: a response a row, with the columns `kind`, `margin_sum` and `margin_mean`.
        coefficients: from `fit`, with a row for each of these kinds.
    """
    from scipy.special import expit

    of_row = coefficients.loc[margins["kind"]]
    log_odds = of_row["intercept"].to_numpy()
    for name in FEATURES:
        log_odds = log_odds + of_row[name].to_numpy() * margins[name].to_numpy(float)
    return expit(log_odds)


def noise_columns(
    rows: Iterable[Mapping[str, Any]], coefficients: pd.DataFrame
) -> dict[str, list[float]]:
    """The columns `<response>_noise` of rows: each biased response's probability of being noise.

    Args:
        rows: rows of RLAIF-V-Bias joined with the reference's log-probs.
        coefficients: from `fit`.

    Raises:
        NapoError: for a kind of response without labels.
    """
    for kind in BIASED:
        if kind not in coefficients.index:
            raise NapoError(
                f"No {kind} response is labelled as biased or unbiased, so no probability of noise "
                "can be fitted; label the samples in notebooks/02_annotate_noise.ipynb."
            )
    made = [(kind, *margins_of(row, kind)) for row in without_images(rows) for kind in BIASED]
    frame = pd.DataFrame(made, columns=["kind", "equal_to_chosen", *FEATURES])
    frame["noise"] = probabilities(frame, coefficients)
    return {f"{kind}_noise": frame.loc[frame["kind"] == kind, "noise"].tolist() for kind in BIASED}


def reliability(margins: pd.DataFrame, coefficients: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """How often responses of a given probability of noise are noise: the reliability curve.

    Args:
        margins: of rows whose truth is known, as `napo.noise.samples.response_margins` gives them.
        coefficients: from `fit`.
        bins: of equally many responses, from the lowest probability to the highest; equal
            probabilities stay in one bin.

    Returns:
        Columns `kind`, `count`, `predicted` (the mean probability), `observed` (the share of
        noise), and its 95 % Wilson interval `low`, `high`; a row for each kind and bin.
    """
    rows = []
    for kind, part in _known(margins, coefficients):
        bin_of = pd.qcut(part["predicted"], bins, labels=False, duplicates="drop").fillna(0)
        for _, cell in part.groupby(bin_of):
            count, noise = len(cell), int(cell["noise"].sum())
            low, high = wilson(noise, count)
            rows.append((kind, count, cell["predicted"].mean(), noise / count, low, high))
    columns = ["kind", "count", "predicted", "observed", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def scores(margins: pd.DataFrame, coefficients: pd.DataFrame) -> pd.DataFrame:
    """How good the probabilities are, beside one that is the same for every row.

    The Brier score is the mean squared difference between probability and truth (0 is perfect).

    Args:
        margins: as for `reliability`.
        coefficients: from `fit`.

    Returns:
        Index `kind`; columns `rows`, `noise` (their share of noise), `brier`, `brier_constant` (if
        every row had the share of noise among the labels), `auroc` (the chance that noise has the
        larger probability).
    """
    from sklearn.metrics import brier_score_loss

    rows = []
    for kind, part in _known(margins, coefficients):
        noise, predicted = part["noise"].to_numpy(), part["predicted"].to_numpy()
        share = coefficients.loc[kind, "noise"] / coefficients.loc[kind, "labels"]
        brier, constant = (
            brier_score_loss(noise, values, pos_label=True)
            for values in (predicted, np.full(len(part), share))
        )
        area = auroc(predicted[noise], predicted[~noise])
        rows.append((kind, len(part), noise.mean(), brier, constant, area))
    columns = ["kind", "rows", "noise", "brier", "brier_constant", "auroc"]
    return pd.DataFrame(rows, columns=columns).set_index("kind")


def logistic(features: np.ndarray, is_noise: np.ndarray) -> tuple[float, float, float]:
    """Intercept and slopes of the log-odds of noise, for margins in nats (see `fit`).

    Args:
        features: summed and per-token margins of labelled pairs, shape (labels, 2).
        is_noise: their labels, shape (labels,).
    """
    from sklearn.linear_model import LogisticRegression

    noise, labels = is_noise.sum(), len(is_noise)
    if noise in (0, labels):
        return float(np.log((noise + 0.5) / (labels - noise + 0.5))), 0.0, 0.0
    middle, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1.0  # a margin that is the same everywhere gets no slope
    model = LogisticRegression(tol=1e-10, max_iter=1000).fit((features - middle) / scale, is_noise)
    slopes = model.coef_[0] / scale
    return float(model.intercept_[0] - slopes @ middle), *map(float, slopes)


def _known(margins: pd.DataFrame, coefficients: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Each kind's responses with known truth: columns `noise` (bool) and `predicted`."""
    known = margins[margins["label"].isin(("biased", "unbiased"))]
    known = known[known["kind"].isin(coefficients.index)]
    frame = pd.DataFrame(
        {
            "kind": known["kind"].to_numpy(),
            "noise": (known["label"] == "unbiased").to_numpy(),
            "predicted": probabilities(known, coefficients),
        }
    )
    yield from frame.groupby("kind")  # in the order of `BIASED`
