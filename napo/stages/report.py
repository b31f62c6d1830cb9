"""Tables 1 to 4 and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napo.config.benchmarks import BENCHMARKS, details, metrics
from napo.errors import NapoError
from napo.stages.labels import all_margins
from napo.stages.session import Session
from napo.workspace import provenance
from napo.workspace.files import atomic_file, read_json
from napo.workspace.locks import work_on
from napo.workspace.manifests import keep_only, manifest_fingerprint, require

if TYPE_CHECKING:
    import pandas as pd

    from napo.results.collect import Results
    from napo.results.report import ReportContent
    from napo.results.tables import Table
    from napo.workspace.folders import Workspace


def all_results(session: Session, seeds: str = "", tune: str = "") -> Results:
    """The finished runs of the profile's variants and baselines.

    Raises:
        NapoError: when nothing has run, not even the base.
    """
    from napo.results.collect import collect

    profile, folder = session.profile, session.workspace.results
    names = (*profile.variants, *profile.baselines)
    found = collect(folder, names, session.seeds(seeds), session.tune(tune))
    # Tables in which every run of other seeds or tune says "not run" are nobody's wish.
    asked = f" of tune {tune or 'full'}, seeds {seeds or profile.seeds}" if seeds or tune else ""
    if not found.runs or (asked and profile.variants and set(found.runs) == {"base"}):
        raise NapoError(
            f"{folder} holds no finished results{asked}; run notebooks/06_evaluate.ipynb first."
        )
    return found


def write_report(session: Session, results: Results, seeds: str = "", tune: str = "") -> Path:
    """Write Tables 1 to 4, the extra one, the summary and `report.html`, and seal their folder.

    The folder is `tables`; that of other seeds or tune than the profile's is named after them.
    """
    profile = session.profile
    folder = session.workspace.data / session.edition("tables", seeds, tune)
    tune = session.tune(tune)
    settings = {
        "profile": profile.model_dump(),
        "tune": tune,
        "results": {
            run: manifest_fingerprint(require(session.workspace.result(run)))
            for runs in results.runs.values()
            for run in runs
        },
    }
    with work_on(folder, settings, remake=True) as todo:  # from results alone, in seconds
        if todo:
            keep_only(folder, _write(session, folder, results, tune))
    return folder / "report.html"


def _write(session: Session, folder: Path, results: Results, tune: str) -> list[Path]:
    from napo.results import report
    from napo.results.collect import claims, measurements, summary
    from napo.results.tables import extra_table, tables

    profile = session.profile
    papers = results.only(profile.variants)
    made = tables(papers, scale=profile.scale, model=profile.paper_model)
    extra = extra_table(results)
    written = [path for table in (*made.values(), extra) for path in table.write(folder)]
    frames = {
        "summary": summary(results, (*metrics(), *details())),
        "claims": claims(papers),
        "measurements": measurements(results),
    }
    for name, frame in frames.items():
        written.append(folder / f"{name}.csv")
        with atomic_file(written[-1]) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
    content = report_content(session, papers, [*made.values(), extra], frames["claims"], tune)
    written.append(folder / "report.html")
    with atomic_file(written[-1]) as temporary:
        temporary.write_text(report.build(content), encoding="utf-8")
    return written


def halves_to_read(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a variant, a column a metric: value and 95 % interval."""
    cells = [f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in frame.itertuples()]
    order, metrics = list(dict.fromkeys(frame["variant"])), list(dict.fromkeys(frame["metric"]))
    table = frame.assign(cell=cells).pivot(index="variant", columns="metric", values="cell")
    return table.loc[order, metrics]


def report_content(
    session: Session,
    results: Results,
    tables: Sequence[Table],
    claims: pd.DataFrame,
    tune: str,
) -> ReportContent:
    """The report: what the claims came to, Tables 1 to 4, Figs. 3 and 4, training, settings."""
    from napo.noise.separation import describe, separation
    from napo.results import figures
    from napo.results.collect import claims_to_read, comparison, summary
    from napo.results.report import Picture, ReportContent, Section
    from napo.results.report import Table as Sheet

    profile, workspace = session.profile, session.workspace
    ran = [name for name in results.runs if name != "base"]
    seeds = sorted({len(results.runs[name]) for name in ran})
    each = " to ".join(map(str, dict.fromkeys((*seeds[:1], *seeds[-1:]))))
    sections = [
        Section(
            "The paper's claims, asked of these runs",
            ["Differences with 95 % intervals, items resampled and paired; an interval that "
             "holds 0 decides nothing."],
            [Picture("LP and CB of every variant", figures.comparison(comparison(results)),
                     "Dots and 95 % intervals; carets: the two halves of each true/false pair; "
                     "dashed: the base.")] if results.runs else [],
            [Sheet("Each claim as a difference between two variants", claims_to_read(claims))],
        ),
        Section(
            "The base model and what leads to its scores",
            ["LP and CB count an instance only if its true and its false statement are both "
             "answered right. A variant that gains one half at the price of the other has changed "
             "its habit, not its sight."],
            [],
            [Sheet("VLind-Bench in detail, percent", halves_to_read(summary(
                results, BENCHMARKS["vlind"].metrics + BENCHMARKS["vlind"].details)))],
        ),
        Section("Tables 1 to 4, and one more", [], [], [Sheet(t.heading, t.frame, t.notes)
                                                        for t in tables]),
    ]  # fmt: skip
    drawn = [
        ("fig3", "Fig. 3. From BCE to MAE", "Left, NaPO's loss for several q between its two ends; "
         "right, the weight of a pair in the gradient."),
        ("fig4", "Fig. 4. Margins of noise and noise-free responses", "Log-prob margins under the "
         "base model, summed and per token. AUROC: the chance that a noise-free response has the "
         "larger margin."),
    ]  # fmt: skip
    pictures = [
        Picture(title, workspace.figures / f"{name}.svg", caption)
        for name, title, caption in drawn
        if (workspace.figures / f"{name}.svg").is_file()
    ]
    everything = all_margins(session) if workspace.rows.is_dir() else None
    words = "" if everything is None else describe(separation(everything))
    told = words.split("\n\n") if words else []
    sections.append(Section("Figures", told, pictures))
    curves = [
        Picture(f"{name} over training",
                workspace.figures / f"training-{name}-{tune}.svg")
        for name in ran
        if (workspace.figures / f"training-{name}-{tune}.svg").is_file()
    ]  # fmt: skip
    sections.append(Section("Training", [], curves))
    versions = require(workspace.result("base"))["versions"] if "base" in results.runs else {}
    return ReportContent(
        title="NaPO, reproduced",
        subtitle=profile.title or profile.name,
        summary=[
            f"{len(ran)} of {len(profile.variants)} variants ran"
            + (f", {each} seed{'' if each == '1' else 's'} each." if ran else "."),
        ],
        sections=sections,
        settings=profile.model_dump(),
        versions=versions,
        code=_commits(workspace, results),
    )


def _commits(workspace: Workspace, results: Results) -> dict[str, str]:
    """The commit that writes the report, and those that made the results in it."""
    folders = [workspace.result(run) for runs in results.runs.values() for run in runs]
    records = [folder / provenance.FILE for folder in folders]
    made = {
        provenance.code_to_read(read_json(path)["code"]) if path.is_file() else "not recorded"
        for path in records
    }
    return {
        "this report": provenance.code_to_read(provenance.code()),
        "its results": "; ".join(sorted(made)) or "none",
    }
