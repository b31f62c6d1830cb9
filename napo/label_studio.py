"""The samples as Label Studio's tasks, and its labels back.

    python -m napo.label_studio export samples.json --profile tiny
    python -m napo.label_studio import project-1-at-2026.json --profile tiny

`export` writes the tasks and beside them the labeling interface (`samples.xml`). Labels that are
there already go along if they are of people named by an email: Label Studio refuses annotations by
somebody whom it does not know by one. `import` reads a project's JSON export. The formats are those
of Label Studio's guide (labelstud.io/guide: task_format, export); it was not run here.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, TypeAdapter, ValidationError

from napo.errors import NapoError, unknown
from napo.labels import ADJUDICATED, COLUMNS, LABELS, ORACLE, labels_file
from napo.preferences import BIASED
from napo.workspace import atomic_file

if TYPE_CHECKING:
    import pandas as pd

    from napo.notebook import Session

_CHOICE, _NOTE, _ABOUT = "label", "note", "response"  # names of the interface's tags
_MEANING = {
    "biased": "a bad answer: wrong, or beside the question (noise-free)",
    "unbiased": "a good answer: true, and it answers the question (noise)",
    "unsure": "left out of the statistics",
}


class _Value(BaseModel):
    choices: list[str] = []
    text: list[str] | str = []


class _Result(BaseModel):
    from_name: str = ""
    value: _Value = _Value()


class _Annotation(BaseModel):
    completed_by: int | dict[str, Any] | None = None
    was_cancelled: bool = False
    result: list[_Result] = []
    created_at: str | None = None
    updated_at: str | None = None

    def said(self) -> dict[str, str]:
        """What stands in each of the interface's tags."""
        found = {}
        for result in self.result:
            texts = result.value.choices or result.value.text
            found[result.from_name] = texts if isinstance(texts, str) else " ".join(texts)
        return found


class _Task(BaseModel):
    data: dict[str, Any] = {}
    annotations: list[_Annotation] = []


def config() -> str:
    """The labeling interface: picture, question, both responses side by side, labels on 1, 2, 3.

    All that comes from data is in `Text` tags, which show it as text.
    """

    def text(title: str, name: str) -> str:
        return f"<Header value={quoteattr(title)}/><Text name={quoteattr(name)} value='${name}'/>"

    choices = "".join(
        f"<Choice value={quoteattr(label)} hotkey='{key}' hint={quoteattr(_MEANING[label])}/>"
        for key, label in enumerate(LABELS, 1)
    )
    return f"""<View>
  <View style="display: flex">
    <View style="flex: 0 0 30%"><Image name="picture" value="$image"/></View>
    <View style="flex: 1; margin-left: 1em">
      {text("Question", "question")}
      <View style="display: flex">
        <View style="flex: 1">{text("Chosen response", "chosen")}</View>
        <View style="flex: 1; margin-left: 1em">{text("Biased response", _ABOUT)}</View>
      </View>
    </View>
  </View>
  <Choices name="{_CHOICE}" toName="{_ABOUT}" choice="single" showInLine="true">{choices}</Choices>
  <TextArea name="{_NOTE}" toName="{_ABOUT}" rows="1" placeholder="a note, if any"/>
</View>
"""


def tasks(
    rows: Iterable[Mapping[str, Any]], samples: Sequence[str], labels: pd.DataFrame
) -> list[dict[str, Any]]:
    """Label Studio's tasks: one for each sampled row and kind, in the order to label them in.

    Args:
        rows: rows of RLAIF-V-Bias with images decoded, the sampled ones among them.
        samples: ids that `napo.noise.sample` drew.
        labels: what goes along as annotations, as `napo.noise.read_labels` gives it; whoever
            labelled becomes their `completed_by.email`.
    """
    from napo.noise import sampled

    by_id = sampled(rows, samples)
    there: dict[tuple[str, str], list[dict[str, str]]] = {}
    for label in labels.to_dict("records"):
        there.setdefault((label["id"], label["kind"]), []).append(label)
    return [
        {
            "data": {
                "image": _picture(by_id[id]["image"]),
                "question": by_id[id]["question"],
                "chosen": by_id[id]["chosen"],
                _ABOUT: by_id[id][kind],
                "id": id,
                "kind": kind,
            },
            "annotations": [_annotation(label) for label in there.get((id, kind), [])],
        }
        for id in samples
        for kind in BIASED
    ]


