"""Before and after: the answers of several runs to one benchmark item, beside the right one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import ipywidgets as widgets

from napo import stages
from napo.benchmarks import Mark
from napo.errors import NapoError
from napo.lab.html import against, card, escaped, picture, remark, table, words
from napo.lab.live import Explorer, Pages, controls
from napo.lab.runs import run_list
from napo.stages import answers as stored
from napo.stages.session import Session

ALL, DIFFERING, DIVIDED = "all items", "answers differ", "some right, some wrong"
FIXED, BROKEN = "fixed by ", "broken by "  # before the name of a run
VERDICTS = {True: " is right", False: " is wrong", None: ""}


class Answers(Explorer):
    """The answers of several runs to one item of a benchmark, beside its picture.

    Each answer is right or wrong by the official scorer. Words that differ from the first run's
    answer are marked. A run has fixed an item that the first run answers wrong and it answers
    right; broken is the reverse. The first item shown is one that some runs answer right and some
    wrong, and that the picture decides, if there is one.

    Args:
        session: the session.
        runs: the runs to compare first, see `napo.lab.runs.run_list`.

    Raises:
        NapoError: without results, for an unknown run, or without the benchmarks.
    """

    def __init__(self, session: Session, runs: Iterable[str] = ()) -> None:
        self.session = session
        self.requests = lru_cache(maxsize=None)(lambda name: stages.requests(session, name))
        self.answers_of = lru_cache(maxsize=None)(lambda *of: stored.answers(session, *of))
        self.marks_of = lru_cache(maxsize=None)(lambda *of: stored.marks(session, *of))
        self.runs = run_list(session, session.workspace.results, "06_evaluate", runs)
        self.benchmark = widgets.Dropdown(
            options=session.profile.evaluation.benchmarks, description="benchmark"
        )
        self.search = widgets.Text(
            placeholder="words, then Enter: in id, question, answers", continuous_update=False
        )
        self.only = widgets.Dropdown(options=self.filters(), description="show")
        for choice in (DIVIDED, DIFFERING, ALL):  # the first that any item passes
            if choice in self.only.options:
                self.only.value = choice
                if self.matching_items():
                    break
        self.matches = self.matching_items()
        self.pages = Pages(1, len(self.matches))
        self.pages.page = self.first_page()
        left = widgets.VBox([self.benchmark, self.search, self.only, self.pages])
        static = self.item(self.matches[self.pages.page]) + self.tally()
        super().__init__("Answers before and after training", static, [controls(left, self.runs)])
        self.runs.observe(self.offer_filters, "value")
        for control in (self.benchmark, self.search, self.only, self.runs):
            control.observe(self.filter, "value")
        self.pages.observe(self.update, "page")

    def filters(self) -> list[str]:
        """All items, those with different answers, and those fixed or broken by a run."""
        others = self.runs.value[1:]
        changes = [f"{kind}{run}" for run in others for kind in (FIXED, BROKEN)]
        return [ALL, DIFFERING, DIVIDED, *changes] if others else [ALL]

    def offer_filters(self, _: object) -> None:
        """Offer the filters of the selected runs; a chosen filter stays if it is among them."""
        chosen, choices = self.only.value, self.filters()
        self.only.options = choices
        self.only.value = chosen if chosen in choices else ALL

    def fill(self) -> None:
        """Show the item of this page."""
        items = [self.item(self.matches[index]) for index in self.pages.shown]
        empty = "No item matches." if self.runs.value else "Choose a run."
        self.view.value = ("".join(items) or remark(empty)) + self.tally()

    def item(self, number: int) -> str:
        """One item: picture, question, the right answer, and the selected runs' answers."""
        name = self.benchmark.value
        request = self.requests(name)[number]
        texts = [(run, self.answers_of(run, name).get(request.id)) for run in self.runs.value]
        first = next((text for _, text in texts if text is not None), "")
        marks = {run: self.mark(run, request.id) for run in self.runs.value}
        right = next((mark.right for mark in marks.values() if mark), None)
        rows = [] if right is None else [("right answer", escaped(right))]
        for run, text in texts:
            content = escaped("(not asked)") if text is None else against(first, text)
            rows.append((f"{run}{VERDICTS[marks[run] and marks[run].correct]}", content))
        return card(
            picture(request.open(), f"The picture of item {request.id} of {name}"),
            words("Question", escaped(request.text), f"{name}, item {request.id}"),
            table(rows),
        )

    def mark(self, run: str, request: str) -> Mark | None:
        """A run's answer to a request beside the right one; None where nothing says so."""
        return self.marks_of(run, self.benchmark.value).get(request)

    def filter(self, _: object) -> None:
        """Find the matching items again and show the first one."""
        try:
            self.matches, error = self.matching_items(), ""
        except NapoError as refusal:
            self.matches, error = [], str(refusal)
        self.pages.count = len(self.matches)
        self.pages.page = 0 if error else self.first_page()
        self.update()
        self.message.value = remark(error) if error else ""

    def first_page(self) -> int:
        """The place of the first match that the picture decides, else the first one."""
        name, runs = self.benchmark.value, self.runs.value
        marks = self.marks_of(runs[0], name) if runs else {}
        for place, number in enumerate(self.matches):
            mark = marks.get(self.requests(name)[number].id)
            if mark is None or mark.about_picture:
                return place
        return 0

    def matching_items(self) -> list[int]:
        """Numbers of the items that match the search and the filter."""
        name, searched = self.benchmark.value, self.search.value.casefold().strip()
        answers = [self.answers_of(run, name) for run in self.runs.value]
        numbers = []
        for number, request in enumerate(self.requests(name)):
            texts = [given.get(request.id, "") for given in answers]
            text = "\n".join((request.id, request.text, *texts)).casefold()
            if searched in text and self.passes(request.id, texts):
                numbers.append(number)
        return numbers

    def passes(self, request: str, texts: list[str]) -> bool:
        """Whether a request with these answers passes the filter."""
        choice = self.only.value
        if choice == DIFFERING:
            return len({text.strip() for text in texts}) > 1
        if choice == DIVIDED:
            marks = [self.mark(run, request) for run in self.runs.value]
            return len({mark.correct for mark in marks if mark}) > 1
        return choice == ALL or choice in self.changes(request)

    def changes(self, request: str) -> set[str]:
        """The runs that have fixed or broken a request, as the filters are written."""
        first, *others = (self.mark(run, request) for run in self.runs.value)
        return {
            f"{FIXED if mark.correct else BROKEN}{run}"
            for run, mark in zip(self.runs.value[1:], others, strict=True)
            if first and mark and first.correct != mark.correct
        }

    def tally(self) -> str:
        """How many items of the benchmark each run has fixed and broken, as HTML."""
        name, first = self.benchmark.value, next(iter(self.runs.value), "")
        others = [run for run in self.runs.value[1:] if self.marks_of(run, name)]
        if not others or not self.marks_of(first, name):
            return ""
        counts = Counter(c for request in self.requests(name) for c in self.changes(request.id))
        return "".join(
            remark(
                f"{run}: {counts[FIXED + run]} answers of {name} fixed, {counts[BROKEN + run]} "
                f"broken, compared with {first}."
            )
            for run in others
        )
