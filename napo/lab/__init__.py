"""Explorers: one call in a notebook cell, widgets in JupyterLab, a static picture elsewhere.

Each reads finished files and writes none. Every explorer is a `napo.lab.live.Explorer`: what
it shows without a kernel (exported HTML, GitHub) is in the saved notebook, and gives way to the
widgets once a front end answers.
"""

from napo.lab.annotation import Annotation as annotation
from napo.lab.annotator import adjudicate, label
from napo.lab.answers import Answers as answers
from napo.lab.html import gallery
from napo.lab.loss import Loss as loss
from napo.lab.margins import Margins as margins
from napo.lab.masks import Masks as masks
from napo.lab.rows import rows
from napo.lab.scored import scored
from napo.lab.training import Training as training

__all__ = [
    "adjudicate", "annotation", "answers", "gallery", "label", "loss", "margins", "masks",
    "rows", "scored", "training",
]  # fmt: skip
