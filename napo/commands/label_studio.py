"""The samples as Label Studio's tasks, and its labels back.

    python -m napo.commands.label_studio export samples.json --profile tiny
    python -m napo.commands.label_studio import project-1-at-2026.json --profile tiny

`export` writes the tasks and beside them the labeling interface (`samples.xml`). Labels that are
there already go along if they are of people named by an email: make them members there first, as
Label Studio refuses a file with annotations by somebody unknown. `import` reads a project's JSON
export (not JSON-MIN). The formats are those of Label Studio's guide (labelstud.io/guide:
task_format, export) and of the source of its import; it was not run here.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, TypeAdapter, ValidationError

from napo.config.variants import BIASED
from napo.errors import NapoError, unknown
from napo.noise.agreement import people
from napo.noise.labels import (
    ADJUDICATED,
    COLUMNS,
    LABELS,
    LONGEST_NAME,
    LONGEST_NOTE,
    ORACLE,
    composed,
    in_a_name,
    labels_file,
    store_label,
)
from napo.workspace.files import atomic_file

if TYPE_CHECKING:
    import pandas as pd

    from napo.stages.session import Session

_CHOICE, _NOTE, _ABOUT = "label", "note", "response"  # names of the interface's tags
_MEANING = {
    "biased": "a bad answer: wrong, or beside the question (noise-free)",
    "unbiased": "a good answer: true, and it answers the question (noise)",
    "unsure": "left out of the statistics",
}
_ICON = 256  # pixels of the longer side up to which a picture goes without loss
_PHOTO = 1024  # and of the largest one: 200 tasks stay under the 250 MB that one import may have


class _Value(BaseModel):
    choices: list[str] = []
    text: list[str] | str = []


class _Result(BaseModel):
    from_name: str = ""
    value: _Value = _Value()
    meta: _Value | None = None


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
            found[result.from_name] = _joined(result.value.choices or result.value.text)
        return found

    @property
    def exported_for(self) -> str:
        """Whose label it was when `export` wrote it; empty for one that was given there."""
        metas = (result.meta for result in self.result if result.from_name == _CHOICE)
        return next((_joined(meta.text) for meta in metas if meta), "")

    @property
    def email(self) -> str:
        """The annotator's email, where the export tells it."""
        who = self.completed_by
        return str(who.get("email") or "") if isinstance(who, dict) else ""

    @property
    def number(self) -> int | None:
        """The annotator's number at Label Studio, which stands alone or beside the email."""
        who = self.completed_by
        number = who.get("id") if isinstance(who, dict) else who
        return number if isinstance(number, int) else None


class _Task(BaseModel):
    data: dict[str, Any] = {}
    annotations: list[_Annotation] = []


def config() -> str:
    """The labeling interface: picture, question, both responses side by side, labels on 1, 2, 3.

    All that comes from data is in `Text` tags, which show it as text.
    """

    def text(title: str, name: str) -> str:
        shown = f"name={quoteattr(name)} value='${name}' valueType='text'"
        return f"<Header value={quoteattr(title)}/><Text {shown}/>"

    choices = "".join(f"<Choice value='{x}' hotkey='{key}'/>" for key, x in enumerate(LABELS, 1))
    meaning = "; ".join(f"{key} {x}: {_MEANING[x]}" for key, x in enumerate(LABELS, 1))
    return f"""<View>
  <Style>.htx-text {{white-space: pre-wrap}}</Style>
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
  <Header size="5" value={quoteattr(meaning)}/>
  <Choices name="{_CHOICE}" toName="{_ABOUT}" choice="single" required="true">{choices}</Choices>
  <TextArea name="{_NOTE}" toName="{_ABOUT}" rows="1" placeholder="a note, if any"/>
</View>
"""


