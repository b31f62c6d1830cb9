"""Explorers by name, rows for them, and pages as a browser reads them."""

import re
from html.parser import HTMLParser

from PIL import Image

from napo import lab, stages

EXPLORERS = {
    "rows": lab.rows,
    "margins": lambda made: lab.margins(stages.margins(made), stages.biased_rows(made)),
    "loss": lambda made: lab.loss(),
    "training": lab.training,
    "masks": lab.masks,
    "answers": lab.answers,
}


class Tags(HTMLParser):
    """Tags with their attributes, and the text between them, as a browser would take them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def text_of(page):
    return Tags(re.sub("<style>.*?</style>", "", page, flags=re.S)).text


def row(id="a", text="the cat is black .", chosen="the cat is red .", question="what colour ?"):
    return {
        "id": id,
        "image": Image.new("RGB", (48, 32), "red"),
        "question": question,
        "chosen": chosen,
        "rejected": text,
        "language_biased": text,
        "vision_biased": text,
    }


def ids(page):
    return re.findall(r"<small>row (.*?)</small>", page)
