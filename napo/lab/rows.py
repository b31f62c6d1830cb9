"""A gallery of RLAIF-V-Bias: the picture, question and four responses of each row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import ipywidgets as widgets

from napo import stages
from napo.config.variants import RESPONSES
from napo.lab.html import against, card, cards, escaped, picture, words
from napo.lab.live import Explorer, Pages, controls
from napo.stages.session import Session

PAGE = 4  # rows per page
SEARCHED = ("id", "question", *RESPONSES)


def rows(session: Session) -> Rows:
    """The rows of RLAIF-V-Bias, to page through and to search.

    Words of a response that differ from the chosen response are marked.

    Raises:
        NapoError: when the rows are not built.
    """
    return Rows(stages.biased_rows(session, reference=False))


class Rows(Explorer):
    """See `rows`; `data` is a `datasets.Dataset` or a list of dicts."""

    def __init__(self, data: Any) -> None:
        self.data, self.matches, self.pages = data, list(range(len(data))), Pages(PAGE, len(data))
        self.search = widgets.Text(
            placeholder="words, then Enter: in id, question, responses", continuous_update=False
        )
        self.search.layout.width = "340px"
        name = f"{len(data)} rows of RLAIF-V-Bias with their four responses"
        super().__init__(name, self.page(), [controls(self.search, self.pages)])
        self.search.observe(self.filter, "value")
        self.pages.observe(self.update, "page")

    def fill(self) -> None:
        """Show the rows of this page."""
        self.view.value = self.page()

    def page(self) -> str:
        """The rows of this page, as HTML."""
        return cards(row_card(self.data[self.matches[index]]) for index in self.pages.shown)

    def filter(self, _: Any) -> None:
        """Search again and show the first page of matching rows."""
        searched = self.search.value.casefold().strip()
        self.matches = [index for index, text in enumerate(self.texts) if searched in text]
        self.pages.count, self.pages.page = len(self.matches), 0
        self.update()

    @cached_property
    def texts(self) -> list[str]:
        """The text of every row, read at the first search."""
        columns = [column(self.data, name) for name in SEARCHED]
        return ["\n".join(map(str, parts)).casefold() for parts in zip(*columns, strict=True)]


def row_card(row: Mapping[str, Any]) -> str:
    """A row as a card: picture, question, and its responses, marked against the chosen one."""
    parts = [
        picture(row["image"], f"The picture of row {row['id']}"),
        words("Question", escaped(row["question"]), f"row {row['id']}"),
        words("Chosen", escaped(row["chosen"])),
    ]
    for name in RESPONSES[1:]:
        note = "equals the chosen one" if row[name].strip() == row["chosen"].strip() else ""
        title = name.replace("_", "-").capitalize()
        parts.append(words(title, against(row["chosen"], row[name]), note))
    return card(*parts)


def column(data: Any, name: str) -> list[Any]:
    """One column of a dataset or a list of rows; no image is decoded."""
    if not hasattr(data, "column_names"):
        return [row[name] for row in data]
    return data.with_format(None)[name][:]  # in one read: a formatted column comes row by row