def tasks(
    rows: Iterable[Mapping[str, Any]], samples: Sequence[str], labels: pd.DataFrame
) -> list[dict[str, Any]]:
    """Label Studio's tasks: one for each sampled row and kind, in the order to label them in.

    Args:
        rows: rows of RLAIF-V-Bias with images decoded, the sampled ones among them.
        samples: ids that `napo.noise.samples.sample` drew.
        labels: what goes along as annotations, as `read_labels` gives it; the annotator becomes
            their `completed_by.email`.
    """
    from napo.noise.samples import sampled

    by_id = sampled(rows, samples)
    pictures = {id: _picture(row["image"]) for id, row in by_id.items()}
    there: dict[tuple[str, str], list[dict[str, str]]] = {}
    for label in labels.to_dict("records"):
        there.setdefault((label["id"], label["kind"]), []).append(label)
    return [
        {
            "data": {
                "image": pictures[id],
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
    by email, or by the number that the export gives instead: "annotator-7", or the name that labels
    went there with if they came back under that number.

    Returns:
        Columns as `napo.noise.samples.read_labels` gives them.

    Raises:
        NapoError: when it is not such an export, naming the file, the task and the fault.
    """
    import pandas as pd

    try:
        content = TypeAdapter(list[_Task]).validate_json(Path(path).read_bytes())
    except OSError as error:
        raise NapoError(f"{path} cannot be read ({error.strerror}); name a JSON export.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = f" (task {first['loc'][0] + 1}: {first['msg']})" if first["loc"] else ""
        raise NapoError(
            f"{path} is not Label Studio's JSON export{where}; export the project as JSON."
        ) from None
    people, spelled = _people(content), {}
    found: dict[tuple[str, str, str], tuple[datetime, dict[str, str]]] = {}
    for number, task in enumerate(content, 1):
        where = f"{path}, task {number}"
        for when, who, label in _labels(task, where, people):
            name = _file_name(who, where)
            if spelled.setdefault(name.casefold(), who) != who:
                raise NapoError(
                    f"{where}: {who!r} and {spelled[name.casefold()]!r} would share one file of "
                    "labels; change one of the names there."
                )
            key = (label["id"], label["kind"], name)
            if key not in found or when >= found[key][0]:  # a project may hold a task twice
                found[key] = (when, {**label, "annotator": name})
    return pd.DataFrame([row for _, row in found.values()], columns=list(COLUMNS), dtype=object)


def export(session: Session, path: Path) -> tuple[int, list[str]]:
    """Write the tasks to `path` and the labeling interface beside it.

    Returns:
        How many tasks, and the people whose labels were left out as they are not named by an email.

    Raises:
        NapoError: when the rows are not built yet, or the files cannot be written.
    """
    from napo import stages

    path, interface = Path(path), Path(path).with_suffix(".xml")
    if path == interface:
        raise NapoError(f"{path} is where the interface goes; name a .json file for the tasks.")
    rows, samples = stages.samples(session)
    labels = people(stages.everyones_labels(session))
    known = labels["annotator"].str.contains("@")
    made = tasks(rows, samples, labels[known])
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(made, indent=1), encoding="utf-8")
        with atomic_file(interface) as temporary:
            temporary.write_text(config(), encoding="utf-8")
    except OSError as error:
        raise NapoError(f"{path} cannot be written ({error.strerror}); name another.") from None
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
        NapoError: as `read`; without a label; for items that are not of this workspace's samples;
            for a reserved or impossible name; for labels that would change without `replace`.
            Nothing is written then.
    """
    from napo import stages

    new = read(path)  # before the samples, whose folder is claimed by asking for them
    if new.empty:
        raise NapoError(f"{path} holds no labels; export the project after somebody has labelled.")
    folder = session.workspace.annotations
    _, samples = stages.samples(session)
    strange = sorted(set(new["id"]) - set(samples))
    if strange:
        raise NapoError(
            f"{path} has ids that are not among the samples of {session.workspace.data} "
            f"({len(strange)}: {', '.join(strange[:5])}{' ...' * (len(strange) > 5)}); "
            "import into the workspace that exported the tasks."
        )
    for name in new["annotator"].unique():
        labels_file(folder, name)
        if name in (ORACLE, ADJUDICATED):
            raise NapoError(f"{path}: the annotator {name!r} is a reserved name; change it there.")
    there = stages.everyones_labels(session)
    both = new.merge(there, on=["id", "kind", "annotator"], suffixes=("", "_there"))
    differ = (both["label"] != both["label_there"]) | (both["note"] != both["note_there"])
    if differ.any() and not replace:
        raise NapoError(
            f"{path} would change labels or notes that are there already ({differ.sum()} of "
            f"{len(new)}); give --replace to let it, or import into another workspace."
        )
    for label in new.to_dict("records"):
        store_label(labels_file(folder, label["annotator"]), label)
    return new


def _annotation(label: Mapping[str, str]) -> dict[str, Any]:
    def result(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
        return {"from_name": name, "to_name": _ABOUT, "type": kind, "value": value}

    # A project's export may name people by number alone; the name goes along and comes back.
    meta = {"meta": {"text": [label["annotator"]]}}
    said = [{**result(_CHOICE, "choices", {"choices": [label["label"]]}), **meta}]
    if label["note"]:
        said.append(result(_NOTE, "textarea", {"text": [label["note"]]}))
    return {
        "completed_by": {"email": label["annotator"]},
        "was_cancelled": False,
        "ground_truth": False,  # what Label Studio takes an import for if nothing is said
        "result": said,
    }


def _people(content: Iterable[_Task]) -> dict[int, str]:
    """Names behind Label Studio's numbers, where exported labels came back under one number."""
    pairs = {
        (annotation.number, annotation.exported_for)
        for task in content
        for annotation in task.annotations
        if annotation.number is not None and annotation.exported_for
    }
    numbers, names = (Counter(pair[at] for pair in pairs) for at in (0, 1))
    return {number: name for number, name in pairs if numbers[number] == names[name] == 1}


def _copies(task: _Task, where: str) -> list[_Annotation]:
    """Annotations that somebody made from another's exported one, whose name they still carry.

    Raises:
        NapoError: when it cannot be told which one is the copy.
    """
    found = []
    for name in {each.exported_for for each in task.annotations} - {""}:
        ones = [each for each in task.annotations if each.exported_for == name]
        if len({each.email or each.number for each in ones}) < 2:
            continue
        others = [each for each in ones if each.email != name]
        if len(others) == len(ones):
            raise NapoError(
                f"{where}: {len(ones)} annotators' labels carry the name {name!r}, as copies of an "
                "exported one do; keep its owner's there and give the others anew."
            )
        found += others
    return found


def _labels(
    task: _Task, where: str, people: Mapping[int, str]
) -> Iterator[tuple[datetime, str, dict[str, str]]]:
    """The labels of a task, each with when it was given and by whom."""
    id, kind = (str(task.data.get(name) or "") for name in ("id", "kind"))
    if not id or not kind:
        raise NapoError(
            f"{where} has no id and kind in its data; export tasks that napo made, as JSON and not "
            "as JSON-MIN."
        )
    if kind not in BIASED:
        raise NapoError(f"{where}: {unknown('kind', kind, BIASED)}")
    copies = _copies(task, where)
    for annotation in task.annotations:
        said = annotation.said()
        if annotation.was_cancelled or not said.get(_CHOICE):
            continue
        if said[_CHOICE] not in LABELS:
            raise NapoError(f"{where}: {unknown('label', said[_CHOICE], LABELS)}")
        label = {"id": id, "kind": kind, "label": said[_CHOICE], "note": said.get(_NOTE, "")}
        if len(label["note"]) > LONGEST_NOTE:
            raise NapoError(
                f"{where}: a note has {len(label['note'])} characters; shorten it there to "
                f"{LONGEST_NOTE}."
            )
        who = _who(annotation, where, people, copy=annotation in copies)
        yield _when(annotation, where), who, {**label, "group": ""}


def _when(annotation: _Annotation, where: str) -> datetime:
    """When it was last changed; without a time, before all that have one."""
    text = annotation.updated_at or annotation.created_at
    if not text:
        return datetime.min.replace(tzinfo=UTC)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise NapoError(f"{where}: {text!r} is no time; export the project again.") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _who(annotation: _Annotation, where: str, people: Mapping[int, str], *, copy: bool) -> str:
    """The annotator: as exported, by email, or by the number that stands for them.

    As exported goes before the email: what Label Studio imports may be its importer's there.
    """
    number = annotation.number
    exported = "" if copy else annotation.exported_for
    name = exported or annotation.email or people.get(number, "")
    if not name and number is None:
        raise NapoError(f"{where} does not say who labelled it (completed_by); export it again.")
    return str(name or f"annotator-{number}")


def _file_name(who: str, where: str) -> str:
    """The name as that of a file."""
    plain = "".join(c if in_a_name(c) else "_" for c in composed(who))
    name = " ".join(plain.split()).lstrip(" .@+-_")
    if not name or len(name.encode()) > LONGEST_NAME:
        raise NapoError(f"{where}: {who[:40]!r} cannot name a file; change the annotator's name.")
    return name


def _joined(texts: Sequence[str] | str) -> str:
    """Texts as the one line that a CSV of labels keeps."""
    text = texts if isinstance(texts, str) else " ".join(texts)
    return " ".join(text.replace("\0", "").split())


def _picture(image: Any) -> str:
    """The picture as a data URI: an icon pixel by pixel, a photograph as a browser needs it."""
    image, buffer = image.convert("RGB"), io.BytesIO()
    kind = "png" if max(image.size) <= _ICON else "jpeg"
    image.thumbnail((_PHOTO, _PHOTO))
    image.save(buffer, format=kind, quality=90)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    from napo.stages.session import open_session

    parser = argparse.ArgumentParser(
        prog="python -m napo.commands.label_studio", description=__doc__
    )
    parser.add_argument("do", choices=["export", "import"])
    parser.add_argument("file", type=Path, help="the JSON file")
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    parser.add_argument("--replace", action="store_true", help="import: labels there give way")
    given = parser.parse_args(arguments)
    try:
        opened = open_session(given.profile, given.workspace)
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
            print(f"{len(found)} labels imported ({names}).")
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
