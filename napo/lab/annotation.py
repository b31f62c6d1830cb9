"""Notebook 02 in one call: the annotator in JupyterLab, or the stored labels in batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napo import stages
from napo.lab.annotator import label
from napo.noise import samples
from napo.stages.session import Session

if TYPE_CHECKING:
    import pandas as pd

NOT_YET = "Label above. Then run notebook 04 with the same annotator: it draws your Fig. 4."


class Annotation:
    """The samples to label, or their labels; a notebook cell shows either.

    Args:
        session: the session.
        annotator: a name, "oracle" (the scenes' truth) or "adjudicated"; empty: the profile's.
        interactive: show the annotator instead of reading stored labels.

    Raises:
        NapoError: without rows; without interactive also when nobody of that name has labelled.
    """

    def __init__(self, session: Session, annotator: str = "", interactive: bool = False) -> None:
        self.widget = label(session, annotator) if interactive else None
        self.labels = None if interactive else stages.annotate(session, annotator)

    def shares(self) -> pd.DataFrame | str:
        """The share of noise by kind and group; a sentence while somebody labels."""
        return NOT_YET if self.labels is None else samples.shares(self.labels).round(3)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget if self.labels is None else self.labels.head())
