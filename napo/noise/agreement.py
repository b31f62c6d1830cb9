"""Several annotators: how far they agree, where they do not, and what holds in the end.

"unsure" is no judgement: it counts as missing wherever two annotators are compared.
"""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from napo.config.variants import BIASED
from napo.noise.labels import ADJUDICATED, COLUMNS, ORACLE

_ITEM = ["id", "kind"]


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """How far two annotators agree, by kind and together.

    Args:
        first: labels of one annotator, as `read_labels` gives them.
        second: labels of another.

    Returns:
        Columns `kind` ("all" last), `n` (judged by both, neither unsure), `agreed` (share), `kappa`
        (Cohen's; missing when neither used more than one label), `unsure` (left out).
    """
    from sklearn.metrics import cohen_kappa_score

    both = first.merge(second, on=_ITEM, suffixes=("_first", "_second"))
    found = []
    for kind in (*BIASED, "all"):
        part = _of_kind(both, kind)
        unsure = (part[["label_first", "label_second"]] == "unsure").any(axis=1)
        a, b = part.loc[~unsure, "label_first"], part.loc[~unsure, "label_second"]
        varied = len(set(a) | set(b)) > 1
        found.append(
            {
                "kind": kind,
                "n": len(a),
                "agreed": float((a == b).mean()) if len(a) else float("nan"),
                "kappa": float(cohen_kappa_score(a, b)) if varied else float("nan"),
                "unsure": int(unsure.sum()),
            }
        )
    return pd.DataFrame(found)


def krippendorffs_alpha(labels: pd.DataFrame) -> float:
    """Krippendorff's alpha for nominal labels: 1 - observed / expected disagreement.

    Any number of annotators, who need not have judged the same items: 1 is perfect agreement, 0
    what chance gives. For two it is close to Cohen's kappa, which lets each have shares of their
    own. Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C.

    Args:
        labels: of several annotators, as `read_labels` gives them; unsure ones are missing values.

    Returns:
        Alpha; NaN when no item was judged twice, or only one label was ever used.
    """
    judged = labels[labels["label"] != "unsure"]
    counts = judged.groupby([*_ITEM, "label"]).size().unstack(fill_value=0).to_numpy(float)
    counts = counts[counts.sum(axis=1) > 1]  # an item that one person judged pairs with nothing
    if not len(counts):
        return float("nan")
    judges = counts.sum(axis=1)
    # Each item's ordered pairs of judgements, weighted so that every judgement counts once.
    differing = (judges**2 - (counts**2).sum(axis=1)) / (judges - 1)
    used, total = counts.sum(axis=0), counts.sum()
    by_chance = (total**2 - (used**2).sum()) / (total - 1)
    return float(1 - differing.sum() / by_chance) if by_chance else float("nan")


def agreements(labels: pd.DataFrame) -> pd.DataFrame:
    """Every pair of annotators, then all people together, by kind.

    What holds after adjudication rests on people's labels, so it is compared with the scenes' truth
    alone.

    Args:
        labels: of several annotators, as `read_labels` gives them.

    Returns:
        Index `between`, `kind` ("all" last); columns `n` (items judged by both, or by more than one
        person), `agreed` (share of them with one label), `kappa` (Cohen's; missing for more than
        two), `alpha` (Krippendorff's), `unsure` (items left out of a pair; of all, unsure labels).
    """
    labels = with_consensus(labels)
    of = {name: part for name, part in labels.groupby("annotator", sort=True)}
    found = []
    for one, other in combinations(of, 2):
        if ADJUDICATED in (one, other) and ORACLE not in (one, other):
            continue
        both = pd.concat([of[one], of[other]])
        for row in agreement(of[one], of[other]).to_dict("records"):
            alpha = krippendorffs_alpha(_of_kind(both, row["kind"]))
            found.append({"between": f"{one}, {other}", **row, "alpha": alpha})
    everyone = people(labels)
    if everyone["annotator"].nunique() > 2:
        found += [_together(_of_kind(everyone, kind), kind) for kind in (*BIASED, "all")]
    columns = ["between", "kind", "n", "agreed", "kappa", "alpha", "unsure"]
    return pd.DataFrame(found, columns=columns).set_index(["between", "kind"])


