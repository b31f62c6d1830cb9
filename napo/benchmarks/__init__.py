"""The four benchmarks of Tables 1 to 4: each loads, asks, and scores by its official rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError


@dataclass(frozen=True)
class Request:
    """What a model is asked: `image` is a file, or the bytes of one."""

    id: str
    text: str
    image: Path | bytes

    def open(self) -> Any:
        """The image, PIL RGB.

        Raises:
            NapoError: when it does not decode.
        """
        from napo.data.pictures import BadPicture, open_rgb

        try:
            return open_rgb(self.image)
        except BadPicture as problem:
            raise NapoError(f"The image of {self.id} cannot be used, {problem}.") from None


@dataclass(frozen=True)
class Options:
    """What a profile's settings mean to one benchmark.

    Attributes:
        asking: keyword arguments of `requests`.
        scoring: keyword arguments of `evaluate`.
        named: what the result says about how it was scored.
    """

    asking: Mapping[str, Any]
    scoring: Mapping[str, Any]
    named: Mapping[str, Any]


def module(name: str) -> ModuleType:
    """The module of a benchmark, with its functions `load`, `requests` and `evaluate`.

    Raises:
        NapoError: for an unknown name.
    """
    return import_module(BENCHMARKS[name].module)


def options(name: str, settings: Any, judge: Any = None) -> Options:
    """What a profile's `evaluation` means to a benchmark; nothing where its module has no options.

    Args:
        name: of the benchmark.
        settings: the section `evaluation`.
        judge: what rates answers, from `judges.make`.
    """
    make = getattr(module(name), "options", None)
    return make(settings, judge) if make else Options({}, {}, {})


def unreadable(name: str, answers: Mapping[str, str]) -> int:
    """How many answers a benchmark cannot read; by default the empty ones."""
    count = getattr(module(name), "unreadable", None)
    return count(answers) if count else sum(not text.strip() for text in answers.values())


def expect_count(folder: Path, found: Any, official: Any, what: str) -> None:
    """Check the size of a benchmark against its official one, or the one its folder states.

    Raises:
        NapoError: when they differ.
    """
    from napo.workspace.files import read_json

    note = folder / "benchmark.json"
    wanted = read_json(note)["count"] if note.is_file() else official
    if found != wanted:
        raise NapoError(f"{folder} holds {found} {what} where {wanted} are expected; get it again.")


def checked_images(
    requests: Sequence[Request], folder: Path, where: str, remedy: str
) -> list[Request]:
    """The requests, if the image files of all of them are there, within the benchmark's folder.

    Raises:
        NapoError: listing the ids of those whose image is missing or elsewhere.
    """
    root = folder.resolve()
    outside = [
        r.id
        for r in requests
        if isinstance(r.image, Path) and not r.image.resolve().is_relative_to(root)
    ]
    if outside:
        raise NapoError(
            f"{where}: the images of {len(outside)} ids ({_shown(outside)}) lie outside {root}; "
            "put them there, not a link to them."
        )
    missing = [r for r in requests if isinstance(r.image, Path) and not r.image.is_file()]
    if missing:
        raise NapoError(
            f"{where}: {len(missing)} ids have no image ({_shown([r.id for r in missing])}), the "
            f"first being {missing[0].image}; {remedy}."
        )
    return list(requests)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")


def checked_answers(answers: Mapping[str, str], ids: Iterable[str], where: str) -> None:
    """Check that every request has its answer, no answer is a stranger, and no id stands twice.

    Raises:
        NapoError: listing the ids.
    """
    wanted = list(ids)
    missing = [name for name in wanted if name not in answers]
    strange = sorted(set(answers) - set(wanted))
    twice = sorted({name for name, count in Counter(wanted).items() if count > 1})
    problems = (
        (missing, "have no answer"),
        (strange, "were not asked"),
        (twice, "stand there twice"),
    )
    for names, problem in problems:
        if names:
            raise NapoError(
                f"{where}: {len(names)} ids {problem} ({_shown(names)}); answer it again."
            )
