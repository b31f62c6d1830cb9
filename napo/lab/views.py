"""Small frames and examples for the notebooks, read from the files of each stage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.display import HTML

from napo import stages
from napo.config.benchmarks import Metric, details, metrics
from napo.config.settings import Model
from napo.config.variants import BIASED, RESPONSES, Term
from napo.data import sources
from napo.errors import NapoError
from napo.lab.html import TABLES
from napo.stages.session import Session
from napo.workspace.files import finished_files, read_json
from napo.workspace.manifests import complete, require

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image

    from napo.results.collect import Results
    from napo.results.report import Sheet
    from napo.results.tables import Table


def pretraining(
    session: Session, pretrained: bool
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The base model's training log, scores and targets; of a new one if it was `pretrained`.

    Returns:
        log: stage, step, loss.
        scores: accuracy per kind of question, on typical and counterfactual scenes; for a new
            model beside the package's.
        targets: what was measured of the world and its range; for a new model beside the package's.
    """
    import pandas as pd

    package = Path(Model().location)  # also where the profile names another model
    folder = session.workspace.data / "base-model" if pretrained else package
    log = pd.read_csv(folder / "training_log.csv")
    tables = []
    for name, key in (("scores", "kind"), ("targets", "target")):
        table = pd.read_csv(folder / f"{name}.csv").set_index(key)
        if pretrained:
            shipped = pd.read_csv(package / f"{name}.csv").set_index(key)
            table = table.join(shipped.drop(columns=["low", "high"], errors="ignore"),
                               rsuffix=" (package)")  # fmt: skip
        tables.append(table)
    return log, *tables


def source(session: Session) -> pd.DataFrame:
    """Number of preference rows of each kind, by what made their rejected response.

    Kind and maker come from the icon world's `truth`; rows of another world count as one kind.
    """
    import pandas as pd

    require(session.workspace.source)
    counts = Counter()
    for row in sources.texts(session.workspace.source):
        try:
            truth = json.loads(row["truth"])
            counts[truth["question"]["kind"], truth["rejected_by"]] += 1
        except (KeyError, TypeError, ValueError):
            counts["all", "rows"] += 1
    index = pd.MultiIndex.from_tuples(counts, names=["kind", "rejected_by"])
    return pd.Series(counts.values(), index).unstack(fill_value=0).sort_index()


def responses(session: Session) -> pd.DataFrame:
    """Length and log-probability of each response, and how often it equals the chosen one."""
    import pandas as pd

    frame = stages.biased_rows(session).remove_columns("image").to_pandas()
    rows = []
    for name in RESPONSES:
        logps, tokens = frame[f"{name}_logp"], frame[f"{name}_tokens"]
        rows.append(
            {
                "response": name,
                "rows": len(frame),
                "tokens": tokens.mean(),
                "equal to chosen": (frame[name] == frame["chosen"]).mean(),
                "cut": frame[f"{name}_cut"].mean() if f"{name}_cut" in frame else 0.0,
                "log-prob": logps.mean(),
                "per token": (logps / tokens).mean(),
            }
        )
    return pd.DataFrame(rows).set_index("response").round(3)


def agreement(session: Session) -> pd.DataFrame | None:
    """Agreement of the annotators (`napo.noise.agreement`); None when there is only one."""
    from napo.noise.agreement import agreements

    frame = agreements(stages.usable_labels(session))
    return None if frame.empty else frame.round(3)


def objective(session: Session, variant: str) -> pd.DataFrame:
    """The terms of a variant, one row each, under the profile's q rule.

    Returns:
        Index `term` (its dispreferred response); columns `loss`, `q` (where the loss has one) and
        `weight`, texts.

    Raises:
        NapoError: for an unknown variant, or one that is not trained.
    """
    import pandas as pd

    from napo.config.variants import VARIANTS

    entry = VARIANTS[variant].require_terms()
    weights = {
        "margin": "γ of Eq. 13",
        "mean-margin": "γ of Eq. 13, ψ_mean",
        "tempered": f"γ of Eq. 13, ψ^{entry.temper:g}",
        "uniform": f"1/{len(entry.terms)}",
        "none": "1",
        "per-pair": "1 + tanh(ψ / spread) of each pair",
    }
    rows = []
    for index, term in enumerate(entry.terms):
        weight = f"{entry.weights[index]:g}" if entry.gamma == "fixed" else weights[entry.gamma]
        q = _coefficient(term, entry.q_rule, session.profile.training.q_rule)
        rows.append(
            {
                "term": term.name,
                "loss": term.loss,
                "q": q if term.loss == "napo" else "",
                "weight": "1, drawn for the step" if entry.pick_one else weight,
            }
        )
    if entry.sft:
        rows.append({"term": "chosen", "loss": "sft", "q": "", "weight": f"{entry.sft:g}"})
    return pd.DataFrame(rows).set_index("term")


def _coefficient(term: Term, own_rule: str, profiles_rule: str) -> str:
    """The q of a term in words, under a variant's rule or else the profile's."""
    if term.q is not None:
        return f"{term.q:g}"
    if own_rule == "per-pair":
        return "σ(-2 ψ / spread) of each pair"
    if own_rule == "posterior" and term.response in BIASED:
        return "probability of noise of each pair"
    rule = profiles_rule if own_rule in ("", "posterior") else own_rule
    rule = "Eq. 12" if rule == "paper" else "released rule"
    return f"{rule}, ψ_{term.average}, α {term.alpha:g}"


