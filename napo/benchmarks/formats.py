"""The files of the four benchmarks: their shapes, and checks that nothing is missing or repeated.

A file that lacks a part would still give a score, but of something else. So everything that a score
depends on is checked when a benchmark is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from napo.errors import NapoError
from napo.workspace.files import read_json

GET_AGAIN = "get the benchmark again"


class Edition(TypedDict):
    """`benchmark.json`, which an edition of another size than the official one has."""

    count: int | dict[str, int]


_Digits = Annotated[str, Field(pattern=r"^\d+$")]
VlindInstance = TypedDict(  # a name is no Python name
    "VlindInstance",
    {
        "concept": str,
        "context_id": int | str,
        "context": str,
        "factual_context": str,
        "true_statement": str,
        "false_statement": str,
        "existent_noun": str,
        "non-existent_noun": str,
        "best_img_id": int | str | None,
        "aggregated_human_label_good_images": dict[_Digits, int],
    },
)


class ObjectQuestion(TypedDict):
    """A line of the questions; `image` is a file in base64."""

    image_id: int
    question: str
    image: str


class CocoImage(TypedDict):
    """An image of COCO."""

    id: int


class CocoClass(TypedDict):
    """A class of COCO."""

    id: int
    name: str


class CocoObject(TypedDict):
    """An object in an image of COCO."""

    image_id: int
    category_id: int


class CocoCaption(TypedDict):
    """A reference caption of COCO."""

    image_id: int
    caption: str


class Instances(TypedDict):
    """The content of COCO's `instances_*.json`."""

    images: list[CocoImage]
    categories: Annotated[list[CocoClass], Field(min_length=1)]
    annotations: Annotated[list[CocoObject], Field(min_length=1)]


class Captions(TypedDict):
    """The content of COCO's `captions_*.json`."""

    annotations: list[CocoCaption]


class AmberQuery(TypedDict):
    """A question, or the request for a description."""

    id: int
    image: str
    query: str


class AmberObjects(TypedDict):
    """The objects of an image, and those that it tempts a model to name."""

    truth: list[str]
    hallu: list[str]


class AmberAnswer(TypedDict):
    """The answer to a question."""

    truth: Literal["yes", "no"]


class AmberAnnotation(TypedDict):
    """What is true for a query; the other keys depend on the type."""

    id: int
    type: str


AMBER_TASKS = {"generative": AmberObjects, "discriminative": AmberAnswer}
AmberRelation = Annotated[dict[str, list[str]], Field(min_length=1)]  # object -> its words


class MmhalItem(TypedDict):
    """An entry of `response_template.json`."""

    question: str
    gt_answer: str
    image_id: str
    image_src: str
    image_content: list[str]


def unique(names: Iterable[Any], file: Path, unit: str) -> None:
    """Check that no entry of a file repeats, because it would count twice.

    Raises:
        NapoError: listing what repeats.
    """
    repeated = [str(name) for name, number in Counter(names).items() if number > 1]
    if repeated:
        raise NapoError(f"{file} has the same {unit} twice ({listed(repeated)}); {GET_AGAIN}.")


def covered(names: Iterable[Any], known: Container[Any], file: Path, unit: str) -> None:
    """Check that a file knows each of these names.

    Raises:
        NapoError: listing the names that it lacks.
    """
    lost = [str(name) for name in dict.fromkeys(names) if name not in known]
    if lost:
        raise NapoError(f"{file} lacks {len(lost)} {unit} ({listed(lost)}); {GET_AGAIN}.")


def expect_count(folder: Path, count: Any, official: Any, unit: str) -> None:
    """Compare a benchmark's size with its `benchmark.json`, or else with the official size.

    Raises:
        NapoError: when they differ.
    """
    note = folder / "benchmark.json"
    expected = read_json(note, Edition, GET_AGAIN)["count"] if note.is_file() else official
    if isinstance(expected, dict) and isinstance(count, dict):
        count = {name: count.get(name) for name in expected}
    if count != expected:
        raise NapoError(
            f"{folder} holds {count} {unit} where {expected} are expected; get it again."
        )


def listed(names: Sequence[str]) -> str:
    """The first ten names, and dots if there are more."""
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
