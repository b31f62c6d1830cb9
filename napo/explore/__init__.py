"""Explorers: one call in a notebook cell, widgets in JupyterLab, a static picture elsewhere.

Each reads finished files and writes none. Every explorer is a `napo.explore.live.Explorer`: what
it shows without a kernel (exported HTML, GitHub) is in the saved notebook, and gives way to the
widgets once a front end answers.
"""

from napo.explore.answers import answers
from napo.explore.loss import loss
from napo.explore.margins import Bar, bars, margins, rows_per_bin
from napo.explore.masks import masks
from napo.explore.rows import rows
from napo.explore.training import training

__all__ = [
    "Bar", "answers", "bars", "loss", "margins", "masks", "rows", "rows_per_bin", "training",
]  # fmt: skip
