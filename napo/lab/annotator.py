"""The annotator: label biased responses in JupyterLab, each label on the disk before the next item.

Texts of models and data sets are data: they are escaped, and shown as they are.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd

from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.lab.html import escaped, marked
from napo.lab.keyboard import CLICKED, Keys
from napo.noise.agreement import disagreements
from napo.noise.labels import (
    ADJUDICATED,
    LABELS,
    ORACLE,
    LabelledMeanwhile,
    composed,
    read_labels,
    remove_label,
    store_label,
)
from napo.noise.samples import sampled
from napo.stages import labels
from napo.stages.session import Session

KINDS = {"language_biased": "language-biased", "vision_biased": "vision-biased"}
MASKED = {
    "language_biased": "image masked",
    "vision_biased": "question masked",
}
CHOICES = {  # label -> (button, tooltip)
    "biased": ("1 Biased (noise-free)", "a bad answer: wrong, or beside the question"),
    "unbiased": ("2 Unbiased (noise)", "a good answer: true, and it answers the question"),
    "unsure": ("3 Unsure", "left out of the statistics"),
}
MOVES = {
    "previous": ("\u2190 Previous", ""),
    "next": ("\u2192 Next", ""),
    "undo": ("U Undo", "undo"),
    "first": ("F First unlabelled", "step-forward"),
}
AROUND = "napo-annotator"
KEYS = {
    **{str(place): value for place, value in enumerate(CHOICES, 1)},
    "u": "undo",
    "Backspace": "undo",
    "ArrowLeft": "previous",
    "p": "previous",
    "ArrowRight": "next",
    "n": "next",
    "f": "first",
    "e": "#input[type=text]",
}
SIDE = 240  # pixels of the picture's longer side on the screen

# JupyterLab's own variables, so that it follows the light and the dark theme.
_CSS = """<style>
.napo-annotator {padding: 10px 12px}
.napo-text {overflow-wrap: anywhere; white-space: pre-wrap; max-height: 15em; overflow-y: auto;
  padding: .5em .7em; border: 1px solid var(--jp-border-color2, #bbb); border-radius: 3px;
  line-height: 1.45; background: var(--jp-layout-color1, #fff);
  color: var(--jp-content-font-color1, #111)}
.napo-text mark {background: #ffe08a; color: #111; border-radius: 2px; padding: 0 .1em}
.napo-name {font-weight: 600; margin: .5em 0 .2em; color: var(--jp-content-font-color1, #111)}
/* A stripe, not a ground: white on JupyterLab's orange or green is too faint to read. */
.napo-annotator .does-biased {border-left: 5px solid #f57c00}
.napo-annotator .does-unbiased {border-left: 5px solid #388e3c}
.napo-annotator .does-unsure {border-left: 5px solid #757575}
.napo-name small, .napo-said {font-weight: 400; color: var(--jp-content-font-color2, #555)}
</style>"""


class Annotator(widgets.VBox):
    """Shows one biased response at a time beside the chosen one, and keeps what it is labelled.

    A label is stored by its button; the note goes with it. Both can be changed later by going back.
    What another tab has labelled since an item was shown here is shown first, not written over.

    Args:
        rows: rows of RLAIF-V-Bias, images decoded; a `datasets.Dataset` or dicts.
        samples: ids to label, in this order (`napo.noise.samples.sample`); both responses of each.
        path: the labels CSV. What is in it already is not asked again.
        annotator: who labels.
        remarks: what others said, by (id, kind), shown beside the response; if given, only these
            items are asked, and the name may be "adjudicated".

    Raises:
        NapoError: for a sample that is not among the rows, or an empty or reserved name.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        samples: Sequence[str],
        path: Path,
        annotator: str,
        remarks: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.annotator, self.path = composed(annotator.strip()), Path(path)
        reserved = {ORACLE: "the scenes' truth", ADJUDICATED: "what settles disagreements"}
        if remarks is not None:
            reserved.pop(ADJUDICATED)
        if not self.annotator or self.annotator in reserved:
            meant = " and ".join(f"{name} is {what}" for name, what in reserved.items())
            raise NapoError(f"The annotator is {annotator!r}; give your name ({meant}).")
        self._rows = sampled(rows, samples)
        self._remarks = remarks or {}
        items = [(id, kind) for id in samples for kind in BIASED]
        self.items = items if remarks is None else [item for item in items if item in remarks]
        if not self.items:
            raise NapoError("None of the remarks is about a sampled response; nothing to label.")
        # Item, what was there, what was given: undo takes back only what is still as given here.
        self._done: list[tuple[int, dict[str, str] | None, dict[str, str]]] = []
        self._drafts: dict[int, str] = {}  # notes written before their label
        self._at = 0
        self._showing = False
        self._build()
        # Buttons above the texts: they stay under the pointer however long a text is.
        super().__init__(children=[self._style, self._head, self._panel, self._body, self.listener])
        self.add_class(AROUND)
        self._read()
        self.show(self._first_unlabelled() or 0)

    # --- what the buttons do ------------------------------------------------------------------

    def label(self, value: str) -> None:
        """Store the label of the item that is shown, then show the next one without a label."""
        at = self._at
        before = self._labels.get(self.items[at])
        if not self._store(value):
            return
        self._drafts.pop(at, None)
        self._done.append((at, before, self._labels[self.items[at]]))
        following = self._first_unlabelled(after=at)
        self.show(at if following is None else following, f"Saved: {value}. ")

    def press(self, action: str, item: int) -> None:
        """Do what a key or button stands for, if the item that was on the screen is still shown."""
        if item == self._at and action in self._actions:
            self._actions[action]()

    def undo(self) -> None:
        """Take back the last label given here, and show its item."""
        if not self._done:
            self._say("Nothing to undo.")
            return
        at, before, given = self._done[-1]
        id, kind = self.items[at]
        if before is None:
            change = partial(remove_label, self.path, id, kind, self.annotator, given)
        else:
            change = partial(store_label, self.path, before, given)
        if self._try(change, at):
            self._done.pop()
            if before is None:
                self._drafts[at] = given["note"]  # it goes with the next label
            self.show(at, "Taken back. ")

    def show(self, at: int, happened: str = "") -> None:
        """Show an item by its number, counted from 0 and kept within the sample.

        What has happened before is told to screen readers alone: the screen shows it.
        """
        self._at = min(max(at, 0), len(self.items) - 1)
        id, kind = self.items[self._at]
        row = self._rows[id]
        there = self._labels.get((id, kind))
        first, second = marked(row["chosen"], row[kind])
        self.picture.value = _img(row["image"])
        self.question.value = _box("Question", "", escaped(row["question"]))
        self.chosen.value = _box("Chosen", "", first)
        self.response.value = _box(KINDS[kind].capitalize(), MASKED[kind], second)
        remark = self._remarks.get((id, kind))
        self.remark.value = _box("Said so far", "", escaped(remark)) if remark else ""
        self._write_note(there["note"] if there else self._drafts.get(self._at, ""))
        for value, button in self.buttons.items():
            if value in LABELS:
                button.icon = "check" if there and there["label"] == value else ""
        same = row[kind].strip() == row["chosen"].strip()
        said = f"Labelled {there['label']}, saved." if there else "Not labelled yet."
        said += " It equals the chosen response, which is noise by definition." * same
        place = f"Item {self._at + 1} of {len(self.items)}, {KINDS[kind]}. "
        self._say(said, heard=happened + place + said)
        self._count()
        self.listener.item = self._at  # last: whoever sees this number sees the item

    # --- the parts ----------------------------------------------------------------------------

    def _build(self) -> None:
        self._style = widgets.HTML(_CSS)
        self.listener = Keys(AROUND, KEYS, "Label biased responses", self.press, once=LABELS)
        self.progress = widgets.IntProgress(min=0, max=len(self.items))
        self.progress.layout.width = "200px"
        self.counts, self.said = widgets.HTML(), widgets.HTML()
        self._head = widgets.HBox([self.progress, self.counts])
        self.picture = widgets.HTML()
        self.picture.layout.margin = "8px 16px 0 0"
        self.picture.layout.flex, self.picture.layout.align_self = "0 0 auto", "flex-start"
        self.question, self.chosen, self.response, self.remark = (widgets.HTML() for _ in range(4))
        half = widgets.Layout(flex="1 1 220px", min_width="0")
        self.chosen.layout = self.response.layout = half
        self.question.layout.width = self.remark.layout.width = "auto"
        pair = widgets.HBox([self.chosen, self.response])
        pair.layout.flex_flow, pair.layout.grid_gap = "row wrap", "0 12px"
        texts = widgets.VBox([self.question, pair, self.remark])
        texts.layout.flex, texts.layout.min_width = "1 1 290px", "0"
        self._body = widgets.HBox([self.picture, texts])
        self._body.layout.flex_flow = "row wrap"
        self.note = widgets.Text(
            placeholder="E: a note, if any", tooltip="note", continuous_update=False
        )
        self.note.layout.width = "320px"
        self.note.observe(self._note_changed, "value")
        self._actions: dict[str, Callable[[], None]] = {
            **{value: lambda value=value: self.label(value) for value in CHOICES},
            "previous": lambda: self.show(self._at - 1),
            "next": lambda: self.show(self._at + 1),
            "undo": self.undo,
            "first": lambda: self.show(self._first_unlabelled() or 0),
        }
        self.buttons = {
            value: self._button(value, text, tooltip) for value, (text, tooltip) in CHOICES.items()
        }
        for name, (text, icon) in MOVES.items():
            self.buttons[name] = self._button(name, text, icon=icon)
        rows = [widgets.HBox([self.buttons[name] for name in names]) for names in (CHOICES, MOVES)]
        for row in rows:
            row.layout.flex_flow = "row wrap"
        rows[0].children += (self.note,)
        self._panel = widgets.VBox([*rows, self.said])

    def _button(self, action: str, text: str, tooltip: str = "", icon: str = "") -> widgets.Button:
        button = widgets.Button(description=text, tooltip=tooltip or text, icon=icon)
        button.layout.width = "auto"
        # The listener tells its clicks, with the item shown; without one they come by themselves.
        button.add_class(CLICKED + action)
        button.on_click(lambda _: self._actions[action]())
        return button

    def _note_changed(self, _: Any) -> None:
        """A note on an item that has its label is stored at once; another waits for its label."""
        if self._showing:
            return
        there = self._labels.get(self.items[self._at])
        if not there:
            self._drafts[self._at] = self.note.value
        elif self._store(there["label"]):
            self._say(f"Labelled {there['label']}, note saved.")
            self._still_ours(there)

    def _still_ours(self, before: Mapping[str, str]) -> None:
        """After a change of a note here: undo expects the label with the new one."""
        at, now = self._at, self._labels[self.items[self._at]]
        self._done = [
            (done, was, now if done == at and given == before else given)
            for done, was, given in self._done
        ]

    def _write_note(self, text: str) -> None:
        self._showing = True  # the note that comes with an item is not an edit
        self.note.value = text
        self._showing = False

    def _count(self) -> None:
        done = [item for item in self.items if item in self._labels]
        wanted = [kind for _, kind in self.items]
        self.progress.value = len(done)
        parts = [
            f"{name}: {sum(kind == which for _, kind in done)}/{wanted.count(which)}"
            for which, name in KINDS.items()
            if which in wanted
        ]
        place = f"item {self._at + 1} of {len(self.items)}"
        ended = " · <b>all labelled, thank you</b>" if len(done) == len(self.items) else ""
        text = f"{place} · labelled {len(done)} ({', '.join(parts)}){ended}"
        name = html.escape(self.annotator)
        self.counts.value = f'<span class="napo-said">{text} · annotator {name}</span>'

    def _say(self, text: str, heard: str = "") -> None:
        """Show a sentence, and let screen readers say it or, if given, a longer one."""
        self.said.value = f'<span class="napo-said">{html.escape(text)}</span>'
        self.listener.said = heard or text

    # --- the file -----------------------------------------------------------------------------

    def _store(self, value: str) -> bool:
        id, kind = self.items[self._at]
        label = {"id": id, "kind": kind, "label": value, "annotator": self.annotator}
        there = self._labels.get((id, kind))
        group = there["group"] if there else ""
        new = {**label, "note": self.note.value, "group": group}
        return self._try(partial(store_label, self.path, new, there), self._at)

    def _try(self, change: Callable[[], None], at: int) -> bool:
        """Change an item's label and read the file again; what went wrong is said, and why."""
        try:
            change()
            self._read()
        except LabelledMeanwhile as error:
            written = self.note.value if at == self._at else ""
            self._read()
            self._done = [done for done in self._done if done[0] != at]  # no longer ours to undo
            self.show(at)
            if written:
                self._write_note(written)  # what was being written is not lost
            self._say(f"NOT saved: {error}")
            return False
        except (OSError, NapoError) as error:
            self._say(f"NOT saved: {error}")
            return False
        return True

    def _read(self) -> None:
        """What the file holds now, another tab's labels included."""
        found = read_labels(self.path) if self.path.is_file() else pd.DataFrame()
        self._labels: dict[tuple[str, str], dict[str, str]] = {
            (row["id"], row["kind"]): row
            for row in found.to_dict("records")
            if row["annotator"] == self.annotator
        }

    def _first_unlabelled(self, after: int = -1) -> int | None:
        count = len(self.items)
        order = [(after + 1 + step) % count for step in range(count)]
        return next((at for at in order if self.items[at] not in self._labels), None)


def label(session: Session, name: str) -> Annotator:
    """The widget in which a person labels the samples, each label at once in their CSV.

    Args:
        session: the notebook's.
        name: who labels; "adjudicated": see `adjudicate`.

    Raises:
        NapoError: without a name, or with the name that stands for the scenes' truth.
    """
    if name == ADJUDICATED:
        return adjudicate(session)
    if name in ("", ORACLE):
        raise NapoError("Set `annotator` to your name, so that your labels are told from others'.")
    return Annotator(*labels.to_label(session, name), name)


def adjudicate(session: Session) -> Annotator:
    """The widget on the responses that people label differently, with what each of them said.

    Decisions go to adjudicated.csv, which holds nothing else; `annotate` with "adjudicated" puts
    them with what people agree on.

    Raises:
        NapoError: when fewer than two people labelled, or they agree on everything.
    """
    rows, samples, path = labels.to_label(session, ADJUDICATED)
    found = disagreements(labels.labels_of_several(path.parent))
    if found.empty:
        raise NapoError(
            f'Nothing is disputed; use the labels with `annotator` set to "{ADJUDICATED}" and '
            "`interactive` to False."
        )
    remarks = {(row.id, row.kind): row.said for row in found.itertuples()}
    return Annotator(rows, samples, path, ADJUDICATED, remarks)


def _box(name: str, remark: str, content: str) -> str:
    remark = f" <small>{remark}</small>" if remark else ""
    # dir=auto: a text that runs from right to left turns nothing else around.
    return (
        f'<div class="napo-name">{name}{remark}</div>'
        f'<div class="napo-text" dir="auto">{content or "(empty)"}</div>'
    )


def _img(image: Any) -> str:
    """The picture at its size on the screen; icons keep their pixels."""
    from PIL import Image

    scale = SIDE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    how = Image.Resampling.NEAREST if scale > 3 else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    image.convert("RGB").resize(size, how).save(buffer, format="PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    alt = "The picture that the question is about"
    return f'<img alt="{alt}" src="data:image/png;base64,{content}">'