def training_summary(records: pd.DataFrame) -> pd.DataFrame:
    """Each term at the first and the last step of training, mean over seeds.

    Margins are those of Eq. 2; `accuracy` is the share of pairs with a positive margin.
    """
    import pandas as pd

    rows = []
    terms = [name.removesuffix("_psi_sum") for name in records if name.endswith("_psi_sum")]
    for when, step in (("first", records["step"].min()), ("last", records["step"].max())):
        part = records[records["step"] == step]
        for term in terms:
            row = {"step": when, "term": term}
            for name in ("psi_sum", "psi_mean", "q", "gamma", "weight", "loss"):
                if f"{term}_{name}" in part:
                    row[name] = part[f"{term}_{name}"].mean()
            row["accuracy"] = (part[f"{term}_psi_sum"] > 0).mean()
            rows.append(row)
    return pd.DataFrame(rows).set_index(["step", "term"])


def gamma_collapse(session: Session, seeds: str = "", tune: str = "") -> Figure | str:
    """Lengths, margins and gamma of all finished variants whose gamma follows margins.

    A sentence in place of the figure if none is finished, or if the rows are gone.
    """
    import pandas as pd

    from napo.config.variants import VARIANTS
    from napo.results import figures

    rules = {
        name: entry.gamma
        for name, entry in VARIANTS.items()
        if entry.gamma in figures.READ
        and not entry.pick_one
        and all(
            complete(session.workspace.run(name, seed, session.tune(tune)))
            for seed in session.seeds(seeds)
        )
    }
    if not rules:
        return "No variant with weights of Eq. 13 was trained here."
    records = pd.concat([stages.records(session, name, seeds, tune) for name in rules])
    try:
        rows = stages.biased_rows(session)
    except NapoError as error:  # rows or reference were deleted to save space
        return f"Not drawn, for the lengths of the responses are not known: {error}"
    tokens = {name: sum(rows[f"{name}_tokens"]) / len(rows) for name in RESPONSES}
    return figures.gamma_collapse(records, tokens, rules)


def settings(results: Results) -> pd.DataFrame:
    """The settings that the runs had, and the profile's where they differ.

    Returns:
        Index `setting` (dotted names, those that differ first); columns `runs` and `profile`.
    """
    import pandas as pd

    from napo.results.report import flatten

    ours = flatten(results.settings)
    theirs = {name: str(pair[1]) for name, pair in results.departures.items()}
    names = sorted({*ours, *theirs}, key=lambda name: name not in theirs)
    frame = pd.DataFrame({"setting": names})
    frame["runs"] = [ours.get(name, "") for name in names]
    frame["profile"] = [theirs.get(name, "") for name in names]
    return frame.set_index("setting")


def claims(results: Results) -> HTML:
    """The paper's claims and the answers of these runs."""
    from napo.results import claims as paper
    from napo.results.report import Sheet

    return sheet(Sheet("The paper's claims", paper.claims_to_read(paper.claims(results))))


def table(table: Table) -> HTML:
    """A table of the paper, or the extra table: compact, the full edition folded under it."""
    return sheet(table.sheet())


def sheet(content: Sheet) -> HTML:
    """A table with its notes, as in the report."""
    from napo.results.report import sheet_html

    return HTML(f'{TABLES}<div class="napo-results">{sheet_html(content)}</div>')


def answer_examples(
    session: Session, folder: Path, count: int = 4
) -> list[tuple[Image.Image, str]]:
    """Pictures with their question and answer, from a result folder.

    They are counterfactual pictures of VLind-Bench's last stage, or, without VLind-Bench, the first
    pictures of the profile's first benchmark.
    """
    from napo.benchmarks import runner

    benchmarks = session.profile.evaluation.benchmarks
    name = "vlind" if "vlind" in benchmarks else benchmarks[0]
    requests = stages.requests(session, name)
    entries, _ = runner.kept(folder / f"{name}.answers.jsonl", requests)
    answers = {entry["id"]: entry["answer"] for entry in entries}
    shown = [request for request in requests if name != "vlind" or "/d1/" in request.id]
    return [
        (request.open(), f"{request.text.splitlines()[0]}\nA: {answers[request.id]}")
        for request in shown[:count]
    ]


def result(folders: list[Path]) -> pd.DataFrame:
    """The tables' metrics of the runs in these result folders, with their 95 % intervals.

    Returns:
        Index `metric` (the tables' columns, then both halves of LP and CB); one column for each
        run; texts. All other numbers are in the folders' JSON files.
    """
    import pandas as pd

    columns: dict[str, list[str]] = {}
    for folder in folders:
        require(folder)
        results = [read_json(path) for path in finished_files(folder, "*.json")]
        results = [result for result in results if "metrics" in result]
        values = {
            (result["benchmark"], key): value
            for result in results
            for key, value in result["metrics"].items()
        }
        columns[results[0]["run"]] = [
            metric_text(values.get((metric.benchmark, metric.key)), metric)
            for metric in (*metrics(), *details())
        ]
    titles = [metric.title for metric in metrics()] + [metric.name for metric in details()]
    return pd.DataFrame(columns, index=pd.Index(titles, name="metric"))


def metric_text(estimate: Mapping[str, float] | None, metric: Metric) -> str:
    """A value with its interval in the tables' units; "not run", or "not defined" for either."""
    if estimate is None:
        return "not run"
    if estimate["value"] is None:
        return "not defined"  # such as CHAIR where no object is named
    if estimate["low"] is None:  # such as a metric that is no ratio of sums
        return f"{metric.scale * estimate['value']:.{metric.digits}f} [not defined]"
    value, low, high = (
        f"{metric.scale * estimate[name]:.{metric.digits}f}" for name in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"
