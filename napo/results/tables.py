"""Tables 1 to 4: published numbers and ours side by side, never mixed.

At the paper's scale a difference is ours minus published; at the tiny scale it is each variant
minus its own base, as the worlds differ and published numbers are for orientation only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napo.config.benchmarks import Metric, metrics
from napo.errors import NapoError
from napo.results.collect import Estimate, Results
from napo.results.notes import readings
from napo.results.tex import float_of
from napo.workspace.files import atomic_file
from napo.workspace.folders import published_tables

if TYPE_CHECKING:
    import pandas as pd

NOT_RUN = "not run"
ABSENT = "–"
TITLES = {
    1: "Main results",
    2: "Variants: what each part contributes",
    3: "The same amount of training data",
    4: "Which margin the coefficient q is made from",
}
DIFFERENCE = {"tiny": "ours − our base", "paper": "ours − published"}
SYMBOLS = "†‡§¶*"  # of the notes to rows and cells, in their order


@dataclass(frozen=True)
class Table:
    """One table of the paper with our runs beside it.

    Attributes:
        number: 1 to 4, or None for the extra table (`napo.results.extra_table`).
        title: what it is about.
        frame: for reading: rows as in the paper; columns (metric, published | ours | difference).
        long: for machines: a row for each cell, all numbers unrounded.
        notes: how its ambiguous cells were read.
    """

    number: int | None
    title: str
    frame: pd.DataFrame
    long: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def heading(self) -> str:
        """Such as "Table 2. Variants"."""
        return f"Table {self.number}. {self.title}" if self.number else f"Extra. {self.title}"

    @property
    def stem(self) -> str:
        """What its files are called, such as "table2"."""
        return f"table{self.number}" if self.number else "extra"

    def write(self, folder: Path) -> list[Path]:
        """Write `<stem>.csv` (long), `.md` and `.tex` (booktabs)."""
        texts = {"md": self.markdown(), "tex": self.latex()}
        paths = []
        for suffix, text in texts.items():
            path = folder / f"{self.stem}.{suffix}"
            with atomic_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            paths.append(path)
        path = folder / f"{self.stem}.csv"
        with atomic_file(path) as temporary:
            self.long.to_csv(temporary, index=False, float_format="%.6g")
        return [*paths, path]

    def markdown(self) -> str:
        """The table as Markdown, its notes below."""
        names = [f"{metric} {kind}" for metric, kind in self.frame.columns]
        lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for row, values in zip(self.frame.index, self.frame.to_numpy(), strict=True):
            name = " · ".join(part for part in row if part) if isinstance(row, tuple) else row
            lines.append("| " + " | ".join([name, *values]).replace("\n", " ") + " |")
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"**{self.heading}**", "", *lines, "", *notes]) + "\n"

    def latex(self) -> str:
        """The table as LaTeX floats that need booktabs, graphicx and amssymb."""
        return float_of(self.frame, self.title, f"tab:napo-{self.stem}", self.notes)


def published(number: int) -> pd.DataFrame:
    """The paper's table: row, variant, model, group, one column a metric, source, flag, note.

    `variant` is empty where none of our runs stands for a row; `flag` names the metric that `note`
    is about, and is empty where it is about the row.

    Raises:
        NapoError: when the file of published numbers is missing.
    """
    import pandas as pd

    path = published_tables() / f"table{number}.csv"
    if not path.is_file():
        raise NapoError(f"{path} is missing; the published numbers come with the checkout.")
    texts = ("row", "variant", "model", "group", "source", "flag", "note")
    frame = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    return frame.fillna(dict.fromkeys(texts, ""))


def table(number: int, results: Results, *, scale: str = "tiny", model: str = "7B") -> Table:
    """One of Tables 1 to 4.

    Args:
        number: 1 to 4.
        results: what ran.
        scale: "tiny" (difference: variant minus own base) or "paper" (ours minus published).
        model: which of the paper's models our runs stand for, "7B" or "13B".

    Raises:
        NapoError: for a number that is none of the tables.
    """
    import pandas as pd

    if number not in TITLES:
        raise NapoError(f"There is no Table {number}; the paper has Tables 1 to 4.")
    paper = published(number)
    notes = [note for note in dict.fromkeys(paper["note"]) if note]
    marks = dict(zip(notes, SYMBOLS, strict=False))
    columns = metrics(number)
    rows, long, names = [], [], []
    for _, line in paper.iterrows():
        ours = line["variant"] if line["model"] == model else ""
        mark = f" {marks[line['note']]}" if line["note"] else ""
        cells = {}
        for metric in columns:
            found = results.estimate(ours, metric) if ours else None
            change = results.difference(ours, "base", metric) if ours and ours != "base" else None
            printed = float(line.get(metric.name, "nan"))
            flag = mark if line["flag"] == metric.name else ""
            cells[(metric.title, "published")] = _number(printed, metric) + flag
            cells[(metric.title, "ours")] = measured_cell(found, metric) if ours else ABSENT
            cells[(metric.title, DIFFERENCE[scale])] = (
                _from_published(found, printed, metric)
                if scale == "paper"
                else difference_cell(change, metric)
            )
            long.append(_long(number, line, metric, printed, found, change))
        rows.append(cells)
        names.append((line["group"], line["row"] + ("" if line["flag"] else mark)))
    index = pd.MultiIndex.from_tuples(names, names=["", "row"])
    if not any(group for group, _ in names):
        index = index.droplevel(0)
    frame = pd.DataFrame(rows, index=index)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    told = [f"{mark} {note[0].upper()}{note[1:]}." for note, mark in marks.items()]
    told = [*told, *readings(number, results, scale)]
    return Table(number, TITLES[number], frame, pd.DataFrame(long), tuple(told))


def _number(number: float, metric: Metric) -> str:
    return ABSENT if math.isnan(number) else f"{number:.{metric.digits}f}"


def _signed(number: float, metric: Metric) -> str:
    text = f"{number:+.{metric.digits}f}"
    # What rounds to nothing has no sign; a true minus sign is as wide as a plus.
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def measured_cell(found: Estimate | None, metric: Metric) -> str:
    """A value of ours with its spread over seeds, as cells show it."""
    if found is None:
        return NOT_RUN
    if math.isnan(found.value):
        return "undefined"
    text = f"{found.value:.{metric.digits}f}"
    return text if math.isnan(found.sd) else f"{text} ± {found.sd:.{metric.digits}f}"


def _from_published(found: Estimate | None, printed: float, metric: Metric) -> str:
    if found is None or math.isnan(printed) or math.isnan(found.value):
        return ABSENT
    low, high = (_signed(end - printed, metric) for end in (found.low, found.high))
    return f"{_signed(found.value - printed, metric)} [{low}, {high}]"


def difference_cell(change: Estimate | None, metric: Metric) -> str:
    """A difference with its interval, as cells show it; a dash where there is none."""
    if change is None or math.isnan(change.value):
        return ABSENT
    low, high = (_signed(end, metric) for end in (change.low, change.high))
    return f"{_signed(change.value, metric)} [{low}, {high}]"


def _long(
    number: int,
    line: pd.Series,
    metric: Metric,
    printed: float,
    found: Estimate | None,
    change: Estimate | None,
) -> dict[str, object]:
    return {
        "table": number,
        "row": line["row"],
        "variant": line["variant"],
        "model": line["model"],
        "metric": metric.name,
        "published": printed,
        "source": line["source"],
        "doubtful": line["flag"] == metric.name,
        "ran": found is not None,
        **numbers("ours", found),
        "seeds": found.seeds if found else 0,
        "minus_published": found.value - printed if found else float("nan"),
        **numbers("minus_base", change),
        "note": line["note"] if not line["flag"] or line["flag"] == metric.name else "",
    }


def numbers(name: str, found: Estimate | None) -> dict[str, float]:
    """An estimate as columns: `<name>`, and `_sd`, `_low`, `_high` behind it; nan without one."""
    nan = float("nan")
    values = (found.value, found.sd, found.low, found.high) if found else (nan,) * 4
    return dict(zip((name, f"{name}_sd", f"{name}_low", f"{name}_high"), values, strict=True))


def tables(results: Results, *, scale: str = "tiny", model: str = "7B") -> dict[int, Table]:
    """All four tables by number."""
    return {number: table(number, results, scale=scale, model=model) for number in TITLES}
