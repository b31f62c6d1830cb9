"""Explorers: one call in a notebook cell, widgets in JupyterLab, a static picture elsewhere.

Each reads finished files and writes none. Every explorer is a `napo.lab.live.Explorer`: what
it shows without a kernel (exported HTML, GitHub) is in the saved notebook, and gives way to the
widgets once a front end answers.
"""

from napo.lab.annotator import adjudicate, label
from napo.lab.answers import answers
from napo.lab.html import gallery
from napo.lab.loss import loss
from napo.lab.margins import Bar, bars, margins, rows_per_bin
from napo.lab.masks import masks
from napo.lab.rows import rows
from napo.lab.training import training

__all__ = [
    "Bar", "adjudicate", "answers", "bars", "gallery", "label", "loss", "margins", "masks", "rows",
    "rows_per_bin", "training",
]  # fmt: skip
