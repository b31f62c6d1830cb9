"""Tables 1 to 4 and the extra table: published numbers and ours side by side, never mixed.

At the paper's scale a difference is ours minus published. At the tiny scale it is a variant minus
our own base, because the icon world's numbers do not compare with the published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napo.config.benchmarks import EXTRA, Metric, metrics
from napo.config.variants import VARIANTS
from napo.results.collect import NAN, Estimate, Results, numbers, signed
from napo.results.compact import ABSENT, compact, markdown
from napo.results.latex import page_wide
from napo.results.notes import compact_notes, marked, marks, marks_in_words, notes
from napo.workspace.files import write_text
from napo.workspace.folders import published_tables

if TYPE_CHECKING:
    import pandas as pd

    from napo.results.report import Sheet

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
    """A table of the paper with our runs beside it, or the extra table.

    Attributes:
        number: 1 to 4, or None for the extra table.
        title: its subject.
        compact: for reading: what ran here and the paper's own rows (`napo.results.compact`).
        compact_notes: the notes under it.
        frame: the full edition: rows as in the paper, columns (metric, published | ours |
            difference).
        notes: how to read its ambiguous cells.
        long: for programs: a row for each cell, all numbers unrounded.
    """

    number: int | None
    title: str
    compact: pd.DataFrame
    compact_notes: tuple[str, ...]
    frame: pd.DataFrame
    notes: tuple[str, ...]
    long: pd.DataFrame

    @property
    def heading(self) -> str:
        """Such as "Table 2. Variants"."""
        return f"Table {self.number}. {self.title}" if self.number else f"Extra. {self.title}"

    @property
    def stem(self) -> str:
        """The name of its files without suffix, such as "table2"."""
        return f"table{self.number}" if self.number else EXTRA

    def sheet(self) -> Sheet:
        """The compact edition for a page, with the full edition folded under it."""
        from napo.results.report import Sheet

        name = self.heading.partition(".")[0]
        full = Sheet(f"Full edition ({name}): all rows and differences", self.frame, self.notes)
        return Sheet(self.heading, self.compact, self.compact_notes, full)

    def write(self, folder: Path) -> list[Path]:
        """Write the compact edition as `<stem>.md` and `.tex` (booktabs), all numbers as `.csv`."""
        csv = self.long.to_csv(index=False, float_format="%.6g")
        paths = []
        for suffix, text in {"md": self.markdown(), "tex": self.latex(), "csv": csv}.items():
            paths.append(folder / f"{self.stem}.{suffix}")
            write_text(paths[-1], text)
        return paths

    def markdown(self) -> str:
        """The compact edition as Markdown, its notes below."""
        points = [f"- {note}" for note in self.compact_notes]
        lines = [f"**{self.heading}**", "", markdown(self.compact), *points]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """The compact edition as a LaTeX float."""
        label = f"tab:napo-{self.stem}"
        return page_wide(self.compact, self.title, label, self.compact_notes)


def published(number: int) -> pd.DataFrame:
    """The paper's table: row, variant, model, group, one column a metric, source, flag, note.

    `variant` is empty where none of our runs corresponds to the row. `flag` names the metric that
    `note` is about; it is empty where the note is about the row.
    """
    import pandas as pd

    texts = ("row", "variant", "model", "group", "source", "flag", "note")
    frame = pd.read_csv(published_tables() / f"table{number}.csv", dtype=dict.fromkeys(texts, str))
    return frame.fillna(dict.fromkeys(texts, ""))


def table(number: int, results: Results, *, scale: str = "tiny", model: str = "7B") -> Table:
    """One of Tables 1 to 4.

    Args:
        number: 1 to 4.
        results: the runs.
        scale: "tiny" (difference: variant minus own base) or "paper" (ours minus published).
        model: the paper's model that our runs correspond to, "7B" or "13B".
    """
    import pandas as pd

    paper = published(number)
    explained = [note for note in paper["note"].unique() if note]
    symbols = dict(zip(explained, SYMBOLS, strict=False))
    rows, long, names, shown = [], [], [], []
    for _, line in paper.iterrows():
        variant = line["variant"] if line["model"] == model else ""
        shown.append(variant)
        mark = f" {symbols[line['note']]}" if line["note"] else ""
        warned = marks(results, variant) if variant else {}
        shares = results.degenerate(variant)
        name = " ".join([line["row"] + ("" if line["flag"] else mark), *warned])
        names.append((line["group"], name))
        cells = {}
        for metric in metrics(number):
            flagged = line["flag"] == metric.name
            number_of_paper = float(line.get(metric.name, NAN))
            ours = results.estimate(variant, metric)
            change = results.difference(variant, "base", metric) if variant != "base" else None
            over_paper = ours.minus(number_of_paper) if ours else None
            shown_change = over_paper if scale == "paper" else change
            cells[metric.title, "published"] = published_text(line, metric, mark)
            cells[metric.title, "ours"] = measured_cell(ours, metric) if variant else ABSENT
            cells[metric.title, DIFFERENCE[scale]] = difference_cell(shown_change, metric)
            long.append(
                {
                    "table": number,
                    "row": line["row"],
                    "variant": line["variant"],
                    "model": line["model"],
                    "metric": metric.name,
                    "published": number_of_paper,
                    "source": line["source"],
                    "doubtful": flagged,
                    "ran": ours is not None,
                    **numbers("ours", ours),
                    "seeds": ours.seeds if ours else 0,
                    "minus_published": over_paper.value if over_paper else NAN,
                    **numbers("minus_base", change),
                    "note": line["note"] if flagged or not line["flag"] else "",
                    "degenerate": shares.get((metric.benchmark, ""), NAN),
                    "marks": marks_in_words(warned),
                }
            )
        rows.append(cells)
    index = pd.MultiIndex.from_tuples(names, names=["", "row"])
    if not any(paper["group"]):
        index = index.droplevel(0)
    below = [f"{symbol} {note[0].upper()}{note[1:]}." for note, symbol in symbols.items()]
    below += [*marked(results, shown), *notes(number, results, scale)]
    frame = pd.DataFrame(rows, index=index)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    small, short = compact_edition(number, results, scale, model)
    everything = pd.DataFrame(long)
    return Table(number, TITLES[number], small, short, frame, tuple(below), everything)


def compact_edition(
    number: int, results: Results, scale: str, model: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The compact edition of a table of the paper, and its notes.

    It has the paper's rows that one of our variants corresponds to. Tables 2 to 4 have 7B rows
    only, so runs of 13B do not compare with them.
    """
    paper = published(number)
    paper = paper[paper["variant"] != ""]
    comparable = scale == "paper" and model in set(paper["model"])
    of_model = model if model in set(paper["model"]) else "7B"
    paper = paper[paper["model"] == of_model].set_index("variant", drop=False)
    paper = paper.sort_index(key=lambda names: names != "base", kind="stable")  # the base first
    explained = [note for note in paper["note"].unique() if note]
    symbol_of = dict(zip(explained, SYMBOLS, strict=False))
    columns, texts, symbols = metrics(number), {}, {}
    for variant, line in paper.iterrows():
        symbol = symbol_of.get(line["note"], "")
        texts[variant] = {m.name: published_text(line, m, f" {symbol}") for m in columns}
        symbols[variant] = "" if line["flag"] else symbol
    heading = "Published, not run here"
    if not comparable:
        other = "other data and model" if scale == "tiny" else "another model"
        heading = f"Published, LLaVA-1.5-{of_model}: {other}, not comparable"
    rows = ["base", *(name for name in paper["variant"] if name != "base")]
    frame = compact(
        results, rows, columns, texts, heading=heading, comparable=comparable, symbols=symbols
    )
    notes = [f"{symbol} {note[0].upper()}{note[1:]}." for note, symbol in symbol_of.items()]
    return frame, compact_notes(number, results, rows, comparable=comparable, symbols=notes)


