"""What the notebooks show of each stage: small frames and examples, read from its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo import stages
from napo.config.benchmarks import details, metrics
from napo.config.variants import RESPONSES
from napo.data import sources
from napo.errors import NapoError
from napo.stages.session import Session
from napo.workspace.files import finished_files, read_json
from napo.workspace.manifests import require

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from napo.results.collect import Metric

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
    from napo.config.settings import IMAGE_MASKS, TEXT_MASKS
    from napo.models.load import load_processor
    from napo.models.prompts import as_seen, mask_image, mask_token_id, prompt_inputs

    row = _row(stages.source_folder(session), number)
    processor = processor or load_processor(
        session.profile.model.location, image_mode=session.profile.model.image_mode
    )
    decode = processor.tokenizer.decode
    seen = as_seen(processor, row["image"])
    shown = [("the picture", row["image"], ""), ("as asked", seen, row["question"])]
    for mask in IMAGE_MASKS:
        image = mask_image(row["image"], mask)
        if mask == "mask_token":
            inputs = prompt_inputs(processor, row["question"], row["image"])
            count = inputs.ids.count(processor.image_token_id)
            text = f"{count} x [MASK] for its visual tokens\n{row['question']}"
            shown.append((f"image: {mask}", None, text))
        else:
            seen_so = None if image is None else as_seen(processor, image)
            shown.append((f"image: {mask}", seen_so, row["question"]))
    for mask in TEXT_MASKS:
        ids = prompt_inputs(processor, row["question"], text_mask=mask).ids
        text = decode(ids, skip_special_tokens=False)
        if mask == "mask_token":
            hidden = processor.tokenizer.convert_ids_to_tokens(mask_token_id(processor))
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
        lines += [f"{_SHORT.get(name, name)}: {row[name]}" for name in RESPONSES]
        shown.append((row["image"], "\n".join(lines)))
    return shown


def responses(session: Session) -> pd.DataFrame:
    """Each response's length, log-probability, and how often it equals the chosen one."""
    import pandas as pd

    data = stages.biased_rows(session)
    frame = data.remove_columns("image").to_pandas()
    rows = []
    for name in RESPONSES:
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
    """Agreement of the annotators (`napo.noise.agreement`); None when there is only one."""
    from napo.noise.agreement import agreements

    found = agreements(stages.everyones_labels(session))
    return None if found.empty else found.round(3)


def objective(session: Session, variant: str) -> pd.DataFrame:
    """What a variant minimises under the profile's q rule, a row a term.

    Returns:
        Index `term` (its dispreferred response); columns `loss`, `q` (where the loss has one) and
        `weight`, texts.
    """
    import pandas as pd

    from napo.config.variants import VARIANTS

    made = VARIANTS[variant]
    q_rule = made.q_rule or session.profile.training.q_rule
    rule = "Eq. 12" if q_rule == "paper" else "released rule"
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
    requests = stages.requests(session, name)
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

    columns: dict[str, list[str]] = {}
    for folder in folders:
        require(folder)
        files = [read_json(path) for path in finished_files(folder, "*.json")]
        files = [one for one in files if "metrics" in one]
        found = {(one["benchmark"], key): (one["run"], value) for one in files
                 for key, value in one["metrics"].items()}  # fmt: skip
        for metric in (*metrics(), *details()):
            run, value = found.get((metric.benchmark, metric.key), (files[0]["run"], None))
            columns.setdefault(run, []).append(_value(value, metric))
    titles = [metric.title for metric in metrics()] + [metric.name for metric in details()]
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
