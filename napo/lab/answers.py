"""Before and after: the answers of several runs to one benchmark item."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import ipywidgets as widgets

from napo import stages
from napo.benchmarks import runner
from napo.errors import NapoError
from napo.lab.html import against, card, escaped, picture, remark, table, words
from napo.lab.live import Explorer, Pages, controls
from napo.lab.runs import run_list
from napo.stages.session import Session
from napo.workspace.manifests import require


class Answers(Explorer):
    """The answers of several runs to one item of a benchmark, beside its picture.

    Words that differ from the first run's answer are marked. The first item shown is one that the
    runs answer differently, if there is one.

    Args:
        session: the session.
        runs: the runs to compare first, see `napo.lab.runs.run_list`.

    Raises:
        NapoError: without results, for an unknown run, or without the benchmarks.
    """

    def __init__(self, session: Session, runs: Iterable[str] = ()) -> None:
        self.session = session
        self.requests = lru_cache(maxsize=None)(lambda name: stages.requests(session, name))
        self.answers_of = lru_cache(maxsize=None)(self.read_answers)
        self.runs = run_list(session, session.workspace.results, "06_evaluate", runs)
        self.benchmark = widgets.Dropdown(
            options=session.profile.evaluation.benchmarks, description="benchmark"
        )
        self.search = widgets.Text(
            placeholder="search in id, question, answers", continuous_update=False
        )
        self.differing = widgets.Checkbox(True, description="only where answers differ")
        self.differing.indent = False
        self.matches = self.matching_items()
        if not self.matches:  # all answers are equal, or there is one run
            self.differing.value = False
            self.matches = self.matching_items()
        self.pages = Pages(1, len(self.matches))
        left = widgets.VBox([self.benchmark, self.search, self.differing, self.pages])
        static = self.item(self.matches[0])
        super().__init__("Answers before and after training", static, [controls(left, self.runs)])
        for control in (self.benchmark, self.search, self.differing, self.runs):
            control.observe(self.filter, "value")
        self.pages.observe(self.update, "page")

    def fill(self) -> None:
        """Show the item of this page."""
        items = [self.item(self.matches[index]) for index in self.pages.shown]
        empty = "No item matches." if self.runs.value else "Choose a run."
        self.view.value = "".join(items) or remark(empty)

    def item(self, number: int) -> str:
        """One item: picture, question, and a table of the selected runs' answers."""
        name = self.benchmark.value
        request = self.requests(name)[number]
        texts = [(run, self.answers_of(name, run).get(request.id)) for run in self.runs.value]
        first = next((text for _, text in texts if text is not None), "")
        cells = [
            (run, escaped("(not asked)") if text is None else against(first, text))
            for run, text in texts
        ]
        return card(
            picture(request.open(), f"The picture of item {request.id} of {name}"),
            words("Question", escaped(request.text), f"{name}, item {request.id}"),
            table(cells),
        )

    def filter(self, _: object) -> None:
        """Find the matching items again and show the first one."""
        try:
            self.matches, error = self.matching_items(), ""
        except NapoError as refusal:
            self.matches, error = [], str(refusal)
        self.pages.count, self.pages.page = len(self.matches), 0
        self.update()
        self.message.value = remark(error) if error else ""

    def matching_items(self) -> list[int]:
        """Numbers of the items that match the search and the checkbox."""
        name, searched = self.benchmark.value, self.search.value.casefold().strip()
        answers_by_run = [self.answers_of(name, run) for run in self.runs.value]
        numbers = []
        for number, request in enumerate(self.requests(name)):
            texts = [answers.get(request.id, "") for answers in answers_by_run]
            differ = len({text.strip() for text in texts}) > 1
            text = "\n".join((request.id, request.text, *texts)).casefold()
            if searched in text and (differ or not self.differing.value):
                numbers.append(number)
        return numbers

    def read_answers(self, name: str, run: str) -> dict[str, str]:
        """A run's answers by id; empty if the run was not asked this benchmark."""
        folder = self.session.workspace.result(run)
        require(folder)
        entries, _ = runner.kept(folder / f"{name}.answers.jsonl", self.requests(name))
        return {entry["id"]: entry["answer"] for entry in entries}