def published_text(line: pd.Series, metric: Metric, mark: str = "") -> str:
    """A published number as text, with the mark of its note if the note is about it."""
    value = float(line.get(metric.name, NAN))
    text = ABSENT if math.isnan(value) else f"{value:.{metric.digits}f}"
    return text + (mark if line["flag"] == metric.name else "")


def tables(results: Results, *, scale: str = "tiny", model: str = "7B") -> dict[int, Table]:
    """All four tables by number."""
    return {number: table(number, results, scale=scale, model=model) for number in TITLES}


def extra_table(results: Results) -> Table:
    """Other robust losses in the place of NaPO's, which the paper does not compare.

    A row for each variant that has one (`Variant.row`), and for each other variant that ran and is
    in none of Tables 1 to 4. `make baselines` trains the rows.
    """
    import pandas as pd

    names = {name: entry.row for name, entry in VARIANTS.items() if entry.row}
    for name in results.runs:
        if name in VARIANTS and not VARIANTS[name].tables:
            names.setdefault(name, VARIANTS[name].title or name)
    rows, long, labels = [], [], []
    for variant, name in names.items():
        cells, warned, shares = {}, marks(results, variant), results.degenerate(variant)
        labels.append(" ".join([name, *warned]))
        for metric in metrics(EXTRA):
            ours = results.estimate(variant, metric)
            change = results.difference(variant, "A1", metric) if variant != "A1" else None
            cells[metric.title, "ours"] = measured_cell(ours, metric)
            cells[metric.title, "ours − A1"] = difference_cell(change, metric)
            long.append(
                {
                    "row": name,
                    "variant": variant,
                    "metric": metric.name,
                    "ran": ours is not None,
                    **numbers("ours", ours),
                    "seeds": ours.seeds if ours else 0,
                    **numbers("minus_a1", change),
                    "degenerate": shares.get((metric.benchmark, ""), NAN),
                    "marks": marks_in_words(warned),
                }
            )
        rows.append(cells)
    frame = pd.DataFrame(rows, index=pd.Index(labels, name="row"))
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    title = "Other robust losses in NaPO's place"
    below = (*marked(results, names), *notes(EXTRA, results))
    rows_of_compact = ["base", *names]
    small = compact(results, rows_of_compact, metrics(EXTRA))
    short = compact_notes(EXTRA, results, rows_of_compact)
    return Table(None, title, small, short, frame, below, pd.DataFrame(long))


def measured_cell(ours: Estimate | None, metric: Metric) -> str:
    """The cell of a value of ours, with its spread over seeds."""
    if ours is None:
        return "not run"
    if math.isnan(ours.value):
        return "undefined"
    spread = "" if math.isnan(ours.sd) else f" ± {ours.sd:.{metric.digits}f}"
    return f"{ours.value:.{metric.digits}f}{spread}"


def difference_cell(change: Estimate | None, metric: Metric) -> str:
    """The cell of a difference, with its interval; a dash where there is none."""
    if change is None or math.isnan(change.value):
        return ABSENT
    return signed(change.value, change.low, change.high, metric.digits)
