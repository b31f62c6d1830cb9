"""A row as the model sees it under each mask (Eqs. 7 and 8), and what it then answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from napo import stages
from napo.config.settings import IMAGE_MASKS, TEXT_MASKS
from napo.config.variants import BIASED
from napo.data import sources
from napo.lab.html import against, card, cards, escaped, heading, picture, words
from napo.lab.live import Explorer, controls
from napo.stages.session import Session

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Example:
    """A row under one mask: the image that the model gets (None: no image), text and answer."""

    title: str
    image: Image.Image | None
    text: str = ""
    answer: str = ""


class Masks(Explorer):
    """Any row: its picture, the prompt without a mask and under each mask, and the answers.

    The base model answers as notebook 01 lets it: under the profile's own masks it writes the
    row's biased responses.

    Raises:
        NapoError: when there are no preference rows, or the model does not load.
    """

    def __init__(self, session: Session) -> None:
        from napo.models.files import load_processor

        self.session, self.source = session, stages.source_folder(session)
        count = sources.number_of_rows(self.source, session.profile.data.count)
        model = session.profile.model
        self.processor = load_processor(model.location, **model.preprocessing)
        self.answers = lru_cache(maxsize=None)(self.answer)
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

    def read_row(self, number: int) -> Mapping[str, Any]:
        """A row of the source, its image decoded."""
        rows = sources.read(self.source, wanted=lambda index: index == number)
        return sources.decode(next(rows)[1])

    def answer(self, number: int) -> list[str]:
        """What the base model answers to a row: without a mask, then under each mask."""
        from napo.models.generate import Prompt

        row, (language, vision) = self.read_row(number), BIASED
        question, image, id = row["question"], row["image"], row["id"]
        prompts = [Prompt(question, image, key=f"{id} unmasked")]
        prompts += [Prompt(question, image, image_mask=mask, key=f"{id} {language}")
                    for mask in IMAGE_MASKS]  # fmt: skip
        prompts += [Prompt(question, image, text_mask=mask, key=f"{id} {vision}")
                    for mask in TEXT_MASKS]  # fmt: skip
        return stages.answer_prompts(self.session, prompts)

    def examples(self) -> list[Example]:
        """The selected row: its picture, without a mask, and under each mask."""
        from napo.models.prompts import as_seen, mask_image, mask_token_id, prompt_inputs

        number, processor = self.row.value, self.processor
        row = self.read_row(number)
        question, visible = row["question"], as_seen(processor, row["image"])
        answers = iter(self.answers(number))
        examples = [
            Example("the picture", row["image"]),
            Example("no mask", visible, question, next(answers)),
        ]
        for mask in IMAGE_MASKS:
            image, text = mask_image(row["image"], mask), question
            image = None if image is None else as_seen(processor, image)
            if mask == "mask_token":
                count = prompt_inputs(processor, question, row["image"]).ids.count(
                    processor.image_token_id
                )
                image, text = None, f"{count} x [MASK] for its visual tokens\n{question}"
            examples.append(Example(f"image: {mask}", image, text, next(answers)))
        for mask in TEXT_MASKS:
            ids = prompt_inputs(processor, question, text_mask=mask).ids
            text = processor.tokenizer.decode(ids, skip_special_tokens=False)
            if mask == "mask_token":
                token = processor.tokenizer.convert_ids_to_tokens(mask_token_id(processor))
                text = text.replace(token, "[MASK]")
            examples.append(Example(f"question: {mask}", visible, text, next(answers)))
        return examples


def mask_cards(examples: list[Example], number: int) -> str:
    """The examples of a row as cards; words that the unmasked answer lacks are marked."""
    unmasked = next((example.answer for example in examples if example.text), "")
    return cards(
        card(
            picture(example.image, f"Row {number}, {example.title}"),
            words(example.title, escaped(example.text))
            + words("answer", against(unmasked, example.answer))
            if example.text
            else heading(example.title),
        )
        for example in examples
    )
