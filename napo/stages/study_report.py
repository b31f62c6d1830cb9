"""The noise study's part of the report, from its sealed summary and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napo.config.profile import study_edition
from napo.config.study import FIGURES
from napo.errors import NapoError
from napo.stages.session import Session
from napo.workspace import provenance
from napo.workspace.files import read_text
from napo.workspace.manifests import complete, differences, read_settings, require, sealed

if TYPE_CHECKING:
    import pandas as pd

    from napo.results.report import Section

TITLES = (
    ("The noise study: accuracy", "Held-out accuracy of each loss by the rate of noise, with 95 % "
     "intervals over rows and seeds."),
    ("The noise study: differences to DPO", "On the same rows and seeds, with 95 % intervals; "
     "filled where the interval excludes 0."),
    ("The noise study: memorised noise", "The share of the noisy pairs that the model prefers as "
     "they were trained, over a run."),
)  # fmt: skip
MISSING = "The study has not run; `make study` runs it."


def study_folder(session: Session) -> Path:
    """The folder of the summary of the profile's own grid and seeds."""
    return session.workspace.study / study_edition(session.profile, "summary")


def study_fingerprint(session: Session) -> str:
    """The fingerprint of the summary; empty if there is none."""
    folder = study_folder(session)
    return sealed(folder) if complete(folder) else ""


def study_captions(session: Session) -> dict[str, tuple[str, str]]:
    """The saved figures that belong to the summary: file name -> title, caption."""
    folder, names = study_folder(session), {}
    if not complete(folder):
        return {}
    made_from = read_settings(folder)
    for name, words in zip(FIGURES, TITLES, strict=True):
        name = study_edition(session.profile, name)
        record = session.workspace.figures / f"{name}.{provenance.FILE}"
        inputs = provenance.figure_record(record).get("inputs")
        if inputs and not differences(inputs, made_from):
            names[name] = words
    return names


def study_section(session: Session) -> Section:
    """The study's verdicts in numbers, its figures, and all its sentences, folded.

    A sentence if it has not run, or a file of the summary was changed.
    """
    import pandas as pd

    from napo.results.report import Picture, Section

    folder, question = study_folder(session), "Which loss survives label noise?"
    if not complete(folder):
        return Section(question, [MISSING])
    try:
        require(folder)
    except NapoError as error:  # the tables do not depend on it
        return Section(question, [f"The study is not shown: {error}"])
    lines = read_text(folder / "sentences.md").splitlines()
    points = [line.removeprefix("- ") for line in lines if line]
    pictures = [
        Picture(title, path, caption)
        for name, (title, caption) in study_captions(session).items()
        if (path := session.workspace.figures / f"{name}.svg").is_file()
    ]
    texts = verdicts_in_words(pd.read_csv(folder / "summary.csv").fillna({"verdict": ""}))
    if not pictures:
        texts.append("Its figures were not drawn from this summary; run notebook 08 again.")
    return Section(question, texts, pictures, folded={f"In words: {len(points)} sentences": points})


def verdicts_in_words(summary: pd.DataFrame) -> list[str]:
    """Accuracy on clean held-out pairs: how often losses beat DPO, and NaPO's differences to it."""
    from napo.results.collect import signed
    from napo.results.verdicts import VERDICTS, noise_in_words

    rows = summary[(summary["metric"] == "accuracy") & (summary["verdict"] != "")]
    # Without noise all kinds are the same cells.
    rows = rows[(rows["rate"] > 0) | ~rows.duplicated(["budget", "rate", "loss"])]
    if rows.empty:
        return ["No loss was compared with DPO."]
    parts = []
    for words, part in ("without noise", rows["rate"] == 0), ("with noise", rows["rate"] > 0):
        counts = rows.loc[part, "verdict"].value_counts()
        listed = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
        if listed:
            parts.append(f"{words} {', '.join(listed)}")
    texts = [f"Accuracy on clean held-out pairs, each loss against DPO: {'; '.join(parts)}."]
    napo = [
        f"{noise_in_words(row.kind, row.rate)} ({row.budget}) {row.verdict}, "
        + signed(row.difference, row.difference_low, row.difference_high)
        for row in rows[rows["loss"] == "napo"].itertuples()
    ]
    if napo:
        texts.append(f"NaPO with q by Eq. 12 against DPO, in points: {'; '.join(napo)}.")
    return texts
