"""Tables 1 to 4 and the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napo.errors import NapoError
from napo.files import atomic_file
from napo.locks import work_on
from napo.manifests import keep_only, manifest_fingerprint, require
from napo.notebook import Session

if TYPE_CHECKING:
    from napo.results import Results


def all_results(session: Session, seeds: str = "", tune: str = "") -> Results:
    """The finished runs of the profile's variants and baselines.

    Raises:
        NapoError: when nothing has run, not even the base.
    """
    from napo.results import collect

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
    from napo import baselines, report, views
    from napo.results import HALVES, METRICS, claims, measurements, summary
    from napo.tables import tables

    profile = session.profile
    papers = results.only(profile.variants)
    made = tables(papers, scale=profile.scale, model=profile.paper_model)
    extra = baselines.table(results)
    written = [path for table in (*made.values(), extra) for path in table.write(folder)]
    frames = {
        "summary": summary(results, METRICS + HALVES),
        "claims": claims(papers),
        "measurements": measurements(results),
    }
    for name, frame in frames.items():
        written.append(folder / f"{name}.csv")
        with atomic_file(written[-1]) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
    content = views.report_content(session, papers, [*made.values(), extra], frames["claims"], tune)
    written.append(folder / "report.html")
    with atomic_file(written[-1]) as temporary:
        temporary.write_text(report.build(content), encoding="utf-8")
    return written
