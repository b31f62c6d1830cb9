"""A row as the model sees it under each mask (Eqs. 7 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets

from napo import stages
from napo.config.settings import IMAGE_MASKS, TEXT_MASKS
from napo.data import sources
from napo.lab.html import card, cards, escaped, heading, picture, words
from napo.lab.live import Explorer, controls
from napo.stages.session import Session

if TYPE_CHECKING:
    from PIL import Image


class Masks(Explorer):
    """Any row: its picture, the prompt without a mask, and under each mask.

    Raises:
        NapoError: when there are no preference rows, or the model's processor does not load.
    """

    def __init__(self, session: Session) -> None:
        from napo.models.files import load_processor

        self.source = stages.source_folder(session)
        count = sources.number_of_rows(self.source, session.profile.data.count)
        model = session.profile.model
        self.processor = load_processor(model.location, **model.preprocessing)
        self.row = widgets.IntSlider(0, min=0, max=max(count - 1, 0), description="row")
        self.row.continuous_update = False
        self.row.layout.width = "min(420px, 100%)"
        super().__init__("What the model sees under each mask", self.cards(), [controls(self.row)])
        self.row.observe(self.update, "value")

    def fill(self) -> None:
        """Show the selected row."""
        self.view.value = self.cards()

    def cards(self) -> str:
        """The selected row under each mask, as HTML."""
        return mask_cards(self.examples(), self.row.value)

    def examples(self) -> list[tuple[str, Image.Image | None, str]]:
        """The selected row under each mask: title, the image that the model gets, and the text."""
        from napo.models.prompts import as_seen, mask_image, mask_token_id, prompt_inputs

        number, processor = self.row.value, self.processor
        rows = sources.read(self.source, wanted=lambda index: index == number)
        row = sources.decode(next(rows)[1])
        question, visible = row["question"], as_seen(processor, row["image"])
        examples = [("the picture", row["image"], ""), ("no mask", visible, question)]
        for mask in IMAGE_MASKS:
            if mask == "mask_token":
                count = prompt_inputs(processor, question, row["image"]).ids.count(
                    processor.image_token_id
                )
                text = f"{count} x [MASK] for its visual tokens\n{question}"
                examples.append((f"image: {mask}", None, text))
                continue
            image = mask_image(row["image"], mask)
            image = None if image is None else as_seen(processor, image)
            examples.append((f"image: {mask}", image, question))
        for mask in TEXT_MASKS:
            ids = prompt_inputs(processor, question, text_mask=mask).ids
            text = processor.tokenizer.decode(ids, skip_special_tokens=False)
            if mask == "mask_token":
                token = processor.tokenizer.convert_ids_to_tokens(mask_token_id(processor))
                text = text.replace(token, "[MASK]")
            examples.append((f"question: {mask}", visible, text))
        return examples


def mask_cards(examples: list[tuple[str, Image.Image | None, str]], number: int) -> str:
    """The examples of a row as cards."""
    return cards(
        card(
            picture(image, f"Row {number}, {title}"),
            words(title, escaped(text)) if text else heading(title),
        )
        for title, image, text in examples
    )
