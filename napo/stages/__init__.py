"""The stages: each ties one profile and workspace to the modules that do the work.

A notebook calls one or two of these. Each stage claims its folder, skips what is already there,
and seals the folder with a manifest when it is complete (see `napo.workspace.manifests`).
"""

from napo.stages.build import answer_prompts, build_rows, score_reference
from napo.stages.inputs import (
    base_model,
    benchmarks_folder,
    biased_rows,
    reference_folder,
    source_folder,
)
from napo.stages.labels import (
    all_margins,
    annotate,
    everyones_labels,
    labelled,
    margins,
    samples,
    usable_labels,
)
from napo.stages.report import all_results, write_report
from napo.stages.runs import evaluate, evaluate_all, records, requests, train
from napo.stages.saving import save
from napo.stages.step import recorded_step
from napo.stages.study import make_pairs
from napo.stages.study_results import save_study_figures, study_results, write_summary
from napo.stages.world import make_benchmarks, make_rows, pretrain

__all__ = [
    "all_margins",
    "all_results",
    "annotate",
    "answer_prompts",
    "base_model",
    "benchmarks_folder",
    "biased_rows",
    "build_rows",
    "evaluate",
    "evaluate_all",
    "everyones_labels",
    "labelled",
    "make_benchmarks",
    "make_pairs",
    "make_rows",
    "margins",
    "pretrain",
    "recorded_step",
    "records",
    "reference_folder",
    "requests",
    "samples",
    "save",
    "save_study_figures",
    "score_reference",
    "source_folder",
    "study_results",
    "train",
    "usable_labels",
    "write_report",
    "write_summary",
]
