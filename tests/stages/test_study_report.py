"""The noise study in the report: read from its sealed summary, and part of what the report is."""

import pandas as pd
import pytest

from napo.config.profile import load_profile
from napo.stages.session import Session
from napo.stages.study_report import (
    MISSING,
    study_captions,
    study_fingerprint,
    study_folder,
    study_section,
)
from napo.workspace.files import write_json, write_text
from napo.workspace.folders import Workspace
from napo.workspace.manifests import begin, finish

CELLS = {"cells": {"long/flip-0.4/dpo/seed-0": "abc"}, "grid": "default", "seeds": "0"}
ROWS = [
    ("flip", 0.0, "napo", "accuracy", "not decided", 0.5, -1.0, 2.0),
    ("unbiased", 0.0, "napo", "accuracy", "not decided", 0.5, -1.0, 2.0),  # the same cells
    ("flip", 0.4, "dpo", "accuracy", "", None, None, None),
    ("flip", 0.4, "napo", "accuracy", "better", 2.0, 1.0, 3.0),
    ("flip", 0.4, "ipo", "accuracy", "worse", -4.0, -6.0, -2.0),
    ("flip", 0.4, "ipo", "LP", "better", 1.0, 0.5, 1.5),
]
NAMES = ["kind", "rate", "loss", "metric", "verdict", "difference"]
NAMES += ["difference_low", "difference_high"]


@pytest.fixture
def session(tmp_path):
    return Session(load_profile("smoke"), Workspace(tmp_path, "smoke"))


@pytest.fixture
def summary(session):
    """The folder of a summary of two losses."""
    folder = study_folder(session)
    frame = pd.DataFrame(ROWS, columns=NAMES)
    begin(folder, CELLS)
    write_text(folder / "summary.csv", frame.assign(budget="long").to_csv(index=False))
    write_text(folder / "sentences.md", "- NaPO is better.\n- IPO is worse.\n")
    finish(folder)
    return folder


def test_a_study_that_has_not_run_is_one_sentence(session):
    assert study_section(session).text == [MISSING] and study_captions(session) == {}
    assert study_fingerprint(session) == ""


def test_the_section_counts_verdicts_and_folds_all_sentences(session, summary):
    section = study_section(session)
    assert section.text[:2] == [
        "Accuracy on clean held-out pairs, each loss against DPO: without noise 1 not decided; "
        "with noise 1 better, 1 worse.",
        "NaPO with q by Eq. 12 against DPO, in points: without noise (long) not decided, "
        "+0.5 [−1.0, +2.0]; at 40 % flips (long) better, +2.0 [+1.0, +3.0].",
    ]
    assert section.folded == {"In words: 2 sentences": ["NaPO is better.", "IPO is worse."]}


def test_the_report_depends_on_the_summary(session, summary):
    before = study_fingerprint(session)
    begin(summary, CELLS)
    write_text(summary / "sentences.md", "- other\n")
    finish(summary)
    assert before and study_fingerprint(session) not in ("", before)


def test_a_summary_that_was_edited_by_hand_is_not_shown_and_named(session, summary):
    (summary / "sentences.md").write_text("- NaPO wins.\n")
    section = study_section(session)
    (text,) = section.text
    assert text.startswith("The study is not shown: ") and "sentences.md" in text
    assert "run make study again" in text and not section.folded


def test_a_figure_of_other_cells_is_not_shown(session, summary):
    record = session.workspace.figures / "study-accuracy.provenance.json"
    write_json(record, {"files": {}, "inputs": CELLS})
    assert list(study_captions(session)) == ["study-accuracy"]
    write_json(record, {"files": {}, "inputs": {**CELLS, "cells": {}}})
    assert study_captions(session) == {}
