"""The 100-sample set of Section 3.2: draw it, label it, and ask whether margins tell noise apart.

A biased response is a good negative ("biased", noise-free) or not bad at all ("unbiased", noise).
Margins are plain log-prob margins under the reference, log pi(y_w|x) - log pi(y_b|x), as Fig. 4
draws them before training, when the reward margin of Eq. 2 is still zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.noise.labels import (
    COLUMNS,
    ORACLE,
    read_labels,
    write_labels,
)
from napo.noise.separation import (
    LEFT_OUT,
    wilson,
)

Label: TypeAlias = Callable[[Mapping[str, Any], str], tuple[str, str]]


def sample(rows: Iterable[Mapping[str, Any]], count: int = 100, seed: int = 0) -> list[str]:
    """Ids of the rows to annotate, drawn at random without replacement (§3.2: 100).

    The draw depends on the set of ids and the seed, not on the order of the rows. The ids come in
    the order to label them in, so that an unfinished annotation is itself a random sample.

    Raises:
        NapoError: when there are fewer rows than wanted.
    """
    ids = sorted(_plain(rows, "id"))
    if count > len(ids):
        raise NapoError(f"{count} samples are wanted of {len(ids)} rows; set annotation.samples.")
    drawn = np.random.default_rng(seed).choice(len(ids), size=count, replace=False)
    return [ids[at] for at in drawn]


def sampled(rows: Any, samples: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The sampled rows by id; of a dataset only their images are decoded.

    Raises:
        NapoError: when a sample is not among the rows, or there are none.
    """
    if hasattr(rows, "select"):
        wanted = set(samples)
        rows = rows.select([at for at, id in enumerate(rows["id"]) if id in wanted])
    found = {row["id"]: row for row in rows}
    lost = [id for id in samples if id not in found]
    if lost or not samples:
        raise NapoError(
            f"{len(lost)} samples are not among the rows ({', '.join(lost[:5])}); draw them again."
            if lost
            else "There are no samples to label; set annotation.samples."
        )
    return {id: found[id] for id in samples}


def oracle_labels(rows: Iterable[Mapping[str, Any]], label_by_truth: Label) -> pd.DataFrame:
    """Labels of both biased responses of every row, by a truth that is known.

    Args:
        rows: rows of RLAIF-V-Bias with what the truth needs.
        label_by_truth: (row, kind) -> (label, group); see `napo.noise.labels` for their values.

    Returns:
        The columns of the labels CSV, annotator "oracle".
    """
    found = []
    for row in _without_images(rows):
        for kind in BIASED:
            label, group = label_by_truth(row, kind)
            if _equal(row, kind):  # by definition noise: the pair prefers nothing
                label = "unbiased"
            found.append((row["id"], kind, label, ORACLE, "", group))
    return pd.DataFrame(found, columns=list(COLUMNS))


def label_with_oracle(
    rows: Iterable[Mapping[str, Any]],
    samples: Sequence[str],
    label_by_truth: Label,
    path: Path,
) -> pd.DataFrame:
    """Label the sampled rows by truth and write the CSV that a person's labels go to.

    Args:
        rows: rows of RLAIF-V-Bias.
        samples: ids that `sample` drew.
        label_by_truth: (row, kind) -> (label, group).
        path: the labels CSV.
    """
    wanted = {id: at for at, id in enumerate(samples)}
    chosen = [row for row in _without_images(rows) if row["id"] in wanted]
    chosen.sort(key=lambda row: wanted[row["id"]])
    labels = oracle_labels(chosen, label_by_truth)
    there = read_labels(path).to_dict("records") if path.is_file() else None
    if there != labels.to_dict("records"):  # otherwise to look would write
        write_labels(path, labels)
    return labels


