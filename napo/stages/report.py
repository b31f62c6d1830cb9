"""Tables 1 to 4, the extra table and the report, from finished results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.config.benchmarks import BENCHMARKS, details, metrics
from napo.config.runs import contrast_of, trained
from napo.errors import NapoError
from napo.stages.labels import (
    all_margins,
    annotator_of,
    figures4,
    outdated_figure,
)
from napo.stages.session import Session
from napo.stages.settings import of_decoding, of_result, of_rows, of_run
from napo.stages.study_report import study_captions, study_fingerprint, study_section
from napo.workspace import provenance
from napo.workspace.files import json_value, write_text
from napo.workspace.hashing import hash_files
from napo.workspace.locks import work_on
from napo.workspace.manifests import GONE, differences, keep_only, read_settings, require, sealed

if TYPE_CHECKING:
    import pandas as pd

    from napo.results.collect import Results
    from napo.results.report import ReportContent
    from napo.results.tables import Table
    from napo.workspace.folders import Workspace

PAPER = (
    "Debiasing Multimodal Large Language Models via Noise-Aware Preference Optimization, CVPR 2025"
)


def all_results(session: Session, seeds: str = "", tune: str = "") -> Results:
    """The finished runs of the profile's variants and baselines.

    Raises:
        NapoError: when nothing has run, or no variant of the requested seeds or tune; when runs had
            different settings.
    """
    from napo.results.collect import collect

    profile, folder = session.profile, session.workspace.results
    names = (*profile.variants, *profile.baselines)
    results = collect(folder, names, session.seeds(seeds), session.tune(tune))
    request = f" of tune {tune or 'full'}, seeds {seeds or profile.seeds}" if seeds or tune else ""
    missing = any(map(trained, profile.variants)) and not any(map(trained, results.runs))
    if not results.runs or (request and missing):
        raise NapoError(
            f"{folder} holds no finished results{request}; run notebooks/06_evaluate.ipynb first."
        )
    return replace(results, departures=departures(session, results, tune))


def departures(session: Session, results: Results, tune: str = "") -> dict[str, tuple[Any, Any]]:
    """Settings of the runs that differ from the profile, by name, as (the runs', the profile's).

    Fingerprints of inputs are not compared.
    """
    from napo.results.collect import shared_settings

    profile, pairs = session.profile, {}
    gone = {"model": GONE, "rows": GONE, "reference": GONE}
    data = of_rows(profile, GONE, GONE)
    for variant in results.runs:
        run = of_decoding(variant) if contrast_of(variant) else None
        if trained(variant):
            run = of_run(profile, variant, 0, session.tune(tune), data=data, processes=0, **gone)
        result = of_result(profile, model=GONE, evaluated=GONE, benchmarks=GONE, run=run)
        expected = shared_settings({variant: json_value(result)})
        pairs |= differences({name: results.settings[name] for name in expected}, expected)
    return pairs


def report_settings(session: Session, results: Results, seeds: str, tune: str) -> dict[str, Any]:
    """Everything that the tables and the report depend on."""
    profile, folder = session.profile, session.workspace.figures
    shown = {"name", "title", "variants", "scale", "paper_model"}
    names = (*captions(session, results, seeds, tune), *study_captions(session))
    pictures = [folder / f"{name}.svg" for name in names]
    pictures = [path for path in pictures if path.is_file()]
    return {
        "profile": profile.model_dump(include=shown),
        "tune": tune,
        "settings": results.settings,
        "departures": results.departures,
        "results": {run: sealed(session.workspace.result(run)) for run in results.names},
        "figures": {path.name: digest for path, digest in hash_files(pictures).items()},
        "labels": figures4(session)[1],
        "study": study_fingerprint(session),
        "rows": sealed(session.workspace.rows),  # the words about all rows' margins
    }


def write_report(session: Session, results: Results, seeds: str = "", tune: str = "") -> Path:
    """Write all tables, the summary, the claims and `report.html`, and seal their folder.

    The folder is `tables`; other seeds or tune than the profile's have a folder of their own.
    """
    from napo.results.claims import claims
    from napo.results.collect import measurements, summary
    from napo.results.report import build
    from napo.results.tables import extra_table, tables

    profile, workspace = session.profile, session.workspace
    folder = workspace.data / session.edition("tables", seeds, tune)
    tune = session.tune(tune)
    settings = report_settings(session, results, seeds, tune)
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
            content = report_content(session, of_paper, sheets, frames["claims"], seeds, tune)
            texts = {folder / "report.html": build(content)}
            for name, frame in frames.items():
                texts[folder / f"{name}.csv"] = frame.to_csv(index=False, float_format="%.6g")
            paths = [path for sheet in sheets for path in sheet.write(folder)]
            for path, text in texts.items():
                write_text(path, text)
            keep_only(folder, [*paths, *texts])
    return folder / "report.html"


def report_content(
    session: Session,
    results: Results,
    tables: Sequence[Table],
    claims: pd.DataFrame,
    seeds: str,
    tune: str,
) -> ReportContent:
    """The report: what happened, the tables, the figures, the noise study, claims, settings."""
    from napo.results import figures
    from napo.results.claims import claims_to_read
    from napo.results.collect import comparison
    from napo.results.compact import compact
    from napo.results.report import Picture, ReportContent, Section, Sheet

    profile, workspace = session.profile, session.workspace
    drawn: dict[bool, list[Picture]] = {True: [], False: []}
    for name, (title, caption) in captions(session, results, seeds, tune).items():
        if (path := workspace.figures / f"{name}.svg").is_file():
            drawn[name.startswith("training-")].append(Picture(title, path, caption))
    sections = [
        Section("Names and symbols", terms=legend(results)),
        Section("Tables 1 to 4", [], [],
                [table.sheet() for table in tables if table.number]),
        Section("Figs. 3 and 4", words_about_margins(session, results), drawn[False]),
        study_section(session),
        Section("Training", [] if drawn[True] else ["No curves were drawn."], drawn[True]),
        Section(
            "The paper's claims, tested on these runs",
            ["Differences with 95 % intervals; items are resampled and paired. An interval "
             "with 0 decides nothing, nor do seeds of different signs. △: see under the tables."],
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
            [Sheet(f"{entry.title} in detail",
                   compact(results, results.runs, entry.metrics + entry.details))
             for entry in BENCHMARKS.values() if entry.details],
        ),
        Section("Other robust losses", ["Not in the paper."], [],
                [table.sheet() for table in tables if not table.number]),
    ]  # fmt: skip
    return ReportContent(
        title="NaPO, reproduced",
        subtitle=f"{PAPER} · {profile.title or profile.name}",
        summary=what_happened(session, results, claims),
        sections=sections,
        settings=results.settings,
        versions=versions(workspace, results),
        code=commits(workspace, results),
    )


def what_happened(session: Session, results: Results, claims: pd.DataFrame) -> dict[str, list[str]]:
    """The first lines of the report: questions of a reader, answered from the numbers."""
    from napo.results import findings
    from napo.results.notes import departures_in_words

    profile = session.profile
    title = profile.title or profile.name
    problems = [*figures4(session)[1], *departures_in_words(results)]
    return {
        "What ran": [findings.what_ran(results, profile.variants, title)],
        "What was found": findings.what_was_found(results, claims),
        "Not decided": [findings.what_is_open(claims)],
        "Comparable with the paper?": [
            findings.beside_the_paper(profile.scale, profile.paper_model, title)
        ],
        "Read with care": findings.what_to_distrust(results, problems),
    }


def legend(results: Results) -> dict[str, str]:
    """The variants that ran and the symbols of the tables, explained."""
    from napo.config.variants import VARIANTS
    from napo.results.notes import MEASURES

    names = [name for name in results.runs if name != "base"]
    titles = {name: VARIANTS[name].title or VARIANTS[name].words for name in names}
    base = {"base": "the model before any of this training"} if "base" in results.runs else {}
    return {
        **base,
        **titles,
        "↑ ↓": "larger is better; smaller is better",
        "[a, b]": "the 95 % interval; a difference is decided if its interval excludes 0 and every "
        "seed has its sign",
        "bold": "the best value of its column; whether it differs from another: see the claims",
        "△ ▽": "answers that fell apart; descriptions that say much less than the base's",
        "–": "no number",
        **MEASURES,
    }


def words_about_margins(session: Session, results: Results) -> list[str]:
    """What the margins of all rows say, why they are not shown, and which labels are missing."""
    from napo.noise.separation import describe, separation

    try:
        margins = all_margins(session)
        words = [] if margins is None else describe(separation(margins)).split("\n\n")
        if words:
            words[0] = f"Fig. 4 shows the labelled samples. Over all rows: {words[0]}"
    except NapoError as error:  # rows or reference were deleted to save space
        words = [f"The margins of all rows are not shown: {error}"]
    rows = sealed(session.workspace.rows)
    if differences({"rows": rows_of(results)}, {"rows": rows}):
        words = [
            "The rows here are not those that the runs were trained on, so Fig. 4 and the "
            "margins of all rows are not shown."
        ]
    return words + figures4(session)[1]


def captions(
    session: Session, results: Results, seeds: str, tune: str
) -> dict[str, tuple[str, str]]:
    """The saved figures that belong to these results and labels: file name -> title, caption."""
    names = {
        "fig3": ("Fig. 3. From BCE to MAE", "Left: NaPO's loss for several q, between BCE and "
                 "MAE. Right: the weight of a pair in the gradient."),
    }  # fmt: skip
    folder, rows = session.workspace.figures, rows_of(results)
    for name, annotator in figures4(session)[0].items():
        inputs = provenance.figure_record(folder / f"{name}.{provenance.FILE}").get("inputs", {})
        same_rows = not differences({"rows": rows}, {"rows": inputs.get("rows")})
        if same_rows and not outdated_figure(session, name, annotator):
            by = annotator or annotator_of(session)
            names[name] = (
                f"Fig. 4. Margins of noise and noise-free responses, labelled by {by}",
                "Log-prob margins under the base model, summed and per token. AUROC: the "
                "probability that a noise-free response has the larger margin.",
            )
    for variant, runs in results.runs.items():
        name = session.edition(f"training-{variant}-{tune}", seeds)
        inputs = provenance.figure_record(folder / f"{name}.{provenance.FILE}").get("inputs")
        runs_here = {
            run: {
                "files": sealed(session.workspace.data / "runs" / run),
                "settings": read_settings(results.folder / run)["run"],
            }
            for run in runs
        }
        if inputs and not differences(inputs, runs_here):
            names[name] = (f"{variant} over training", "")
    return names


def rows_of(results: Results) -> str:
    """The fingerprint of the rows that the runs were trained on; `GONE` where none was trained."""
    return results.settings.get("training", {}).get("rows", GONE)


def versions(workspace: Workspace, results: Results) -> dict[str, str]:
    """Versions of the packages that made the results; if runs differ, all of them."""
    made: dict[str, set[str]] = {}
    for run in results.names:
        for name, number in require(workspace.result(run))["versions"].items():
            made.setdefault(name, set()).add(number)
    return {name: " and ".join(sorted(numbers)) for name, numbers in made.items()}


def commits(workspace: Workspace, results: Results) -> dict[str, str]:
    """The commit that writes the report, and the commits that made its results."""
    made = set()
    for run in results.names:
        record = provenance.read_record(workspace.result(run))
        made.add(provenance.code_in_words(record["code"]) if record else "not recorded")
    return {
        "this report": provenance.code_in_words(provenance.code()),
        "its results": "; ".join(sorted(made)) or "none",
    }
