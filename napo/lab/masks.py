"""A row as the model sees it under each mask (Eqs. 7 and 8)."""

from __future__ import annotations

from functools import lru_cache

import ipywidgets as widgets

from napo import stages
from napo.data import sources
from napo.lab import views
from napo.lab.html import card, cards, escaped, heading, picture, words
from napo.lab.live import Explorer, controls
from napo.stages.session import Session


def masks(session: Session) -> Masks:
    """Any row: its picture, the prompt without a mask, and under each mask.

    Raises:
        NapoError: when there are no preference rows, or the model's processor does not load.
    """
    return Masks(session)


class Masks(Explorer):
    """See `masks`."""

    def __init__(self, session: Session) -> None:
        from napo.models.load import load_processor

        count = sources.number_of_rows(stages.source_folder(session), session.profile.data.count)
        model = session.profile.model
        processor = load_processor(model.location, image_mode=model.image_mode)
        self.cards = lru_cache(maxsize=64)(
            lambda number: mask_cards(views.mask_examples(session, number, processor), number)
        )
        self.row = widgets.IntSlider(0, min=0, max=max(count - 1, 0), description="row")
        self.row.continuous_update = False
        self.row.layout.width = "min(420px, 100%)"
        super().__init__("What the model sees under each mask", self.cards(0), [controls(self.row)])
        self.watch((self.row, "value"))

    def fill(self) -> None:
        """Show the selected row."""
        self.view.value = self.cards(self.row.value)


def mask_cards(examples: list, number: int) -> str:
    """The examples of `views.mask_examples` as cards."""
    return cards(
        card(
            picture(image, f"Row {number}, {title}"),
            words(title, escaped(text)) if text else heading(title),
        )
        for title, image, text in examples
    )
