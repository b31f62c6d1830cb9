"""The 100 samples: labelled by truth or by people, settled, and their margins (Fig. 4)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from napo.errors import NapoError
from napo.noise.agreement import consensus, people, with_consensus
from napo.noise.labels import (
    ADJUDICATED,
    COLUMNS,
    LABELS,
    ORACLE,
    composed,
    labels_file,
    read_labels,
)
from napo.noise.samples import (
    Label,
    label_with_oracle,
    oracle_labels,
    response_margins,
    sample,
    sampled,
)
from napo.stages.inputs import biased_rows
from napo.stages.session import Session
from napo.workspace.files import finished_files
from napo.workspace.manifests import begin, complete, finish, manifest_fingerprint, require

if TYPE_CHECKING:
    import datasets
_HOW = "in JupyterLab, in notebooks/02_annotate_noise.ipynb with `interactive` set to True"


def annotate(session: Session, annotator: str = "") -> pd.DataFrame:
    """The labels of the 100 samples: by the scenes' truth ("oracle"), or as people wrote them.

    "adjudicated" stands for what holds after several people's disagreements were settled; if the
    profile names nobody either, it is whoever labelled, and that set once there are several. Where
    the truth is known, people's labels too are told apart by what was asked (`group`).

    Raises:
        NapoError: when there are no labels of that name yet, saying how to give them.
    """
    annotator = annotator or session.profile.annotation.annotator or _whoever(session)
    rows, samples, path = to_label(session, annotator)
    if annotator == ORACLE:
        label = _truth(session)
        if label is None:
            raise NapoError(
                f"Profile {session.profile.name} knows no truth to label by; label the samples "
                f"{_HOW} and `annotator` to your name, then give that name here."
            )
        label_with_oracle(rows, samples, label, path)
    elif annotator == ADJUDICATED:
        labels = _settled(path.parent, samples)
    elif not path.is_file():
        raise NapoError(
            f"{path} is missing: {annotator} has labelled nothing yet; label the samples {_HOW}."
        )
    if annotator != ADJUDICATED:
        labels = read_labels(path)
    if not complete(path.parent):
        finish(path.parent, keep_open="*.csv")
    return _grouped(session, rows, labels)


def samples(session: Session) -> tuple[datasets.Dataset, list[str]]:
    """The rows with their images, and the ids of those to label, in the order to label them in."""
    rows, drawn, _ = to_label(session, ORACLE)
    return rows, drawn


def everyones_labels(session: Session) -> pd.DataFrame:
    """The labels of all who labelled, one below the other; of none, an empty frame."""
    return _all_labels(session.workspace.annotations)


def labelled(session: Session) -> pd.DataFrame:
    """Who labelled how many of the sampled responses; "adjudicated": how many are settled.

    Returns:
        Index `annotator`; columns `labelled`, `of`, and how many of them are `biased`, `unbiased`
        and `unsure`.
    """
    from napo.config.variants import BIASED

    labels = with_consensus(everyones_labels(session))
    counts = pd.crosstab(labels["annotator"], labels["label"]).reindex(
        columns=list(LABELS), fill_value=0
    )
    counts.insert(0, "labelled", counts.sum(axis=1))
    counts.insert(1, "of", session.profile.annotation.samples * len(BIASED))
    return counts.rename_axis(columns=None)


def to_label(session: Session, annotator: str) -> tuple[datasets.Dataset, list[str], Path]:
    """The rows, the ids of the samples, and the CSV of an annotator; the folder claimed."""
    folder, settings = session.workspace.annotations, session.profile.annotation
    path = labels_file(folder, annotator)
    rows = biased_rows(session, reference=False)
    made = {
        "rows": manifest_fingerprint(require(session.workspace.rows)),
        **settings.model_dump(include={"samples", "seed"}),
    }
    samples = sample(rows, settings.samples, settings.seed)  # before the folder is claimed
    begin(folder, made)
    return rows, samples, path


def _truth(session: Session) -> Label | None:
    """What labels by the scenes' truth; rows that the world did not make have none."""
    profile = session.profile
    return None if profile.data.source else profile.world.function("label_by_truth")


def _grouped(session: Session, rows: datasets.Dataset, labels: pd.DataFrame) -> pd.DataFrame:
    truth = _truth(session)
    if truth is None or labels.empty:
        return labels
    by_id = sampled(rows.remove_columns("image"), list(labels["id"].unique()))
    asked = zip(labels["id"], labels["kind"], strict=True)
    return labels.assign(group=[truth(by_id[id], kind)[1] for id, kind in asked])


def _all_labels(folder: Path) -> pd.DataFrame:
    found = []
    for path in finished_files(folder, "*.csv"):
        found.append(read_labels(path))
        others = sorted(set(found[-1]["annotator"].map(composed)) - {composed(path.stem)})
        if others:  # a copy, whose labels would count twice
            raise NapoError(
                f"{path} holds labels of {', '.join(others)}; keep each one's labels in a file of "
                "their name, and move copies out of this folder."
            )
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(COLUMNS))


def _whoever(session: Session) -> str:
    """The one person who has labelled; of several, what was adjudicated."""
    biased_rows(session, reference=False)  # without rows there is nothing to label
    names = sorted(set(people(everyones_labels(session))["annotator"]))
    if not names:
        raise NapoError(
            f"Nobody has labelled the samples yet; label them {_HOW} and `annotator` to your "
            "name, then run this again."
        )
    return names[0] if len(names) == 1 else ADJUDICATED


def labels_of_several(folder: Path) -> pd.DataFrame:
    """Everyone's labels, of two people at least."""
    labels = _all_labels(folder)
    names = sorted(set(people(labels)["annotator"]))
    if len(names) < 2:
        who = f"only {names[0]} has" if names else "nobody has"
        raise NapoError(
            f"Adjudication needs the labels of two people, and {who} labelled; label the samples "
            f"{_HOW} and `annotator` to each one's name."
        )
    return labels


def _settled(folder: Path, samples: list[str]) -> pd.DataFrame:
    """What holds of several people's labels, in the order of the samples."""
    labels = labels_of_several(folder)
    found = consensus(labels)
    asked = people(labels)[["id", "kind"]].drop_duplicates()
    left = len(asked) - len(found)
    if left:
        raise NapoError(
            f"{left} {'responses are' if left > 1 else 'response is'} still disputed; adjudicate "
            f'{_HOW} and `annotator` to "{ADJUDICATED}".'
        )
    place = {id: at for at, id in enumerate(samples)}
    return found.sort_values("id", key=lambda ids: ids.map(place), kind="stable").reset_index(
        drop=True
    )


def margins(session: Session, annotator: str = "") -> pd.DataFrame:
    """Fig. 4's data: each labelled response's log-prob margins under the reference.

    Raises:
        NapoError: as `annotate`.
    """
    return response_margins(biased_rows(session), annotate(session, annotator))


def all_margins(session: Session) -> pd.DataFrame | None:
    """The same for every row, labelled by truth; None where no truth is known."""
    label = _truth(session)
    if label is None:
        return None
    rows = biased_rows(session)
    return response_margins(rows, oracle_labels(rows, label))
