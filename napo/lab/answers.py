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
from napo.lab.runs import chosen, finished, matching
from napo.stages.session import Session
from napo.workspace.manifests import require

DEFAULT_RUNS = ("base", "dpo", "A1")  # the first seed of each that ran
LIST_ROWS = 8


def answers(session: Session, runs: Iterable[str] = ()) -> Answers:
    """The answers of several runs to one item of a benchmark, beside its picture.

    Words that differ from the first run's answer are marked. The first item shown is one that the
    runs answer differently, if there is one.

    Args:
        session: the session.
        runs: the runs to compare first: names such as "base" or "A1/seed-0", or variants, which
            stand for all their seeds. By default base and the first seeds of dpo and A1.

    Raises:
        NapoError: without results, for an unknown run, or without the benchmarks.
    """
    return Answers(session, tuple([runs] if isinstance(runs, str) else runs))


class Answers(Explorer):
    """See `answers`."""

    def __init__(self, session: Session, runs: tuple[str, ...]) -> None:
        folder = session.workspace.results
        names = finished(folder, session)
        if not names:
            raise NapoError(f"{folder} holds no results; run notebooks/06_evaluate.ipynb first.")
        firsts = [run for name in DEFAULT_RUNS for run in matching(name, names)[:1]]
        first = chosen(runs, names) if runs else tuple(firsts or names[: len(DEFAULT_RUNS)])
        self.session = session
        self.requests = lru_cache(maxsize=None)(lambda name: stages.requests(session, name))
        self.answers_of = lru_cache(maxsize=None)(self.read_answers)
        self.benchmark = widgets.Dropdown(
            options=session.profile.evaluation.benchmarks, description="benchmark"
        )
        self.runs = widgets.SelectMultiple(
            options=names, value=first, rows=min(LIST_ROWS, len(names)), description="runs"
        )
        self.search = widgets.Text(
            placeholder="search in id, question, answers", continuous_update=False
        )
        self.differing = widgets.Checkbox(True, description="only where answers differ")
        self.differing.indent = False
        self.pages = Pages(1, "items")
        self.matches = self.matching_items()
        if not self.matches:  # all answers are equal, or there is one run
            self.differing.value = False
            self.matches = self.matching_items()
        self.pages.count = len(self.matches)
        left = widgets.VBox([self.benchmark, self.search, self.differing, self.pages])
        static = self.item(self.matches[0], first)
        super().__init__("Answers before and after training", static, [controls(left, self.runs)])
        for control in (self.benchmark, self.search, self.differing, self.runs):
            control.observe(self.filter, "value")
        self.watch((self.pages, "page"))

    def fill(self) -> None:
        """Show the item of this page."""
        if not self.runs.value:
            self.view.value = remark("Choose a run.")
            return
        items = [self.item(self.matches[index], self.runs.value) for index in self.pages.shown]
        self.view.value = "".join(items) or remark("No item matches.")

    def item(self, number: int, runs: tuple[str, ...]) -> str:
        """One item: picture, question, and a table of the runs' answers."""
        name = self.benchmark.value
        request = self.requests(name)[number]
        texts = [(run, self.answers_of(name, run).get(request.id)) for run in runs]
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

    def filter(self, _: object = None) -> None:
        """Find the matching items again and show the first one."""
        try:
            self.matches = self.matching_items()
        except NapoError as error:
            self.matches, self.view.value, self.message.value = [], "", remark(str(error))
            return
        if not self.pages.restart(len(self.matches)):
            self.update()  # a changed page would have updated the view

    def matching_items(self) -> list[int]:
        """Numbers of the items that match the search and the checkbox."""
        name, searched = self.benchmark.value, self.search.value.casefold().strip()
        requests = self.requests(name)
        if not searched and not self.differing.value:
            return list(range(len(requests)))
        answers_by_run = [self.answers_of(name, run) for run in self.runs.value]
        numbers = []
        for number, request in enumerate(requests):
            texts = [answers.get(request.id, "") for answers in answers_by_run]
            if self.differing.value and len({text.strip() for text in texts}) < 2:
                continue
            if searched in "\n".join((request.id, request.text, *texts)).casefold():
                numbers.append(number)
        return numbers

    def read_answers(self, name: str, run: str) -> dict[str, str]:
        """A run's answers by id; empty if the run was not asked this benchmark."""
        folder = self.session.workspace.result(run)
        require(folder)
        entries, _ = runner.kept(folder / f"{name}.answers.jsonl", self.requests(name))
        return {entry["id"]: entry["answer"] for entry in entries}
