"""Before and after: what several runs answered to one benchmark item."""

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

USUAL = ("base", "dpo", "A1")  # the first seed of each, as far as there is one
LISTED = 8


def answers(session: Session, runs: Iterable[str] = ()) -> Answers:
    """The answers of several runs to one item of a benchmark, beside its picture.

    Words of an answer that are not in the first run's at their place are marked. The first item is
    one that they answer differently, if there is any.

    Args:
        session: the session.
        runs: which to compare first: names such as "base" or "A1/seed-0", or variants, for all
            their seeds; none: base, and the first seeds of dpo and A1.

    Raises:
        NapoError: when there are no results, none of that name, or the benchmarks are not there.
    """
    return Answers(session, tuple([runs] if isinstance(runs, str) else runs))


class Answers(Explorer):
    """See `answers`."""

    def __init__(self, session: Session, runs: tuple[str, ...]) -> None:
        self._session = session
        there = finished(session.workspace.results, session)
        if not there:
            raise NapoError(
                f"{session.workspace.results} holds no results; run notebooks/06_evaluate.ipynb "
                "first."
            )
        first = chosen(runs, there) if runs else _usual(there)
        self.requests = lru_cache(maxsize=None)(lambda name: stages.requests(session, name))
        self.told = lru_cache(maxsize=None)(self._told)
        self.benchmark = widgets.Dropdown(
            options=session.profile.evaluation.benchmarks, description="benchmark"
        )
        self.runs = widgets.SelectMultiple(
            options=there, value=first, rows=min(LISTED, len(there)), description="runs"
        )
        self.search = widgets.Text(
            placeholder="search in id, question, answers", continuous_update=False
        )
        self.differing = widgets.Checkbox(True, description="only where answers differ")
        self.differing.indent = False
        self.pages = Pages(1, "items")
        self._found = self._matching()
        if not self._found:  # all say the same, or there is one run
            self.differing.value = False
            self._found = self._matching()
        self.pages.count = len(self._found)
        left = widgets.VBox([self.benchmark, self.search, self.differing, self.pages])
        static = self.item(self._found[0], first)
        super().__init__("Answers before and after training", static, [controls(left, self.runs)])
        for part in (self.benchmark, self.search, self.differing, self.runs):
            part.observe(self._filter, "value")
        self.watch((self.pages, "page"))

    def _fill(self) -> None:
        if not self.runs.value:
            self.view.value = remark("Choose a run.")
            return
        shown = [self.item(self._found[at], self.runs.value) for at in self.pages.shown]
        self.view.value = "".join(shown) or remark("No item is like that.")

    def item(self, number: int, runs: tuple[str, ...]) -> str:
        """One item: picture, question, and a table of what the runs answered."""
        name = self.benchmark.value
        request = self.requests(name)[number]
        found = [(run, self.told(name, run).get(request.id)) for run in runs]
        first = next((text for _, text in found if text is not None), "")
        cells = [
            (run, escaped("(not asked)") if text is None else against(first, text))
            for run, text in found
        ]
        return card(
            picture(request.open(), f"The picture of item {request.id} of {name}"),
            words("Question", escaped(request.text), f"{name}, item {request.id}"),
            table(cells),
        )

    def _filter(self, _: object = None) -> None:
        try:
            self._found = self._matching()
        except NapoError as error:
            self._found, self.view.value, self.said.value = [], "", remark(str(error))
            return
        if not self.pages.restart(len(self._found)):
            self.update()  # otherwise the turned page did

    def _matching(self) -> list[int]:
        """Numbers of the items that the search and the box leave."""
        name, wanted = self.benchmark.value, self.search.value.casefold().strip()
        asked = self.requests(name)
        if not wanted and not self.differing.value:
            return list(range(len(asked)))
        columns = [self.told(name, run) for run in self.runs.value]
        found = []
        for number, request in enumerate(asked):
            texts = [column.get(request.id, "") for column in columns]
            if self.differing.value and len({text.strip() for text in texts}) < 2:
                continue
            if wanted in "\n".join((request.id, request.text, *texts)).casefold():
                found.append(number)
        return found

    def _told(self, name: str, run: str) -> dict[str, str]:
        """A run's answers by id; none where it was not asked this benchmark."""
        folder = self._session.workspace.result(run)
        require(folder)
        entries, _ = runner.kept(folder / f"{name}.answers.jsonl", self.requests(name))
        return {entry["id"]: entry["answer"] for entry in entries}


def _usual(there: list[str]) -> tuple[str, ...]:
    firsts = [run for name in USUAL for run in matching(name, there)[:1]]
    return tuple(firsts or there[: len(USUAL)])
