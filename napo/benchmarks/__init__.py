"""The benchmarks. Each is a module that loads its data, lists its requests and scores the answers.

The module of a benchmark has three functions:

    load(folder) -> benchmark                        read and check the files; returns any object
    requests(benchmark, **asking) -> list[Request]   the prompts: an id, a text and an image each
    evaluate(benchmark, answers, **scoring) -> (metrics, items)

`answers` maps the id of each request to the model's answer. `metrics` maps metric keys to numbers.
`items` is a data frame with one row for each scored item. Its columns include the numerators and
denominators that `ratios` names in the benchmark's entry of `napo.config.benchmarks`. The 95 %
intervals resample these rows; rows with the same value in a column `image` stay together.

Four more functions are optional:

    options(settings, judge) -> Options   the keyword arguments that a profile's `evaluation` sets
    readings(benchmark, answers, **scoring) -> list[Reading]
                                          what was read in each answer, or in a judge's reply to it,
                                          officially and leniently; `evaluate` then takes `lenient`
    marks(benchmark, answers, items, **scoring) -> dict[str, Mark]
                                          each answer beside the right one, by what `items` say
    make(folder)                          write the data, for profiles whose world makes all data
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from napo.benchmarks.formats import listed
from napo.benchmarks.lenient import Reading
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError


@dataclass(frozen=True)
class Request:
    """One prompt for a model. `image` is a file, or the bytes of a file."""

    id: str
    text: str
    image: Path | bytes
    task: str = ""  # where a benchmark has several: their answers are counted apart

    def open(self) -> Any:
        """The image, PIL RGB; one that does not decode is an error."""
        from napo.workspace.pictures import BadPicture, open_rgb

        try:
            return open_rgb(self.image)
        except BadPicture as problem:
            raise NapoError(f"The image of {self.id} cannot be used, {problem}.") from None


@dataclass(frozen=True)
class Options:
    """A profile's settings as one benchmark uses them."""

    asking: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of `requests`
    scoring: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of `evaluate`
    record: Mapping[str, Any] = field(default_factory=dict)  # what the result file names


@dataclass(frozen=True)
class Mark:
    """An answer beside the truth.

    Attributes:
        right: the right answer; of a description, what the picture holds.
        read: what the official scorer reads in the answer.
        correct: whether it is right; of a description, whether nothing in it is hallucinated.
        item: the place of its row in the items.
        about_picture: whether the picture decides the answer.
    """

    right: str
    read: str
    correct: bool
    item: int
    about_picture: bool = True


def module(name: str) -> ModuleType:
    """The module of a benchmark."""
    return import_module(BENCHMARKS[name].module)


def options(name: str, settings: Any, judge: Any = None) -> Options:
    """A benchmark's options; empty when its module defines none."""
    make = getattr(module(name), "options", None)
    return make(settings, judge) if make else Options()


def readings(
    name: str, benchmark: Any, answers: Mapping[str, str], scoring: Mapping[str, Any]
) -> list[Reading]:
    """What a benchmark's readers read; nothing when its module defines no readers."""
    read = getattr(module(name), "readings", None)
    return read(benchmark, answers, **scoring) if read else []


def marks(
    name: str,
    benchmark: Any,
    answers: Mapping[str, str],
    items: Any,
    scoring: Mapping[str, Any],
) -> dict[str, Mark]:
    """Each answer beside the truth; nothing when a benchmark's module defines no marks.

    `items` is the frame that `evaluate` made of these answers.
    """
    mark = getattr(module(name), "marks", None)
    return mark(benchmark, answers, items, **scoring) if mark else {}


def checked_images(
    requests: Sequence[Request], folder: Path, title: str, remedy: str
) -> list[Request]:
    """The requests, after a check that every image file exists inside the benchmark's folder.

    Raises:
        NapoError: listing the ids whose image is missing or outside.
    """
    root = folder.resolve()
    files = {request.id: request.image for request in requests if isinstance(request.image, Path)}
    images = set(files.values())
    inside = {path for path in images if path.resolve().is_relative_to(root)}
    outside = [name for name, path in files.items() if path not in inside]
    if outside:
        raise NapoError(
            f"{title}: the images of {len(outside)} ids ({listed(outside)}) lie outside {root}; "
            "copy the files into it instead of linking them."
        )
    present = {path for path in images if path.is_file()}
    missing = [name for name, path in files.items() if path not in present]
    if missing:
        raise NapoError(
            f"{title}: {len(missing)} ids have no image ({listed(missing)}), the first is "
            f"{files[missing[0]]}; {remedy}."
        )
    return list(requests)


def checked_answers(answers: Mapping[str, str], ids: Iterable[str], title: str) -> None:
    """Check that answers and requests have the same ids, and that no id repeats.

    Raises:
        NapoError: listing the ids.
    """
    counts = Counter(ids)
    problems = {
        "have no answer": [name for name in counts if name not in answers],
        "belong to no request": sorted(set(answers) - set(counts)),
        "appear twice": sorted(name for name, count in counts.items() if count > 1),
    }
    for problem, names in problems.items():
        if names:
            raise NapoError(
                f"{title}: {len(names)} ids {problem} ({listed(names)}); evaluate again."
            )
