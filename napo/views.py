"""What the notebooks show of each stage: small frames and examples, read from its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo import preferences, provenance, sources, stages
from napo.errors import NapoError
from napo.files import finished_files, read_json
from napo.manifests import require
from napo.notebook import Session

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from napo.report import ReportContent
    from napo.results import Metric, Results
    from napo.tables import Table
    from napo.workspace import Workspace

_SHORT = {"language_biased": "lang.", "vision_biased": "vision"}


def pretraining(session: Session, pretrained: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The base model's training log, and its scores; with `pretrained`, beside the package's.

    Returns:
        log: stage, step, loss.
        scores: accuracy per kind of question, on typical and counterfactual scenes.
    """
    import pandas as pd

    package = Path(session.profile.model.location)
    folder = session.workspace.data / "base-model" if pretrained else package
    log = pd.read_csv(folder / "training_log.csv")
    scores = pd.read_csv(folder / "scores.csv").set_index("kind")
    if pretrained:
        there = pd.read_csv(package / "scores.csv").set_index("kind")
        scores = scores.join(there, rsuffix=" (package)")
    return log, scores


def source(session: Session) -> pd.DataFrame:
    """How many preference rows there are of each kind, and what made their rejected response."""
    import pandas as pd

    require(session.workspace.source)
    truth = [json.loads(row["truth"]) for row in sources.texts(session.workspace.source)]
    frame = pd.DataFrame(
        {
            "kind": [entry["question"]["kind"] for entry in truth],
            "rejected_by": [entry["rejected_by"] for entry in truth],
        }
    )
    return frame.value_counts().unstack(fill_value=0).sort_index()


def mask_examples(
    session: Session, number: int = 0, processor: Any = None
) -> list[tuple[str, Image.Image | None, str]]:
    """One row under each mask: title, the image that the model gets (or None), and the text.

    Args:
        session: the session.
        number: of the row in the source, from 0 on.
        processor: the base model's, if it is loaded already.
    """
    from napo import modality, models

    row = _row(stages.source_folder(session), number)
    processor = processor or models.load_processor(
        session.profile.model.location, image_mode=session.profile.model.image_mode
    )
    decode = processor.tokenizer.decode
    seen = modality.as_seen(processor, row["image"])
    shown = [("the picture", row["image"], ""), ("as asked", seen, row["question"])]
    for mask in modality.IMAGE_MASKS:
        image = modality.mask_image(row["image"], mask)
        if mask == "mask_token":
            inputs = modality.prompt_inputs(processor, row["question"], row["image"])
            count = inputs.ids.count(processor.image_token_id)
            text = f"{count} x [MASK] for its visual tokens\n{row['question']}"
            shown.append((f"image: {mask}", None, text))
        else:
            seen_so = None if image is None else modality.as_seen(processor, image)
            shown.append((f"image: {mask}", seen_so, row["question"]))
    for mask in modality.TEXT_MASKS:
        ids = modality.prompt_inputs(processor, row["question"], text_mask=mask).ids
        text = decode(ids, skip_special_tokens=False)
        if mask == "mask_token":
            hidden = processor.tokenizer.convert_ids_to_tokens(modality.mask_token_id(processor))
            text = text.replace(hidden, "[MASK]")
        shown.append((f"question: {mask}", seen, text))
    return shown


def _row(source: Path, number: int) -> dict[str, Any]:
    """A row of the source by its number, its image decoded."""
    for _, batch in sources.batches(source, 1, number + 1, lambda at: at == number):
        return sources.decode(batch[0][1])
    raise NapoError(f"{source} has no row number {number}; its rows are counted from 0.")


def row_examples(session: Session, count: int = 4) -> list[tuple[Image.Image, str]]:
    """Rows of RLAIF-V-Bias as pictures with their question and four responses."""
    data, shown = stages.biased_rows(session, reference=False), []
    for row in (data[at] for at in range(min(count, len(data)))):
        lines = [f"Q: {row['question']}"]
        lines += [f"{_SHORT.get(name, name)}: {row[name]}" for name in preferences.RESPONSES]
        shown.append((row["image"], "\n".join(lines)))
    return shown


def responses(session: Session) -> pd.DataFrame:
    """Each response's length, log-probability, and how often it equals the chosen one."""
    import pandas as pd

    data = stages.biased_rows(session)
    frame = data.remove_columns("image").to_pandas()
    rows = []
    for name in preferences.RESPONSES:
        cut = frame.get(f"{name}_cut")
        rows.append(
            {
                "response": name,
                "rows": len(frame),
                "tokens": frame[f"{name}_tokens"].mean(),
                "equal to chosen": (frame[name] == frame["chosen"]).mean(),
                "cut": 0.0 if cut is None else cut.mean(),
                "log-prob": frame[f"{name}_logp"].mean(),
                "per token": (frame[f"{name}_logp"] / frame[f"{name}_tokens"]).mean(),
            }
        )
    return pd.DataFrame(rows).set_index("response").round(3)


def agreement(session: Session) -> pd.DataFrame | None:
    """How far all who labelled agree (`napo.noise.agreements`); None when there is only one."""
    from napo import noise

    found = noise.agreements(stages.everyones_labels(session))
    return None if found.empty else found.round(3)


