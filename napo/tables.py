"""Tables 1 to 4: published numbers and ours side by side, never mixed.

At the paper's scale a difference is ours minus published; at the tiny scale it is each variant
minus its own base, as the worlds differ and published numbers are for orientation only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napo.errors import NapoError
from napo.results import METRICS, Estimate, Metric, Results
from napo.workspace import atomic_file

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = Path(__file__).resolve().parent.parent / "data" / "paper"
NOT_RUN = "not run"
TITLES = {
    1: "Main results",
    2: "Variants: what each part contributes",
    3: "The same amount of training data",
    4: "Which margin the coefficient q is made from",
}
FLAGGED = {("Table 4", "VB1", "VLind LP"): "†", ("Table 2", "VB1", "VLind LP"): "†"}


@dataclass(frozen=True)
class Table:
    """One table of the paper with our runs beside it.

    Attributes:
        number: 1 to 4.
        title: what it is about.
        frame: for reading: rows as in the paper; columns (metric, published | ours | difference).
        long: for machines: a row for each cell, all numbers unrounded.
        notes: how its ambiguous cells were read.
    """

    number: int
    title: str
    frame: pd.DataFrame
    long: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def heading(self) -> str:
        """Such as "Table 2. Variants"."""
        return f"Table {self.number}. {self.title}"

    def write(self, folder: Path) -> list[Path]:
        """Write `table<n>.csv` (long), `.md` and `.tex` (booktabs)."""
        texts = {"md": self.markdown(), "tex": self.latex()}
        paths = []
        for suffix, text in texts.items():
            path = folder / f"table{self.number}.{suffix}"
            with atomic_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            paths.append(path)
        path = folder / f"table{self.number}.csv"
        with atomic_file(path) as temporary:
            self.long.to_csv(temporary, index=False, float_format="%.6g")
        return [*paths, path]

    def markdown(self) -> str:
        """The table as Markdown, its notes below."""
        names = [f"{metric} {kind}" for metric, kind in self.frame.columns]
        lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for row, values in zip(self.frame.index, self.frame.to_numpy(), strict=True):
            lines.append("| " + " | ".join([_row_name(row), *map(str, values)]) + " |")
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"**{self.heading}**", "", *lines, "", *notes]) + "\n"

    def latex(self) -> str:
        """The table as a LaTeX fragment that needs booktabs, graphicx and amssymb."""
        metrics = list(dict.fromkeys(self.frame.columns.get_level_values(0)))
        kinds = list(dict.fromkeys(self.frame.columns.get_level_values(1)))
        width = len(kinds)
        groups = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{tex(name)}}}" for name in metrics)
        rules = "".join(
            rf"\cmidrule(lr){{{2 + at * width}-{1 + (at + 1) * width}}}"
            for at in range(len(metrics))
        )
        heads = " & ".join(tex(kind) for _ in metrics for kind in kinds)
        body = [
            " & ".join([tex(_row_name(row)), *(tex(str(cell)) for cell in values)]) + r" \\"
            for row, values in zip(self.frame.index, self.frame.to_numpy(), strict=True)
        ]
        notes = [rf"\par\footnotesize {tex(note)}" for note in self.notes]
        return "\n".join(
            [
                r"% needs \usepackage{booktabs,graphicx,amssymb}",
                r"\begin{table*}\centering",
                rf"\caption{{{tex(self.title)}}}",
                r"\resizebox{\textwidth}{!}{%",
                rf"\begin{{tabular}}{{l{'r' * (width * len(metrics))}}}",
                r"\toprule",
                rf" & {groups} \\",
                rules,
                rf" & {heads} \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                *notes,
                r"\end{table*}",
                "",
            ]
        )


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$\dagger$", "−": r"$-$",
    "–": "--", "β": r"$\beta$", "γ": r"$\gamma$", "ψ": r"$\psi$",
}  # fmt: skip


def tex(text: str) -> str:
    """Text that LaTeX prints as it is, whatever characters it holds."""
    return "".join(_TEX.get(character, character) for character in text)


def _row_name(row: object) -> str:
    return " · ".join(str(part) for part in row if part) if isinstance(row, tuple) else str(row)


def published(number: int) -> pd.DataFrame:
    """The paper's table: row, variant, model, group, one column a metric, source, note.

    Raises:
        NapoError: when the checkout's data/paper is not there.
    """
    import pandas as pd

    path = PUBLISHED / f"table{number}.csv"
    if not path.is_file():
        raise NapoError(f"{path} is missing; the published numbers come with the checkout.")
    return pd.read_csv(path, dtype={"variant": str}).fillna(
        {"variant": "", "note": "", "group": ""}
    )


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
    metrics = [metric for metric in METRICS if metric.name in paper.columns]
    rows, long, names = [], [], []
    for _, line in paper.iterrows():
        ours = line["variant"] if line["model"] == model else ""
        cells = {}
        for metric in metrics:
            found = results.estimate(ours, metric) if ours else None
            change = None
            if ours and ours != "base" and scale == "tiny":
                change = results.difference(ours, "base", metric)
            printed = float(line[metric.name])
            mark = FLAGGED.get((f"Table {number}", line["variant"], metric.name), "")
            cells[(metric.title, "published")] = _number(printed, metric) + mark
            cells[(metric.title, "ours")] = _ours(found, ours, metric)
            cells[(metric.title, "difference")] = _difference(found, change, printed, scale, metric)
            long.append(_long(number, line, metric, printed, found, change))
        rows.append(cells)
        names.append((line["group"], line["row"]) if line["group"] else ("", line["row"]))
    index = pd.MultiIndex.from_tuples(names, names=["", "row"])
    if not any(group for group, _ in names):
        index = index.droplevel(0)
    frame = pd.DataFrame(rows, index=index)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    notes = _notes(number, paper, results, scale)
    return Table(number, TITLES[number], frame, pd.DataFrame(long), notes)


def _number(number: float, metric: Metric) -> str:
    return "–" if math.isnan(number) else f"{number:.{metric.digits}f}"


def _ours(found: Estimate | None, ours: str, metric: Metric) -> str:
    if not ours:
        return "–"
    if found is None:
        return NOT_RUN
    text = f"{found.value:.{metric.digits}f}"
    return text if math.isnan(found.sd) else f"{text} ± {found.sd:.{metric.digits}f}"


def _difference(
    found: Estimate | None, change: Estimate | None, printed: float, scale: str, metric: Metric
) -> str:
    digits = metric.digits
    if scale == "paper":
        if found is None or math.isnan(printed):
            return "–"
        return f"{found.value - printed:+.{digits}f}"
    if change is None:
        return "–"
    span = f"[{change.low:+.{digits}f}, {change.high:+.{digits}f}]"
    return f"{change.value:+.{digits}f} {span}".replace("-", "−")


def _long(
    number: int,
    line: pd.Series,
    metric: Metric,
    printed: float,
    found: Estimate | None,
    change: Estimate | None,
) -> dict[str, object]:
    nan = float("nan")
    return {
        "table": number,
        "row": line["row"],
        "variant": line["variant"],
        "model": line["model"],
        "metric": metric.name,
        "published": printed,
        "source": line["source"],
        "ran": found is not None,
        "ours": found.value if found else nan,
        "ours_sd": found.sd if found else nan,
        "ours_low": found.low if found else nan,
        "ours_high": found.high if found else nan,
        "seeds": found.seeds if found else 0,
        "minus_base": change.value if change else nan,
        "minus_base_low": change.low if change else nan,
        "minus_base_high": change.high if change else nan,
        "note": line["note"],
    }


def _notes(number: int, paper: pd.DataFrame, results: Results, scale: str) -> tuple[str, ...]:
    """How the table is to be read, and what its ambiguous cells are."""
    if scale == "tiny":
        reading = (
            "Ours: the icon world, mean over seeds ± standard deviation. Difference: variant minus "
            "our own base, with its 95 % interval (items resampled, paired). The published numbers "
            "are of another world and stand there for orientation only."
        )
    else:
        reading = "Ours: mean over seeds ± standard deviation. Difference: ours minus published."
    notes = [reading, "CB and LP are VLind-Bench's raw accuracies (c, d_macro)."]
    notes += _scored_by(results, "AMBER CHAIR" in paper.columns)
    for note in dict.fromkeys(note for note in paper["note"] if note):
        rows = ", ".join(dict.fromkeys(paper.loc[paper["note"] == note, "row"]))
        flag = "† " if "41.4" in note or "31.4" in note else ""
        notes.append(f"{flag}{rows}: {note}.")
    return tuple(notes)


def _scored_by(results: Results, whole: bool) -> list[str]:
    """Which extractor, similarity and judge made our numbers."""
    if not results.runs:
        return []
    run = next(iter(results.runs.values()))[0]
    told = []
    names = ["object_halbench", *(["amber", "mmhal"] if whole else [])]
    for name in names:
        path = results.folder / run / f"{name}.json"
        if path.is_file():
            chosen = results.result(run, name)["settings"]
            parts = [f"{key} {value}" for key, value in chosen.items()
                     if key in ("extractor", "similarity", "judge") and value]  # fmt: skip
            told.append(f"{name} ({', '.join(parts)})")
    return [f"Our scores are made with: {'; '.join(told)}."] if told else []


def tables(results: Results, *, scale: str = "tiny", model: str = "7B") -> dict[int, Table]:
    """All four tables by number."""
    return {number: table(number, results, scale=scale, model=model) for number in TITLES}