def shares(labels: pd.DataFrame) -> pd.DataFrame:
    """The share of noise among the labelled responses of each kind, with its 95 % Wilson interval.

    Questions that need no image are left out; unsure labels are counted apart.

    Args:
        labels: as `read_labels` gives them.

    Returns:
        Index `kind`, `group` ("all" and each group that is there); columns `labelled`, `noise`,
        `share`, `low`, `high`, `unsure`.
    """
    useful = labels[labels["group"] != LEFT_OUT]
    found = []
    for kind in BIASED:
        of_kind = useful[useful["kind"] == kind]
        groups = {name: part for name, part in of_kind.groupby("group") if name}
        for group, part in {"all": of_kind, **groups}.items():
            noise, unsure = ((part["label"] == name).sum() for name in ("unbiased", "unsure"))
            decided = len(part) - unsure
            low, high = wilson(int(noise), int(decided))
            share = noise / decided if decided else float("nan")
            found.append((kind, group, len(part), noise, share, low, high, unsure))
    columns = ["kind", "group", "labelled", "noise", "share", "low", "high", "unsure"]
    return pd.DataFrame(found, columns=columns).set_index(["kind", "group"])


def response_margins(rows: Iterable[Mapping[str, Any]], labels: pd.DataFrame) -> pd.DataFrame:
    """Log-prob margins of the labelled responses under the reference: the data of Fig. 4.

    Args:
        rows: rows of RLAIF-V-Bias joined with the reference's `<response>_logp` and
            `<response>_tokens`.
        labels: as `read_labels` gives them.

    Returns:
        Columns `id`, `kind`, `group`, `label`, `equal_to_chosen` (bool), `margin_sum`,
        `margin_mean` (per token of each response); a row for each label, in their order.

    Raises:
        NapoError: when a labelled row is not among the rows, or has no reference log-probs.
    """
    wanted = set(labels["id"])
    by_id = {row["id"]: row for row in _without_images(rows) if row["id"] in wanted}
    lost = sorted(wanted - set(by_id))
    if lost:
        raise NapoError(
            f"{len(lost)} labelled rows are not in the data ({', '.join(lost[:5])}"
            f"{' ...' * (len(lost) > 5)}); the labels belong to other rows."
        )
    found = []
    for label in labels.to_dict("records"):
        row, kind = by_id[label["id"]], label["kind"]
        equal = _equal(row, kind)
        found.append(
            {
                "id": label["id"],
                "kind": kind,
                "group": label.get("group", ""),
                "label": label["label"],
                "equal_to_chosen": equal,
                # Rounding must not order what is the same text.
                "margin_sum": 0.0 if equal else _margin(row, kind, mean=False),
                "margin_mean": 0.0 if equal else _margin(row, kind, mean=True),
            }
        )
    columns = ["id", "kind", "group", "label", "equal_to_chosen", "margin_sum", "margin_mean"]
    return pd.DataFrame(found, columns=columns)


def _plain(rows: Any, column: str) -> list[str]:
    """One column, without touching the images."""
    if hasattr(rows, "column_names"):
        return list(rows[column])
    return [row[column] for row in rows]


def _without_images(rows: Any) -> Iterable[Mapping[str, Any]]:
    """The rows; a dataset without its image column, whose decoding would take most of the time."""
    if "image" in (getattr(rows, "column_names", None) or []):
        return rows.remove_columns("image")
    return rows


def _equal(row: Mapping[str, Any], kind: str) -> bool:
    return row[kind].strip() == row["chosen"].strip()


def _margin(row: Mapping[str, Any], kind: str, mean: bool) -> float:
    try:
        return _score(row, "chosen", mean) - _score(row, kind, mean)
    except KeyError as error:
        raise NapoError(
            f"Row {row['id']} has no {error.args[0]}; run notebooks/01_build_biased_data.ipynb, "
            "which scores the rows by the reference."
        ) from None


def _score(row: Mapping[str, Any], response: str, mean: bool) -> float:
    return row[f"{response}_logp"] / (row[f"{response}_tokens"] if mean else 1)
