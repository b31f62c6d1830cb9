"""Tables 1 to 4, the extra table and the report, from finished results."""

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
        NapoError: when nothing has run, or no variant of the requested seeds or tune.
    """
    from napo.results.collect import collect

    profile, folder = session.profile, session.workspace.results
    names = (*profile.variants, *profile.baselines)
    results = collect(folder, names, session.seeds(seeds), session.tune(tune))
    request = f" of tune {tune or 'full'}, seeds {seeds or profile.seeds}" if seeds or tune else ""
    if not results.runs or (request and profile.variants and set(results.runs) == {"base"}):
        raise NapoError(
            f"{folder} holds no finished results{request}; run notebooks/06_evaluate.ipynb first."
        )
    return results


def write_report(session: Session, results: Results, seeds: str = "", tune: str = "") -> Path:
    """Write all tables, the summary, the claims and `report.html`, and seal their folder.

    The folder is `tables`; other seeds or tune than the profile's have a folder of their own.
    """
    from napo.results.collect import claims, measurements, summary
    from napo.results.report import build
    from napo.results.tables import extra_table, tables

    profile, workspace = session.profile, session.workspace
    folder = workspace.data / session.edition("tables", seeds, tune)
    tune = session.tune(tune)
    runs = [run for names in results.runs.values() for run in names]
    settings = {
        "profile": profile.model_dump(),
        "tune": tune,
        "results": {run: manifest_fingerprint(require(workspace.result(run))) for run in runs},
    }
    with work_on(folder, settings, remake=True) as todo:  # takes seconds, so it is made anew
        if todo:
            of_paper = results.only(profile.variants)
            sheets = tables(of_paper, scale=profile.scale, model=profile.paper_model)
            sheets = [*sheets.values(), extra_table(results)]
            frames = {
                "summary": summary(results, (*metrics(), *details())),
                "claims": claims(of_paper),
                "measurements": measurements(results),
            }
            content = report_content(session, of_paper, sheets, frames["claims"], tune)
            texts = {"report.html": build(content)}
            for name, frame in frames.items():
                texts[f"{name}.csv"] = frame.to_csv(index=False, float_format="%.6g")
            paths = [path for sheet in sheets for path in sheet.write(folder)]
            for name, text in texts.items():
                paths.append(folder / name)
                with atomic_file(paths[-1]) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            keep_only(folder, paths)
    return folder / "report.html"


def report_content(
    session: Session, results: Results, tables: Sequence[Table], claims: pd.DataFrame, tune: str
) -> ReportContent:
    """The report: the claims and their answers, all tables, Figs. 3 and 4, training, settings."""
    from napo.noise.separation import describe, separation
    from napo.results import figures
    from napo.results.collect import claims_to_read, comparison, summary, summary_to_read
    from napo.results.report import Picture, ReportContent, Section, Sheet

    profile, workspace = session.profile, session.workspace
    variants = [name for name in results.runs if name != "base"]
    seeds = sorted({len(results.runs[name]) for name in variants})
    count = " to ".join(map(str, dict.fromkeys((*seeds[:1], *seeds[-1:]))))

    def pictures(captions: dict[str, tuple[str, str]]) -> list[Picture]:
        paths = {name: workspace.figures / f"{name}.svg" for name in captions}
        drawn = [name for name in captions if paths[name].is_file()]
        return [Picture(captions[name][0], paths[name], captions[name][1]) for name in drawn]

    margins = all_margins(session) if workspace.rows.is_dir() else None
    words = "" if margins is None else describe(separation(margins))
    sections = [
        Section(
            "The paper's claims, tested on these runs",
            ["Differences with 95 % intervals; items are resampled and paired. An interval that "
             "holds 0 decides nothing."],
            [Picture("LP and CB of every variant", figures.comparison(comparison(results)),
                     "Dots: value with 95 % interval. Carets: the two halves of each true/false "
                     "pair. Dashed line: the base.")],
            [Sheet("Each claim as a difference between two variants", claims_to_read(claims))],
        ),
        Section(
            "Scores in detail",
            ["LP and CB count an instance only if its true and its false statement are both "
             "answered correctly. A variant that gains on true statements and loses on false ones "
             "has changed how often it says yes, not how well it sees."],
            [],
            [Sheet(f"{benchmark.title} in detail",
                   summary_to_read(summary(results, benchmark.metrics + benchmark.details)))
             for benchmark in BENCHMARKS.values() if benchmark.details],
        ),
        Section("Tables 1 to 4 and the extra table", [], [],
                [Sheet(table.heading, table.frame, table.notes) for table in tables]),
        Section("Figures", words.split("\n\n") if words else [], pictures({
            "fig3": ("Fig. 3. From BCE to MAE", "Left: NaPO's loss for several q, between BCE and "
                     "MAE. Right: the weight of a pair in the gradient."),
            "fig4": ("Fig. 4. Margins of noise and noise-free responses", "Log-prob margins under "
                     "the base model, summed and per token. AUROC: the probability that a "
                     "noise-free response has the larger margin."),
        })),
        Section("Training", [], pictures(
            {f"training-{name}-{tune}": (f"{name} over training", "") for name in variants})),
    ]  # fmt: skip
    of_each = f", {count} seed{'' if count == '1' else 's'} each" if variants else ""
    return ReportContent(
        title="NaPO, reproduced",
        subtitle=profile.title or profile.name,
        summary=[f"{len(variants)} of {len(profile.variants)} variants ran{of_each}."],
        sections=sections,
        settings=profile.model_dump(),
        versions=require(workspace.result("base"))["versions"] if "base" in results.runs else {},
        code=commits(workspace, results),
    )


def commits(workspace: Workspace, results: Results) -> dict[str, str]:
    """The commit that writes the report, and the commits that made its results."""
    made = set()
    for run in [run for names in results.runs.values() for run in names]:
        path = workspace.result(run) / provenance.FILE
        record = read_json(path) if path.is_file() else None
        made.add(provenance.code_in_words(record["code"]) if record else "not recorded")
    return {
        "this report": provenance.code_in_words(provenance.code()),
        "its results": "; ".join(sorted(made)) or "none",
    }