def read(path: Path) -> pd.DataFrame:
    """The labels of a project's JSON export, one for each task and annotator, the newest.

    Skipped tasks (`was_cancelled`) and those without a choice are left out. An annotator is known
    by email, or by the number that the export gives instead.

    Returns:
        Columns as `napo.noise.read_labels` gives them.

    Raises:
        NapoError: when it is not such an export, naming the file, the task and the fault.
    """
    import pandas as pd

    try:
        content = TypeAdapter(list[_Task]).validate_json(Path(path).read_bytes())
    except FileNotFoundError:
        raise NapoError(f"{path} is missing; export the project as JSON.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = f" (task {first['loc'][0] + 1}: {first['msg']})" if first["loc"] else ""
        raise NapoError(
            f"{path} is not Label Studio's JSON export{where}; export the project as JSON."
        ) from None
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for number, task in enumerate(content, 1):
        for _, label in sorted(_labels(task, f"{path}, task {number}"), key=lambda pair: pair[0]):
            found[(label["id"], label["kind"], label["annotator"])] = label
    return pd.DataFrame(list(found.values()), columns=list(COLUMNS), dtype=object)


def export(session: Session, path: Path) -> tuple[int, list[str]]:
    """Write the tasks to `path` and the labeling interface beside it.

    Returns:
        How many tasks, and the people whose labels were left out as they are not named by an email.

    Raises:
        NapoError: when the rows are not built yet.
    """
    from napo import noise, stages

    rows, samples = stages.samples(session)
    labels = noise.people(stages.everyones_labels(session))
    known = labels["annotator"].str.contains("@")
    made = tasks(rows, samples, labels[known])
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(made, indent=1))
    with atomic_file(Path(path).with_suffix(".xml")) as temporary:
        temporary.write_text(config(), encoding="utf-8")
    return len(made), sorted(set(labels.loc[~known, "annotator"]))


def import_(session: Session, path: Path, replace: bool = False) -> pd.DataFrame:
    """Take the labels of an export into the annotations, one CSV for each annotator.

    Args:
        session: the session.
        path: the project's JSON export.
        replace: whether labels that are there already give way to others for the same item.

    Returns:
        The labels that were read.

    Raises:
        NapoError: as `read`; for items that are not of this workspace's samples; for a reserved or
            impossible name; for labels that would change without `replace`. Nothing is written
            then.
    """
    from napo import noise, stages

    folder = session.workspace.annotations
    _, samples = stages.samples(session)
    new = read(path)
    strange = sorted(set(new["id"]) - set(samples))
    if strange:
        raise NapoError(
            f"{path}: {len(strange)} tasks are not among the samples of {session.workspace.data} "
            f"({', '.join(strange[:5])}); export them from the same workspace."
        )
    for name in new["annotator"].unique():
        labels_file(folder, name)
        if name in (ORACLE, ADJUDICATED):
            raise NapoError(f"{path}: the annotator {name!r} is a reserved name; change it there.")
    there = stages.everyones_labels(session)
    both = new.merge(there, on=["id", "kind", "annotator"], suffixes=("", "_there"))
    changed = int((both["label"] != both["label_there"]).sum())
    if changed and not replace:
        raise NapoError(
            f"{path} would change {changed} labels that are there already; give --replace to let "
            "it, or import into another workspace."
        )
    for label in new.to_dict("records"):
        noise.store_label(labels_file(folder, label["annotator"]), label)
    return new


def _annotation(label: Mapping[str, str]) -> dict[str, Any]:
    def result(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        return {"from_name": name, "to_name": _ABOUT, "type": kind, "value": value}

    said = [result(_CHOICE, "choices", {"choices": [label["label"]]})]
    if label["note"]:
        said.append(result(_NOTE, "textarea", {"text": [label["note"]]}))
    return {"completed_by": {"email": label["annotator"]}, "was_cancelled": False, "result": said}


def _labels(task: _Task, where: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The labels of a task, each with when it was given."""
    id, kind = (str(task.data.get(name) or "") for name in ("id", "kind"))
    if not id or not kind:
        raise NapoError(f"{where} has no id and kind in its data; it was not exported by napo.")
    if kind not in BIASED:
        raise NapoError(f"{where}: {unknown('kind', kind, BIASED)}")
    for annotation in task.annotations:
        said = annotation.said()
        if annotation.was_cancelled or not said.get(_CHOICE):
            continue
        if said[_CHOICE] not in LABELS:
            raise NapoError(f"{where}: {unknown('label', said[_CHOICE], LABELS)}")
        label = {"id": id, "kind": kind, "label": said[_CHOICE], "note": said.get(_NOTE, "")}
        when = annotation.updated_at or annotation.created_at or ""
        yield when, {**label, "annotator": _who(annotation, where), "group": ""}


def _who(annotation: _Annotation, where: str) -> str:
    """The annotator's name: a number may stand alone, or an object with an email."""
    who = annotation.completed_by
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    name = f"annotator-{who}" if isinstance(who, int) else str(who or "")
    name = re.sub(r"[^\w .@+-]", "_", name).lstrip(" .@+-_")
    if not name:
        raise NapoError(f"{where} does not say who labelled it (completed_by).")
    return name


def _picture(image: Any) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    from napo.notebook import session

    parser = argparse.ArgumentParser(prog="python -m napo.label_studio", description=__doc__)
    parser.add_argument("do", choices=["export", "import"])
    parser.add_argument("file", type=Path, help="the JSON file")
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    parser.add_argument("--replace", action="store_true", help="import: labels there give way")
    given = parser.parse_args(arguments)
    try:
        opened = session(given.profile, given.workspace)
        if given.do == "export":
            count, left_out = export(opened, given.file)
            print(f"{count} tasks in {given.file}, interface in {given.file.with_suffix('.xml')}")
            if left_out:
                print(
                    f"Without the labels of {', '.join(left_out)}, who are not named by an email."
                )
        else:
            found = import_(opened, given.file, given.replace)
            whose = found["annotator"].value_counts().items()
            names = ", ".join(f"{name} {count}" for name, count in whose)
            print(f"{len(found)} labels imported ({names or 'nobody'}).")
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
