"""Training rows with each pair's probability of noise, from the labels of the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from napo.config.variants import VARIANTS
from napo.noise import posterior
from napo.noise.agreement import consensus
from napo.noise.labels import ADJUDICATED, labels_file, read_labels
from napo.noise.samples import response_margins
from napo.stages.inputs import biased_rows
from napo.stages.labels import annotator_of, everyones_labels
from napo.stages.session import Session
from napo.workspace.files import fingerprint
from napo.workspace.manifests import require

if TYPE_CHECKING:
    import datasets


def needs_labels(variant: str) -> bool:
    """Whether a variant's q comes from the labels of the samples."""
    return VARIANTS[variant].q_rule == "posterior"


def training_labels(session: Session) -> pd.DataFrame:
    """The labels by the profile's annotator, as notebook 02 left them; nothing is written.

    Raises:
        NapoError: if there are none yet, naming the notebook.
    """
    folder = session.workspace.annotations
    require(folder)
    annotator = annotator_of(session)
    if annotator == ADJUDICATED:
        return consensus(everyones_labels(session))
    return read_labels(labels_file(folder, annotator))


def labels_fingerprint(session: Session) -> str:
    """A hash of what the labels say; other notes or another order change nothing.

    Raises:
        NapoError: as `training_labels`.
    """
    labels = training_labels(session)[["id", "kind", "label"]]
    return fingerprint(sorted(labels.to_numpy().tolist()))


def rows_with_noise(session: Session) -> datasets.Dataset:
    """RLAIF-V-Bias with log-probs and the columns `<response>_noise`, which q is taken from.

    Raises:
        NapoError: as `training_labels`, or if a kind of response has no label.
    """
    rows = biased_rows(session)
    fitted = posterior.fit(response_margins(rows, training_labels(session)))
    for name, values in posterior.noise_columns(rows, fitted).items():
        rows = rows.add_column(name, values)
    return rows