def objective(session: Session, variant: str) -> pd.DataFrame:
    """What a variant minimises under the profile's q rule, a row a term.

    Returns:
        Index `term` (its dispreferred response); columns `loss`, `q` (where the loss has one) and
        `weight`, texts.
    """
    import pandas as pd

    from napo.objective import VARIANTS

    made = VARIANTS[variant]
    rule = "Eq. 12" if session.profile.training.q_rule == "paper" else "released rule"
    weights = {
        "margin": "γ of Eq. 13",
        "uniform": f"1/{len(made.terms)}",
        "none": "1",
    }
    rows = []
    for at, term in enumerate(made.terms):
        weight = f"{made.weights[at]:g}" if made.gamma == "fixed" else weights[made.gamma]
        q = f"{rule}, ψ_{term.average}, α {term.alpha:g}" if term.q is None else f"{term.q:g}"
        rows.append(
            {
                "term": term.name,
                "loss": term.loss,
                "q": q if term.loss == "napo" else "",
                "weight": "1, drawn for the step" if made.pick_one else weight,
            }
        )
    if made.sft:
        rows.append({"term": "chosen", "loss": "sft", "q": "", "weight": f"{made.sft:g}"})
    return pd.DataFrame(rows).set_index("term")


def training_summary(records: pd.DataFrame) -> pd.DataFrame:
    """Each term at the first and the last step of training, mean over seeds.

    Margins are rewards (Eq. 2); `accuracy` is the share of pairs whose margin is positive.
    """
    import pandas as pd

    rows = []
    terms = [name.removesuffix("_psi_sum") for name in records if name.endswith("_psi_sum")]
    for when, step in (("first", records["step"].min()), ("last", records["step"].max())):
        part = records[records["step"] == step]
        for term in terms:
            row = {"step": when, "term": term}
            for name in ("psi_sum", "psi_mean", "q", "gamma", "loss"):
                if f"{term}_{name}" in part:
                    row[name] = part[f"{term}_{name}"].mean()
            row["accuracy"] = (part[f"{term}_psi_sum"] > 0).mean()
            rows.append(row)
    return pd.DataFrame(rows).set_index(["step", "term"])


def answer_examples(
    session: Session, folder: Path, count: int = 4
) -> list[tuple[Image.Image, str]]:
    """Pictures, what was asked about them, and the answers.

    Counterfactual ones of VLind-Bench's last stage; where it was not asked, the first of another
    benchmark.
    """
    from napo.benchmarks import runner

    there = session.profile.evaluation.benchmarks
    name = "vlind" if "vlind" in there else there[0]
    requests = stages.asked(session, name)
    entries, _ = runner.kept(folder / f"{name}.answers.jsonl", requests)
    answers = {entry["id"]: entry["answer"] for entry in entries}
    asked = [request for request in requests if name != "vlind" or "/d1/" in request.id]
    return [
        (request.open(), f"{request.text.splitlines()[0]}\nA: {answers[request.id]}")
        for request in asked[:count]
    ]


def result(folders: list[Path]) -> pd.DataFrame:
    """The tables' metrics of the runs in these result folders, with their 95 % intervals.

    Returns:
        Index `metric` (the tables' columns, then both halves of LP and CB); a column for each run;
        texts. All other numbers are in the folders' JSON files.
    """
    import pandas as pd

    from napo.results import HALVES, METRICS

    columns: dict[str, list[str]] = {}
    for folder in folders:
        require(folder)
        files = [read_json(path) for path in finished_files(folder, "*.json")]
        files = [one for one in files if "metrics" in one]
        found = {(one["benchmark"], key): (one["run"], value) for one in files
                 for key, value in one["metrics"].items()}  # fmt: skip
        for metric in METRICS + HALVES:
            run, value = found.get((metric.benchmark, metric.key), (files[0]["run"], None))
            columns.setdefault(run, []).append(_value(value, metric))
    titles = [metric.title for metric in METRICS] + [metric.name for metric in HALVES]
    return pd.DataFrame(columns, index=pd.Index(titles, name="metric"))


def _value(found: Mapping[str, float] | None, metric: Metric) -> str:
    if found is None:
        return "not run"
    if found["value"] is None:
        return "not defined"  # such as CHAIR where no object is named
    value, low, high = (
        f"{metric.scale * found[name]:.{metric.digits}f}" for name in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def comparison(results: Results) -> pd.DataFrame:
    """LP, CB and their halves of every variant with intervals, as `figures.comparison` reads it."""
    from napo.results import HALVES, METRICS, summary

    names = {"VLind LP": "LP", "VLind CB": "CB"}
    wanted = [metric for metric in METRICS if metric.name in names]
    wanted += [metric for metric in HALVES if metric.name.split()[0] in ("LP", "CB")
               and metric.name.split()[1] in ("true", "false")]  # fmt: skip
    return summary(results, wanted).replace({"metric": names})


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
    from napo import figures, noise
    from napo.report import Picture, ReportContent, Section
    from napo.report import Table as Sheet
    from napo.results import HALVES, METRICS, claims_to_read, summary

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
                results, METRICS[:2] + HALVES)))],
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
    everything = stages.all_margins(session) if workspace.rows.is_dir() else None
    words = "" if everything is None else noise.describe(noise.separation(everything))
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
