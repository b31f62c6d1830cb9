"""A gallery of RLAIF-V-Bias: each row's picture, question and four responses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import ipywidgets as widgets

from napo import stages
from napo.config.variants import RESPONSES
from napo.lab.html import against, card, cards, escaped, picture, words
from napo.lab.live import Explorer, Pages, controls
from napo.stages.session import Session

PAGE = 4  # rows at a time
SEARCHED = ("id", "question", *RESPONSES)


def rows(session: Session) -> Rows:
    """The rows of RLAIF-V-Bias, to leaf through and to search.

    Words of a response that are not in the chosen one at their place are marked.

    Raises:
        NapoError: when the rows are not built.
    """
    return Rows(stages.biased_rows(session, reference=False))


class Rows(Explorer):
    """See `rows`.

    Args:
        data: rows of RLAIF-V-Bias; a `datasets.Dataset` or a list of dicts.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self.card = lru_cache(maxsize=256)(lambda at: row_card(data[at]))  # ours, gone with us
        self.search = widgets.Text(
            placeholder="search in id, question, responses", continuous_update=False
        )
        self.search.layout.width = "300px"
        self.pages = Pages(PAGE)
        self.pages.count = len(data)
        self._found = list(range(len(data)))
        first = cards(self.card(at) for at in self.pages.shown)
        name = f"{len(data)} rows of RLAIF-V-Bias with their four responses"
        super().__init__(name, first, [controls(self.search, self.pages)])
        self.search.observe(self._search, "value")
        self.watch((self.pages, "page"))

    def _fill(self) -> None:
        self.view.value = cards(self.card(self._found[at]) for at in self.pages.shown)

    def _search(self, _: Any) -> None:
        wanted = self.search.value.casefold().strip()
        self._found = [at for at, text in enumerate(self._texts) if wanted in text]
        if not self.pages.restart(len(self._found)):
            self.update()  # otherwise the turned page did

    @cached_property
    def _texts(self) -> list[str]:
        """Every row's words, read when they are first searched."""
        columns = [column(self._data, name) for name in SEARCHED]
        return ["\n".join(map(str, parts)).casefold() for parts in zip(*columns, strict=True)]


def row_card(row: Mapping[str, Any]) -> str:
    """A row as a card: picture, question, and its responses, marked against the chosen one."""
    parts = [
        picture(row["image"], f"The picture of row {row['id']}"),
        words("Question", escaped(row["question"]), f"row {row['id']}"),
        words("Chosen", escaped(row["chosen"])),
    ]
    for name in RESPONSES[1:]:
        same = "equals the chosen one" if row[name].strip() == row["chosen"].strip() else ""
        title = name.replace("_", "-").capitalize()
        parts.append(words(title, against(row["chosen"], row[name]), same))
    return card(*parts)


def column(data: Any, name: str) -> list[Any]:
    """One column of a dataset or a list of rows, without touching the images."""
    if not hasattr(data, "column_names"):
        return [row[name] for row in data]
    return data.with_format(None)[name][:]  # at once: a formatted column comes row by row
