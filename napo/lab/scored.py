"""One item of each benchmark scored by hand: answers, what is read in them, what they add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.display import HTML

from napo import stages
from napo.benchmarks import Mark, Request
from napo.benchmarks.intervals import value
from napo.config.benchmarks import BENCHMARKS, Ratio
from napo.lab.html import STYLE, card, cards, escaped, heading, picture
from napo.stages import answers as stored
from napo.stages.session import Session

if TYPE_CHECKING:
    import pandas as pd

PICTURES = 3  # of an item; a VLind-Bench instance has several


def scored(session: Session, folder: Path, place: int = 0) -> HTML:
    """One item of each benchmark, and of each of its tasks, with what it adds to each metric.

    Args:
        session: the session.
        folder: of a result, as notebook 06 makes it.
        place: the item's place among those of its task.

    Raises:
        NapoError: for a run without finished results.
    """
    run, parts = folder.relative_to(session.workspace.results).as_posix(), []
    for name in session.profile.evaluation.benchmarks:
        requests, marks = stages.requests(session, name), stored.marks(session, run, name)
        if not marks:
            continue
        answers, items = stored.answers(session, run, name), stored.items(session, run, name)
        for task in dict.fromkeys(request.task for request in requests):
            own = [request for request in requests if request.task == task]
            chosen = list(dict.fromkeys(marks[request.id].item for request in own))
            item = chosen[min(place, len(chosen) - 1)]
            asked = [request for request in own if marks[request.id].item == item]
            parts += [
                heading(BENCHMARKS[name].title, task),
                pictures(asked),
                frame_to_html(statements(asked, answers, marks)),
                frame_to_html(contributions(name, items, item)),
            ]
    return HTML(STYLE + "".join(parts))


def pictures(requests: Iterable[Request]) -> str:
    """The different pictures of an item's requests."""
    shown = {request.image: request for request in requests}
    return cards(
        card(picture(request.open(), f"The picture of {request.id}", side=140))
        for request in list(shown.values())[:PICTURES]
    )


def statements(
    requests: Iterable[Request], answers: Mapping[str, str], marks: Mapping[str, Mark]
) -> pd.DataFrame:
    """A row for each request of an item: what was asked, answered and read."""
    import pandas as pd

    rows = [
        {
            "id": request.id,
            "question": request.text,
            "answer": answers[request.id],
            "the official reader reads": marks[request.id].read,
            "right answer": marks[request.id].right,
            "counts as": "right" if marks[request.id].correct else "wrong",
        }
        for request in requests
    ]
    return pd.DataFrame(rows, dtype=object)  # pandas' own texts refuse what no UTF-8 can hold


def contributions(name: str, items: pd.DataFrame, place: int) -> pd.DataFrame:
    """What an item adds to each metric of its benchmark, and the metric over all items.

    A metric is a ratio of two sums; metrics to whose sums the item adds nothing are left out.
    """
    import pandas as pd

    entry, row = BENCHMARKS[name], items.iloc[place]
    ratios = {metric.name: metric.ratio for metric in (*entry.metrics, *entry.details)}
    if not any(row[ratio.denominator] > 0 for ratio in ratios.values()):  # of no table
        ratios = dict(entry.ratios)
    rows = [
        {
            "metric": metric,
            "this item": f"{ratio.numerator} {row[ratio.numerator]:g} / "
            f"{ratio.denominator} {row[ratio.denominator]:g}",
            "all items": over_all(items, ratio),
        }
        for metric, ratio in ratios.items()
        if row[ratio.denominator] > 0
    ]
    return pd.DataFrame(rows)


def over_all(items: pd.DataFrame, ratio: Ratio) -> str:
    """A metric as the ratio of its sums, such as "100 × 453 / 600 = 75.5"."""
    top, bottom = items[ratio.numerator].sum(), items[ratio.denominator].sum()
    scale = "" if ratio.scale == 1 else f"{ratio.scale:g} × "
    return f"{scale}{top:g} / {bottom:g} = {value(items, ratio):.4g}"


def frame_to_html(frame: pd.DataFrame) -> str:
    """A frame of texts as a table; line breaks are kept."""
    return frame.map(escaped).to_html(index=False, escape=False, border=0, classes="napo-sheet")