def people(labels: pd.DataFrame) -> pd.DataFrame:
    """The labels that people gave: neither the scenes' truth nor what was adjudicated."""
    return labels[~labels["annotator"].isin([ORACLE, ADJUDICATED])]


def disagreements(labels: pd.DataFrame) -> pd.DataFrame:
    """Items that people who decided label differently, and who said what.

    Args:
        labels: of several annotators, as `read_labels` gives them; truth and adjudicated labels
            among them are ignored.

    Returns:
        Columns `id`, `kind`, `said` ("ann: biased (the cat is grey); ben: unbiased"), in the order
        in which the items first occur.
    """
    found = []
    for (id, kind), part in people(labels).groupby(_ITEM, sort=False):
        if part.loc[part["label"] != "unsure", "label"].nunique() > 1:
            said = [_said(row) for row in part.sort_values("annotator").to_dict("records")]
            found.append((id, kind, "; ".join(said)))
    return pd.DataFrame(found, columns=["id", "kind", "said"])


def consensus(labels: pd.DataFrame) -> pd.DataFrame:
    """One label for each item: what all who decided say, else what was adjudicated.

    Whoever is unsure leaves it to the others, an adjudicated "unsure" stands, and one person's word
    is enough. An item is unsure when nobody decided, and left out while it is disputed. A decision
    on what is not disputed at the time rests: people's own word goes first.

    Args:
        labels: of several annotators, decisions of "adjudicated" among them if there are any.

    Returns:
        Labels of the annotator "adjudicated", in the order in which the items first occur; the note
        of one that needed no adjudication says who agreed.
    """
    decisions = labels[labels["annotator"] == ADJUDICATED].set_index(_ITEM)
    found = []
    for item, part in people(labels).groupby(_ITEM, sort=False):
        decided = part[part["label"] != "unsure"]
        who = decided if len(decided) else part
        if who["label"].nunique() == 1:
            note = ("agreed by " if len(who) > 1 else "only by ") + ", ".join(
                sorted(who["annotator"])
            )
            found.append((*item, who["label"].iloc[0], ADJUDICATED, note, ""))
        elif item in decisions.index:
            row = decisions.loc[item]
            found.append((*item, row["label"], ADJUDICATED, row["note"], ""))
    return pd.DataFrame(found, columns=list(COLUMNS))


def with_consensus(labels: pd.DataFrame) -> pd.DataFrame:
    """The same labels, an adjudicator's decisions replaced by the set that they complete."""
    adjudicated = labels["annotator"] == ADJUDICATED
    if not adjudicated.any():
        return labels
    return pd.concat([labels[~adjudicated], consensus(labels)], ignore_index=True)


def _of_kind(labels: pd.DataFrame, kind: str) -> pd.DataFrame:
    return labels if kind == "all" else labels[labels["kind"] == kind]


def _together(labels: pd.DataFrame, kind: str) -> dict[str, object]:
    judged = labels[labels["label"] != "unsure"].groupby(_ITEM)["label"]
    several = judged.nunique()[judged.size() > 1]
    return {
        "between": f"all {labels['annotator'].nunique()} people",
        "kind": kind,
        "n": len(several),
        "agreed": float((several == 1).mean()) if len(several) else float("nan"),
        "kappa": float("nan"),
        "alpha": krippendorffs_alpha(labels),
        "unsure": int((labels["label"] == "unsure").sum()),
    }


def _said(row: dict[str, str]) -> str:
    note = f" ({row['note']})" if row["note"] else ""
    return f"{row['annotator']}: {row['label']}{note}"
