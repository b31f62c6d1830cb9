"""The 100 samples of Section 3.2: draw them, label them by truth, and compute their margins.

A biased response is a good negative ("biased", noise-free) or a good answer ("unbiased", noise).
Margins are plain log-prob margins under the reference, log pi(y_w|x) - log pi(y_b|x), as Fig. 4
draws them before training, when the reward margin of Eq. 2 is still zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.noise.labels import COLUMNS, ORACLE
from napo.noise.separation import groups, wilson

LabelByTruth: TypeAlias = Callable[[Mapping[str, Any], str], tuple[str, str]]


def sample(rows: Iterable[Mapping[str, Any]], count: int = 100, seed: int = 0) -> list[str]:
    """Ids of the rows to annotate, drawn at random without replacement (§3.2: 100).

    The draw depends on the set of ids and the seed, not on the order of the rows. The ids come in
    the order in which to label them, so an unfinished annotation is itself a random sample.

    Raises:
        NapoError: when there are fewer rows than `count`.
    """
    column = rows["id"] if hasattr(rows, "column_names") else (row["id"] for row in rows)
    ids = sorted(column)
    if count > len(ids):
        raise NapoError(
            f"annotation.samples asks for {count} samples of {len(ids)} rows; make it smaller."
        )
    drawn = np.random.default_rng(seed).choice(len(ids), size=count, replace=False)
    return [ids[index] for index in drawn]


def sampled_rows(rows: Any, samples: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The sampled rows by id, in the order of the samples; a dataset decodes only their images.

    Raises:
        NapoError: when a sample is not among the rows.
    """
    ids = set(samples)
    if hasattr(rows, "select"):
        rows = rows.select([index for index, id in enumerate(rows["id"]) if id in ids])
    by_id = {row["id"]: row for row in rows if row["id"] in ids}
    missing = [id for id in samples if id not in by_id]
    if missing:
        raise NapoError(
            f"{len(missing)} labelled or sampled rows are not in the data ({', '.join(missing[:5])}"
            f"{' ...' * (len(missing) > 5)}); the labels belong to other rows."
        )
    return {id: by_id[id] for id in samples}


def oracle_labels(rows: Iterable[Mapping[str, Any]], label_by_truth: LabelByTruth) -> pd.DataFrame:
    """Labels of both biased responses of every row, by a truth that is known.

    Args:
        rows: rows of RLAIF-V-Bias with the columns that the truth reads.
        label_by_truth: (row, kind) -> (label, group); see `napo.noise.labels` for their values.
    """
    labels = []
    for row in without_images(rows):
        for kind in BIASED:
            label, group = label_by_truth(row, kind)
            if equals_chosen(row, kind):  # noise by definition: the pair prefers nothing
                label = "unbiased"
            labels.append((row["id"], kind, label, ORACLE, "", group))
    return pd.DataFrame(labels, columns=list(COLUMNS))


def shares(labels: pd.DataFrame) -> pd.DataFrame:
    """The share of noise among the labelled responses of each kind, with its 95 % Wilson interval.

    Questions that need no image are left out; unsure labels are counted separately.

    Returns:
        Index `kind`, `group` ("all" and each group among the labels); columns `labelled`, `noise`,
        `share`, `low`, `high`, `unsure`.
    """
    rows = []
    for kind, group, part in groups(labels):
        noise, unsure = ((part["label"] == name).sum() for name in ("unbiased", "unsure"))
        decided = len(part) - unsure
        low, high = wilson(int(noise), int(decided))
        share = noise / decided if decided else float("nan")
        rows.append((kind, group, len(part), noise, share, low, high, unsure))
    columns = ["kind", "group", "labelled", "noise", "share", "low", "high", "unsure"]
    return pd.DataFrame(rows, columns=columns).set_index(["kind", "group"])


def response_margins(rows: Iterable[Mapping[str, Any]], labels: pd.DataFrame) -> pd.DataFrame:
    """Log-prob margins of the labelled responses under the reference: the data of Fig. 4.

    Args:
        rows: rows of RLAIF-V-Bias joined with the reference's log-probs.
        labels: as `read_labels` returns them.

    Returns:
        Columns `id`, `kind`, `group`, `label`, `equal_to_chosen` (bool), `margin_sum`,
        `margin_mean` (per token of each response); a row for each label, in their order.
    """
    by_id = sampled_rows(without_images(rows), list(labels["id"].unique()))
    margins = []
    for label in labels.to_dict("records"):
        kind = label["kind"]
        values = margins_of(by_id[label["id"]], kind)
        margins.append((label["id"], kind, label["group"], label["label"], *values))
    columns = ["id", "kind", "group", "label", "equal_to_chosen", "margin_sum", "margin_mean"]
    return pd.DataFrame(margins, columns=columns)


def margins_of(row: Mapping[str, Any], kind: str) -> tuple[bool, float, float]:
    """Whether a biased response equals the chosen one, and its margins: summed, per token."""
    if equals_chosen(row, kind):  # rounding must not give a margin to two equal texts
        return True, 0.0, 0.0
    chosen, biased = row["chosen_logp"], row[f"{kind}_logp"]
    per_token = chosen / row["chosen_tokens"] - biased / row[f"{kind}_tokens"]
    return False, chosen - biased, per_token


def without_images(rows: Any) -> Any:
    """A dataset without its image column, whose decoding takes time; lists stay as they are."""
    if "image" in getattr(rows, "column_names", ()):
        return rows.remove_columns("image")
    return rows


def equals_chosen(row: Mapping[str, Any], kind: str) -> bool:
    """Whether a biased response is the chosen response, spaces around it aside."""
    return row[kind].strip() == row["chosen"].strip()
