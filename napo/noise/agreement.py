"""Several annotators: agreement, disagreements, and the consensus after adjudication.

"unsure" is no judgement: it counts as missing wherever annotators are compared.
"""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from napo.config.variants import BIASED
from napo.noise.labels import ADJUDICATED, COLUMNS, RESERVED

_ITEM = ["id", "kind"]


def agreements(labels: pd.DataFrame) -> pd.DataFrame:
    """Agreement of every pair of annotators, then of all people together, by kind.

    The adjudicated set rests on people's labels, so it is compared with the scenes' truth alone.

    Returns:
        Index `between`, `kind` ("all" last); columns of `agreement`.
    """
    labels = with_consensus(labels)
    names, everyone = (sorted(set(part["annotator"])) for part in (labels, people(labels)))
    pairs = [pair for pair in combinations(names, 2) if ADJUDICATED not in pair or pair == RESERVED]
    groups = {", ".join(pair): pair for pair in pairs}
    if len(everyone) > 2:
        groups[f"all {len(everyone)} people"] = tuple(everyone)
    rows = {}
    for between, annotators in groups.items():
        part = labels[labels["annotator"].isin(annotators)]
        for kind in BIASED:
            rows[between, kind] = agreement(part[part["kind"] == kind])
        rows[between, "all"] = agreement(part)
    index = pd.MultiIndex.from_tuples(list(rows), names=["between", "kind"])
    columns = ["n", "agreed", "kappa", "alpha", "unsure"]
    return pd.DataFrame(list(rows.values()), index, columns)


def agreement(labels: pd.DataFrame) -> dict[str, float]:
    """How far the annotators of these labels agree.

    Returns:
        `n` (items that at least two decided), `agreed` (share of them with one label), `kappa`
        (Cohen's; missing unless two annotators used two labels), `alpha` (Krippendorff's),
        `unsure` (items of at least two annotators on which somebody is unsure).
    """
    from sklearn.metrics import cohen_kappa_score

    several = labels[labels.duplicated(_ITEM, keep=False)]
    unsure = several.loc[several["label"] == "unsure", _ITEM].drop_duplicates()
    decided = labels[labels["label"] != "unsure"].pivot(
        index=_ITEM, columns="annotator", values="label"
    )
    decided = decided[decided.notna().sum(axis=1) > 1]
    columns = decided.T.to_numpy()
    varied = len(columns) == 2 and len(set(columns.flat)) > 1
    return {
        "n": len(decided),
        "agreed": float((decided.nunique(axis=1) == 1).mean()),
        "kappa": float(cohen_kappa_score(*columns)) if varied else float("nan"),
        "alpha": krippendorffs_alpha(labels),
        "unsure": len(unsure),
    }


def krippendorffs_alpha(labels: pd.DataFrame) -> float:
    """Krippendorff's alpha for nominal labels: 1 - observed / expected disagreement.

    For any number of annotators, who need not have judged the same items: 1 is perfect agreement,
    0 is chance; NaN when no item was judged twice, or only one label was ever used. Source: K.
    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C.
    """
    judged = labels[labels["label"] != "unsure"]
    counts = judged.groupby([*_ITEM, "label"]).size().unstack(fill_value=0).to_numpy(float)
    counts = counts[counts.sum(axis=1) > 1]  # an item with one label is left out
    if not len(counts):
        return float("nan")
    judges = counts.sum(axis=1)
    # Each item's ordered pairs of judgements, weighted so that every judgement counts once.
    observed = (judges**2 - (counts**2).sum(axis=1)) / (judges - 1)
    used, total = counts.sum(axis=0), counts.sum()
    expected = (total**2 - (used**2).sum()) / (total - 1)
    return float(1 - observed.sum() / expected) if expected else float("nan")


def people(labels: pd.DataFrame) -> pd.DataFrame:
    """The labels that people gave: neither the scenes' truth nor adjudicated ones."""
    return labels[~labels["annotator"].isin(RESERVED)]


def disagreements(labels: pd.DataFrame) -> pd.DataFrame:
    """Items that people label differently, "unsure" aside, with the label and note of each.

    Returns:
        Columns `id`, `kind`, `said` ("ann: biased (the cat is grey); ben: unbiased"), in the order
        in which the items first occur.
    """
    rows = []
    for item, part in people(labels).groupby(_ITEM, sort=False):
        if part.loc[part["label"] != "unsure", "label"].nunique() > 1:
            said = [
                f"{row.annotator}: {row.label}" + (f" ({row.note})" if row.note else "")
                for row in part.sort_values("annotator").itertuples()
            ]
            rows.append((*item, "; ".join(said)))
    return pd.DataFrame(rows, columns=["id", "kind", "said"])


def consensus(labels: pd.DataFrame) -> pd.DataFrame:
    """One label for each item: the label that people share, else the adjudicated one.

    "Unsure" is ignored if someone else decided; one label is enough. An item is unsure when nobody
    decided, or when it was adjudicated so. A disputed item without a decision is left out. A
    decision counts only while its item is disputed.

    Returns:
        Labels of the annotator "adjudicated", in the order in which the items first occur; the note
        of an item that needed no decision names the people who agree.
    """
    decisions = labels[labels["annotator"] == ADJUDICATED].set_index(_ITEM)
    rows = []
    for item, part in people(labels).groupby(_ITEM, sort=False):
        decided = part[part["label"] != "unsure"]
        votes = decided if len(decided) else part
        if votes["label"].nunique() == 1:
            note = "agreed by " if len(votes) > 1 else "only by "
            note += ", ".join(sorted(votes["annotator"]))
            rows.append((*item, votes["label"].iloc[0], ADJUDICATED, note, ""))
        elif item in decisions.index:
            decision = decisions.loc[item]
            rows.append((*item, decision["label"], ADJUDICATED, decision["note"], ""))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def with_consensus(labels: pd.DataFrame) -> pd.DataFrame:
    """The same labels; if there are adjudicated ones, the consensus takes their place."""
    adjudicated = labels["annotator"] == ADJUDICATED
    if not adjudicated.any():
        return labels
    return pd.concat([labels[~adjudicated], consensus(labels)], ignore_index=True)
