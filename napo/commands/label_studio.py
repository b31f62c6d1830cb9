"""The samples as Label Studio tasks, and the labels of its JSON export.

Checked once by hand with Label Studio 1.23.2: labels that two people gave through its API came back
equal from its JSON export (one person, numbers) and its snapshot export (two people, emails).
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd

from napo import stages
from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.noise.labels import COLUMNS, RESERVED, check_label, labels_file, nfc, store_label
from napo.noise.samples import sampled_rows
from napo.stages.session import Session
from napo.workspace.files import read_json, write_json, write_text
from napo.workspace.manifests import manifest_fingerprint, require

PHOTO = 1024  # pixels a side: 200 tasks stay below 250 MB, the limit of one import
CONFIG = """<View>
  <Style>.htx-text {white-space: pre-wrap}</Style>
  <Image name="picture" value="$image" width="30%"/>
  <Header value="Question"/><Text name="question" value="$question" valueType="text"/>
  <Header value="Chosen response"/><Text name="chosen" value="$chosen" valueType="text"/>
  <Header value="Biased response"/><Text name="response" value="$response" valueType="text"/>
  <Choices name="label" toName="response" choice="single" required="true">
    <Choice value="biased" hotkey="1" hint="noise-free: wrong, or does not answer the question"/>
    <Choice value="unbiased" hotkey="2" hint="noise: true, and it answers the question"/>
    <Choice value="unsure" hotkey="3" hint="left out of the statistics"/>
  </Choices>
  <TextArea name="note" toName="response" rows="1" placeholder="a note, if any"/>
</View>
"""


def export_samples(session: Session, path: Path) -> int:
    """Write the samples as tasks to `path`, the labelling config beside it; return their number."""
    if path.suffix == ".xml":
        raise NapoError(f"{path} is the place of the labelling config; name a .json file.")
    rows, samples = stages.samples(session)
    data_set, tasks = manifest_fingerprint(require(session.workspace.rows)), []
    for row in sampled_rows(rows, samples).values():
        image, buffer = row["image"].copy(), io.BytesIO()
        file_type = "png" if max(image.size) <= 256 else "jpeg"  # icons without loss
        image.thumbnail((PHOTO, PHOTO))
        image.save(buffer, format=file_type, quality=90)
        content = base64.b64encode(buffer.getvalue()).decode()
        task = {name: row[name] for name in ("id", "question", "chosen")}
        task |= {"data_set": data_set, "image": f"data:image/{file_type};base64,{content}"}
        tasks += [{"data": {**task, "kind": kind, "response": row[kind]}} for kind in BIASED]
    write_json(path, tasks)
    write_text(path.with_suffix(".xml"), CONFIG)
    return len(tasks)


def import_labels(
    session: Session, path: Path, annotator: str = "", replace: bool = False
) -> pd.DataFrame:
    """Write the labels of an export to `annotations/<name>.csv`, by the annotator's email.

    Args:
        session: the session whose samples were exported.
        path: the JSON export.
        annotator: a name instead of the email; needed if the export has only a number.
        replace: whether the labels replace other labels of the same name and item.

    Raises:
        NapoError: for an export that does not fit, or changed labels without `replace`. Nothing is
            written then.
    """
    labels = read_export(path)
    accounts = sorted({label["account"] for label in labels})
    named = len(accounts) == 1 if annotator else all("@" in account for account in accounts)
    if not named or annotator in RESERVED:
        raise NapoError(
            f"{path} holds labels of {', '.join(accounts)}; give one person's name with "
            "--annotator, or for several people make a snapshot export with emails."
        )
    _, samples = stages.samples(session)
    data_set = manifest_fingerprint(require(session.workspace.rows))
    folder, rows = session.workspace.annotations, {}
    for label in labels:
        where, name = label["where"], nfc(annotator or label["account"])
        if label["data_set"] != data_set or label["id"] not in samples:
            raise NapoError(
                f"{where} is no sample of {session.workspace.data}; import into the workspace that "
                "exported the tasks."
            )
        item = labels_file(folder, name), label["id"], label["kind"]
        if item in rows:
            raise NapoError(f"{where} has a second label of {name}; delete one in Label Studio.")
        rows[item] = check_label({**label, "annotator": name}, where)
    new = pd.DataFrame(rows.values(), columns=list(COLUMNS), dtype=object)
    both = new.merge(stages.everyones_labels(session), on=["id", "kind", "annotator"])
    changes = (both["label_x"] != both["label_y"]) | (both["note_x"] != both["note_y"])
    if changes.any() and not replace:
        raise NapoError(
            f"{path} would change {changes.sum()} labels or notes in {folder}; give --replace to "
            "replace them, or import into another workspace."
        )
    for (file, *_), row in rows.items():
        store_label(file, row)
    return new


def read_export(path: Path) -> list[dict[str, str]]:
    """The labels of a JSON export; skipped tasks have none.

    Returns:
        For each label: `where` (path and number of the task), `data_set`, `id`, `kind`, `label`,
        `note`, and `account` (email, or number where the export has no email).
    """
    labels, again = [], "export the project as JSON, not as JSON-MIN"
    tasks = read_json(path, list[dict[str, Any]], again)
    try:
        for number, task in enumerate(tasks, 1):
            data = {name: str(task["data"][name]) for name in ("data_set", "id", "kind")}
            for annotation in task["annotations"]:
                values = {result["from_name"]: result["value"] for result in annotation["result"]}
                account = annotation["completed_by"]
                if annotation["was_cancelled"] or not values:
                    continue
                label = {"where": f"{path}, task {number}", **data}
                label["account"] = str(account["email"] if isinstance(account, dict) else account)
                label["label"] = " ".join(values["label"]["choices"])
                label["note"] = " ".join(values["note"]["text"]) if "note" in values else ""
                labels.append(label)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NapoError(
            f"{path} is not the JSON export of tasks that napo exported ({error!r} in task "
            f"{number}); {again}."
        ) from None
    if not labels:
        raise NapoError(f"{path} holds no labels; export the project after labelling.")
    return labels
