"""The annotator: label biased responses in JupyterLab, each label on the disk before the next item.

Texts of models and data sets are escaped and shown as they are.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.lab.html import STYLE, escaped, marked, picture, words
from napo.lab.keyboard import CLICKED, Keys
from napo.noise.agreement import disagreements
from napo.noise.labels import (
    ADJUDICATED,
    LABELS,
    ORACLE,
    LabelledMeanwhile,
    nfc,
    read_labels,
    remove_label,
    store_label,
)
from napo.noise.samples import equals_chosen, sampled_rows
from napo.stages import labels
from napo.stages.session import Session

MASKED = {"language_biased": "image masked", "vision_biased": "question masked"}
BUTTONS = {  # action -> (text, tooltip, icon)
    "biased": ("1 Biased (noise-free)", "a bad answer: wrong, or beside the question", ""),
    "unbiased": ("2 Unbiased (noise)", "a good answer: true, and it answers the question", ""),
    "unsure": ("3 Unsure", "left out of the statistics", ""),
    "previous": ("\u2190 Previous", "", ""),
    "next": ("\u2192 Next", "", ""),
    "undo": ("U Undo", "", "undo"),
    "first": ("F First unlabelled", "", "step-forward"),
}
AROUND = "napo-annotator"
KEYS = {
    **{str(number): label for number, label in enumerate(LABELS, 1)},
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
# Stripes instead of coloured buttons: white on JupyterLab's orange or green is too faint to read.
_CSS = """<style>
.napo-annotator {padding: 10px 12px}
.napo-annotator .does-biased {border-left: 5px solid #f57c00}
.napo-annotator .does-unbiased {border-left: 5px solid #388e3c}
.napo-annotator .does-unsure {border-left: 5px solid #757575}
.napo-said {color: var(--jp-content-font-color2, #555)}
</style>"""


class Annotator(widgets.VBox):
    """Shows one biased response at a time beside the chosen one, and stores its label.

    The note is stored with the label. Both can be changed later. If another tab has labelled an
    item since it was shown here, that label is kept and shown first.

    Args:
        rows: rows of RLAIF-V-Bias, images decoded; a `datasets.Dataset` or dicts.
        samples: ids to label, in this order (`napo.noise.samples.sample`); both responses of each.
        path: the labels CSV; labels that are in it already are not asked for again.
        annotator: name of the person who labels.
        remarks: what others said, by (id, kind), shown beside the response; if given, only these
            items are shown.

    Raises:
        NapoError: for a sample that is not among the rows.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        samples: Sequence[str],
        path: Path,
        annotator: str,
        remarks: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.annotator, self.path, self.index = nfc(annotator), Path(path), 0
        self._rows = sampled_rows(rows, samples)
        self._remarks = remarks or {}
        items = [(id, kind) for id in samples for kind in BIASED]
        self.items = [item for item in items if remarks is None or item in remarks]
        # Index, label before, label given here: undo withdraws only an unchanged label.
        self._history: list[tuple[int, dict[str, str] | None, dict[str, str]]] = []
        self._drafts: dict[int, str] = {}  # notes written before their label
        self._showing = False
        self._build()
        # Buttons above the texts: they stay under the pointer however long a text is.
        super().__init__([self._style, self._head, self._panel, self._body, self.listener])
        self.add_class(AROUND)
        self._read()
        self.show(self._first_unlabelled() or 0)

    def label(self, value: str) -> None:
        """Store the label of the item that is shown, then show the next one without a label."""
        index, (id, kind) = self.index, self.items[self.index]
        before = self._labels.get((id, kind))
        label = {"id": id, "kind": kind, "annotator": self.annotator, "group": ""} | (before or {})
        if not self._store(index, {**label, "label": value, "note": self.note.value}, before):
            return
        self._drafts.pop(index, None)
        self._history.append((index, before, self._labels[id, kind]))
        following = self._first_unlabelled(after=index)
        self.show(index if following is None else following, f"Saved: {value}. ")

    def press(self, action: str, item: int) -> None:
        """Do what a key or button stands for, if the item that was on the screen is still shown."""
        if item == self.index and action in self._actions:
            self._actions[action]()

    def undo(self) -> None:
        """Take back the last label given here, and show its item."""
        if not self._history:
            self._say("Nothing to undo.")
            return
        index, before, given = self._history[-1]
        if self._store(index, before, given):
            self._history.pop()
            if before is None:
                self._drafts[index] = given["note"]  # kept for the next label
            self.show(index, "Taken back. ")

    def show(self, index: int, event: str = "", note: str = "") -> None:
        """Show an item by its number, from 0; outside the items, the nearest.

        `event` has just happened, for screen readers. `note` replaces the stored or drafted note.
        """
        self.index = min(max(index, 0), len(self.items) - 1)
        id, kind = self.items[self.index]
        row, label = self._rows[id], self._labels.get((id, kind))
        chosen, response = marked(row["chosen"], row[kind])
        name = kind.replace("_", "-")
        self.picture.value = picture(row["image"], "The picture that the question is about", SIDE)
        self.question.value = words("Question", escaped(row["question"]))
        self.chosen.value = words("Chosen", chosen)
        self.response.value = words(name.capitalize(), response, MASKED[kind])
        remark = self._remarks.get((id, kind))
        self.remark.value = words("Said so far", escaped(remark)) if remark else ""
        self._showing = True  # setting the note here is no edit
        self.note.value = note or (label["note"] if label else self._drafts.get(self.index, ""))
        self._showing = False
        for value in LABELS:
            self.buttons[value].icon = "check" if label and label["label"] == value else ""
        state = f"Labelled {label['label']}, saved." if label else "Not labelled yet."
        if equals_chosen(row, kind):
            state += " It equals the chosen response, which is noise by definition."
        self._say(state, f"{event}Item {self.index + 1} of {len(self.items)}, {name}. {state}")
        names = {item: item[1].replace("_", "-") for item in self.items}
        done = [names[item] for item in self.items if item in self._labels]
        totals = Counter(names.values()).items()
        counts = ", ".join(f"{name}: {done.count(name)}/{total}" for name, total in totals)
        ended = " · <b>all labelled, thank you</b>" if len(done) == len(self.items) else ""
        self.progress.value = len(done)
        self.counts.value = (
            f'<span class="napo-said">item {self.index + 1} of {len(self.items)} · labelled '
            f"{len(done)} ({counts}){ended} · annotator {html.escape(self.annotator)}</span>"
        )
        self.listener.item = self.index  # last: this number says that the item is on the screen

    def _build(self) -> None:
        self._style = widgets.HTML(STYLE + _CSS)
        self.listener = Keys(
            around=AROUND, bindings=KEYS, label="Label biased responses", once=list(LABELS)
        )
        self.listener.on_msg(lambda _, sent, __: self.press(sent["action"], sent["item"]))
        self.progress = widgets.IntProgress(max=len(self.items), layout={"width": "200px"})
        self.counts, self.said = widgets.HTML(), widgets.HTML()
        self._head = widgets.HBox([self.progress, self.counts])
        self.picture = widgets.HTML(
            layout={"margin": "8px 16px 0 0", "flex": "0 0 auto", "align_self": "flex-start"}
        )
        full, half = {"width": "auto"}, {"flex": "1 1 220px", "min_width": "0"}
        self.question, self.remark = widgets.HTML(layout=full), widgets.HTML(layout=full)
        self.chosen, self.response = widgets.HTML(layout=half), widgets.HTML(layout=half)
        wrap = {"flex_flow": "row wrap"}
        pair = widgets.HBox([self.chosen, self.response], layout=wrap | {"grid_gap": "0 12px"})
        texts = widgets.VBox(
            [self.question, pair, self.remark], layout={"flex": "1 1 290px", "min_width": "0"}
        )
        self._body = widgets.HBox([self.picture, texts], layout=wrap)
        self.note = widgets.Text(
            placeholder="E: a note, if any", tooltip="note", continuous_update=False
        )
        self.note.layout.width = "320px"
        self.note.observe(self._edit_note, "value")
        self._actions: dict[str, Callable[[], None]] = {
            **{value: partial(self.label, value) for value in LABELS},
            "previous": lambda: self.show(self.index - 1),
            "next": lambda: self.show(self.index + 1),
            "undo": self.undo,
            "first": lambda: self.show(self._first_unlabelled() or 0),
        }
        self.buttons = {}
        for action, (text, tooltip, icon) in BUTTONS.items():
            button = widgets.Button(
                description=text, tooltip=tooltip or text, icon=icon, layout={"width": "auto"}
            )
            # The listener reports its clicks, with the item shown; on_click serves without one.
            button.add_class(CLICKED + action)
            button.on_click(lambda _, action=action: self._actions[action]())
            self.buttons[action] = button
        choices = [self.buttons[value] for value in LABELS] + [self.note]
        moves = [button for action, button in self.buttons.items() if action not in LABELS]
        rows = [widgets.HBox(row, layout=wrap) for row in (choices, moves)]
        self._panel = widgets.VBox([*rows, self.said])

    def _edit_note(self, _: Any) -> None:
        """Store the note of an item that has a label; keep another as a draft for its label."""
        if self._showing:
            return
        index, item = self.index, self.items[self.index]
        before = self._labels.get(item)
        if before is None:
            self._drafts[index] = self.note.value
        elif self._store(index, {**before, "note": self.note.value}, before):
            self._say(f"Labelled {before['label']}, note saved.")
            after = self._labels[item]  # undo must expect the new note
            self._history = [
                (i, old, after if (i, given) == (index, before) else given)
                for i, old, given in self._history
            ]

    def _store(
        self, index: int, label: dict[str, str] | None, expected: dict[str, str] | None
    ) -> bool:
        """Store an item's label, or withdraw it (None), and read the file again.

        Returns:
            Whether it was stored; if not, the reason is shown.
        """
        try:
            if label is None:
                remove_label(self.path, *self.items[index], self.annotator, expected)
            else:
                store_label(self.path, label, expected)
            self._read()
        except (OSError, NapoError) as error:
            if isinstance(error, LabelledMeanwhile):
                self._read()
                self._history = [entry for entry in self._history if entry[0] != index]
                self.show(index, note=self.note.value if index == self.index else "")
            self._say(f"NOT saved: {error}")
            return False
        return True

    def _read(self) -> None:
        """Read the file, labels from other tabs included."""
        rows = read_labels(self.path).to_dict("records") if self.path.is_file() else []
        self._labels: dict[tuple[str, str], dict[str, str]] = {
            (row["id"], row["kind"]): row for row in rows if row["annotator"] == self.annotator
        }

    def _first_unlabelled(self, after: int = -1) -> int | None:
        order = [*range(after + 1, len(self.items)), *range(after + 1)]
        return next((index for index in order if self.items[index] not in self._labels), None)

    def _say(self, text: str, spoken: str = "") -> None:
        """Show a sentence; screen readers speak it, or the longer one if given."""
        self.said.value = f'<span class="napo-said">{html.escape(text)}</span>'
        self.listener.said = spoken or text


def label(session: Session, name: str) -> Annotator:
    """The widget in which a person labels the samples; each label is stored at once in their CSV.

    The name "adjudicated" opens `adjudicate`.

    Raises:
        NapoError: without a name, or with the name that stands for the scenes' truth.
    """
    if name == ADJUDICATED:
        return adjudicate(session)
    if name in ("", ORACLE):
        raise NapoError("Set `annotator` to your name: it names the file of your labels.")
    return Annotator(*labels.to_label(session, name), name)


def adjudicate(session: Session) -> Annotator:
    """The widget on the responses that people label differently, with the labels of each.

    Decisions go to adjudicated.csv, which holds nothing else. `stages.annotate` with "adjudicated"
    adds the labels on which people agree.
    """
    rows, samples, path = labels.to_label(session, ADJUDICATED)
    disputed = disagreements(labels.labels_of_several(session))
    disputed = disputed[disputed["id"].isin(samples)]
    if disputed.empty:
        raise NapoError(
            f'Nothing is disputed; use the labels with `annotator` set to "{ADJUDICATED}" and '
            "`interactive` to False."
        )
    remarks = {(row.id, row.kind): row.said for row in disputed.itertuples()}
    return Annotator(rows, samples, path, ADJUDICATED, remarks)
