"""The 100 samples: labelled by truth or by a person, and their margins (Fig. 4)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napo.errors import NapoError
from napo.notebook import Session
from napo.stages.inputs import biased_rows
from napo.workspace import begin, complete, finish, manifest_fingerprint, require

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from napo.annotator import Annotator


def annotate(session: Session, annotator: str = "") -> pd.DataFrame:
    """The labels of the 100 samples: by the scenes' truth ("oracle"), or as a person wrote them."""
    from napo import noise

    annotator = annotator or session.profile.annotation.annotator
    rows, samples, path = _to_label(session, annotator)
    if annotator == "oracle":
        label = session.profile.world.function("label_by_truth")
        if label is None:
            raise NapoError(
                f"Profile {session.profile.name} knows no truth to label by; open "
                "notebooks/02_annotate_noise.ipynb in JupyterLab, set `annotator` to your name and "
                "`interactive` to True, and label the samples."
            )
        noise.label_with_oracle(rows, samples, label, path)
    labels = noise.read_labels(path)
    if not complete(path.parent):
        finish(path.parent, keep_open="*.csv")
    return labels


def annotator(session: Session, name: str) -> Annotator:
    """The widget in which a person labels the samples, each label at once in their CSV.

    Raises:
        NapoError: without a name, or with the name that stands for the scenes' truth.
    """
    from napo.annotator import Annotator

    if name in ("", "oracle"):
        raise NapoError("Set `annotator` to your name, so that your labels are told from others'.")
    return Annotator(*_to_label(session, name), name)


def _to_label(session: Session, annotator: str) -> tuple[datasets.Dataset, list[str], Path]:
    """The rows, the ids of the samples, and the CSV of an annotator; the folder claimed."""
    from napo import noise

    folder, settings = session.workspace.annotations, session.profile.annotation
    rows = biased_rows(session, reference=False)
    made = {
        "rows": manifest_fingerprint(require(session.workspace.rows)),
        **settings.model_dump(include={"samples", "seed"}),
    }
    begin(folder, made)
    samples = noise.sample(rows, settings.samples, settings.seed)
    return rows, samples, folder / f"{annotator}.csv"


def margins(session: Session, annotator: str = "") -> pd.DataFrame:
    """Fig. 4's data: each labelled response's log-prob margins under the reference."""
    from napo import noise

    annotator = annotator or session.profile.annotation.annotator
    path = session.workspace.annotations / f"{annotator}.csv"
    require(session.workspace.annotations)
    return noise.margins(biased_rows(session), noise.read_labels(path))


def all_margins(session: Session) -> pd.DataFrame | None:
    """The same for every row, labelled by truth; None where no truth is known."""
    from napo import noise

    label = session.profile.world.function("label_by_truth")
    if label is None:
        return None
    rows = biased_rows(session)
    return noise.margins(rows, noise.oracle_labels(rows, label))
