"""Fig. 4 with bars that open by mouse or keyboard and show the rows that they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from napo.config.variants import BIASED
from napo.errors import NapoError
from napo.lab.html import against, card, cards, data_uri, drawing, escaped, picture, remark, words
from napo.lab.live import Explorer, Pages
from napo.lab.rows import column
from napo.noise.separation import LEFT_OUT, STATISTICS, headline, separation
from napo.results.figures import fig4
from napo.results.figures.margins import LABELS

PAGE = 6  # rows per page
LABEL_WORDS = {"biased": "noise-free", "unbiased": "noise"}
MIN_HEIGHT = 0.012  # of the picture's height: low enough bars stay easy to click
ALT = (
    "Fig. 4: histograms of the log-prob margins of noise and noise-free responses, summed and per "
    "token, for language-biased and vision-biased responses"
)


@dataclass(frozen=True)
class Bar:
    """One bar of Fig. 4."""

    kind: str  # "language_biased" or "vision_biased"
    statistic: str  # "sum" or "mean"
    label: str  # "biased" or "unbiased"
    low: float  # lower edge, nats (per token for "mean")
    high: float
    rows: tuple[int, ...]  # positions in the frame of the responses that it counts
    box: tuple[float, float, float, float]  # left, top, width, height; shares of the picture

    def __str__(self) -> str:
        statistic = "summed" if self.statistic == "sum" else "per-token"
        count = f"{len(self.rows)} response{'s' * (len(self.rows) != 1)}"
        return (
            f"{self.kind.replace('_', '-').capitalize()}, {LABEL_WORDS[self.label]}, {statistic} "
            f"margin {self.low:.2f} to {self.high:.2f}: {count}"
        )


def rows_per_bin(values: Sequence[float], edges: Sequence[float]) -> list[np.ndarray]:
    """Positions of the values in each bin, as `np.histogram` counts them.

    Args:
        values: values within the edges.
        edges: ascending; a bin includes its lower edge, the last bin also its upper edge.

    Returns:
        One array of positions per bin; every value is in exactly one.
    """
    bins = np.minimum(np.searchsorted(edges, values, side="right") - 1, len(edges) - 2)
    return [np.flatnonzero(bins == number) for number in range(len(edges) - 1)]


def bars(frame: pd.DataFrame, figure: Figure) -> list[Bar]:
    """The bars that `figures.fig4(frame)` drew; in each bin the taller bar comes first.

    Edges, heights and positions are read from the figure itself.
    """
    facts = separation(frame, resamples=1)  # only the groups are read here, no interval
    groups = {}
    if not facts.empty:
        groups = headline(facts).groupby("kind")["group"].first().to_dict()
    panels = [(statistic, kind) for statistic in STATISTICS for kind in BIASED]
    drawn_bars: list[Bar] = []
    for ax, (statistic, kind) in zip(figure.axes, panels, strict=True):
        histograms = {patch.get_label(): patch.get_data() for patch in ax.patches}
        bins: dict[float, list[Bar]] = {}
        for label, (name, *_) in LABELS.items():
            if name not in histograms:
                continue
            heights, edges, _ = histograms[name]
            in_panel = (frame["kind"] == kind) & (frame["label"] == label)
            in_panel &= frame["group"] != LEFT_OUT
            if groups.get(kind, "all") != "all":
                in_panel &= frame["group"] == groups[kind]
            positions = np.flatnonzero(in_panel)
            values = frame[STATISTICS[statistic]].to_numpy(float)[positions]
            for number, inside in enumerate(rows_per_bin(values, edges)):
                if len(inside):
                    low, high = float(edges[number]), float(edges[number + 1])
                    box = bar_box(figure, ax, low, high, float(heights[number]))
                    rows = tuple(positions[inside].tolist())
                    bar = Bar(kind, statistic, label, low, high, rows, box)
                    bins.setdefault(low, []).append(bar)
        for bars_of_bin in bins.values():
            drawn_bars += separate(bars_of_bin)
    return drawn_bars


def bar_box(
    figure: Figure, ax: Any, low: float, high: float, height: float
) -> tuple[float, float, float, float]:
    """Left, top, width and height of a bar as shares of the figure."""
    (left, bottom), (right, top) = ax.transData.transform([(low, 0), (high, height)])
    width, total = figure.bbox.width, figure.bbox.height
    share = max((top - bottom) / total, MIN_HEIGHT)
    return left / width, 1 - bottom / total - share, (right - left) / width, share


def separate(bars_of_bin: list[Bar]) -> list[Bar]:
    """A bin's one or two bars, such that each can be clicked: the shorter lies on the taller.

    Bars of about equal height share the bin's width.
    """
    pair = sorted(bars_of_bin, key=lambda bar: -bar.box[3])
    left, top, width, height = pair[0].box
    if len(pair) == 2 and height - pair[1].box[3] < MIN_HEIGHT:
        boxes = [(left + half * width / 2, top, width / 2, height) for half in (0, 1)]
        return [replace(bar, box=box) for bar, box in zip(pair, boxes, strict=True)]
    return pair


# A button over each bar of the picture: the browser gives it clicks, Enter, focus and its tip.
_DRAW = """
function render({ model, el }) {
  el.classList.add("napo-bars");
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  const mark = () => el.querySelectorAll("button").forEach((bar, index) =>
    bar.setAttribute("aria-pressed", index === model.get("chosen")));
  const draw = () => {
    const picture = document.createElement("img");
    picture.src = model.get("picture");
    picture.alt = model.get("label");
    const bars = model.get("bars").map(({ box, text }, index) => {
      const bar = document.createElement("button");
      bar.title = text;
      bar.setAttribute("aria-label", text);
      bar.tabIndex = index ? -1 : 0;  // one stop of the Tab key; arrow keys reach the others
      ["left", "top", "width", "height"].forEach((name, side) => {
        bar.style[name] = `${100 * box[side]}%`;
      });
      bar.onclick = () => {
        model.set("chosen", index);
        model.save_changes();
      };
      bar.onkeydown = (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        bars.at((index + step) % bars.length).focus({ preventScroll: true });
        event.preventDefault();
        event.stopPropagation();
      };
      return bar;
    });
    el.replaceChildren(picture, ...bars);
    mark();
  };
  draw();
  model.on("change:bars", draw);
  model.on("change:chosen", mark);
  return () => {
    model.off("change:bars", draw);
    model.off("change:chosen", mark);
  };
}
export default { render };
"""

# The picture is white in both themes, so the marks on it are dark.
_LOOK = """
.napo-bars {position: relative; max-width: 1035px}
.napo-bars img {display: block; width: 100%}
.napo-bars button {position: absolute; padding: 0; border: 0; background: none; cursor: pointer}
.napo-bars button:hover {background: rgba(0, 0, 0, .12)}
.napo-bars button:focus-visible {outline: 2.5px solid #000}
.napo-bars button[aria-pressed=true] {background: rgba(0, 0, 0, .3)}
"""


class Bars(anywidget.AnyWidget):
    """A picture with bars that can be chosen by click, or by arrow keys and Enter."""

    _esm, _css = _DRAW, _LOOK
    picture = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    bars = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)


class Margins(Explorer):
    """Fig. 4 whose bars show their rows on a click or Enter.

    Args:
        frame: from `napo.noise.samples.response_margins`.
        rows: the rows that the frame was made from; a `datasets.Dataset` or a list of dicts.
        figure: `figures.fig4(frame)`, if it is already drawn.

    Raises:
        NapoError: when a response of the frame is not among the rows.
    """

    def __init__(self, frame: pd.DataFrame, rows: Any, figure: Figure | None = None) -> None:
        figure = figure or fig4(frame)
        self.frame, self.rows = frame, rows
        self.positions = {id: position for position, id in enumerate(column(rows, "id"))}
        missing = sorted(set(frame["id"]) - set(self.positions))
        if missing:
            raise NapoError(
                f"{len(missing)} responses of the margins are not among the rows "
                f"({', '.join(missing[:5])}{' ...' * (len(missing) > 5)}); give the rows that the "
                "margins were made from."
            )
        self.png, self.bars = figure._repr_png_(), bars(frame, figure)
        self.chart = Bars(label="Fig. 4; arrow keys move between its bars, Enter shows their rows")
        self.heading, self.pages = widgets.HTML(), Pages(PAGE)
        super().__init__(
            "Fig. 4 with the rows behind its bars",
            drawing(self.png, ALT),
            [self.chart, self.heading, self.pages],
        )
        self.chart.observe(self.choose, "chosen")
        self.pages.observe(self.update, "page")

    def fill(self) -> None:
        """Show the rows of the chosen bar."""
        if not self.chart.picture:
            self.chart.picture = data_uri(self.png)
            self.chart.bars = [{"box": list(bar.box), "text": str(bar)} for bar in self.bars]
        bar = self.shown
        self.heading.value = remark(str(bar or "Choose a bar to see the rows behind it."))
        entries = [self.frame.iloc[bar.rows[index]] for index in self.pages.shown]
        self.view.value = cards(
            response_card(self.rows[self.positions[entry["id"]]], entry) for entry in entries
        )

    @property
    def shown(self) -> Bar | None:
        """The bar whose rows are shown."""
        return self.bars[self.chart.chosen] if self.chart.chosen >= 0 else None

    def choose(self, _: Any) -> None:
        """Show the first page of the chosen bar."""
        self.pages.count, self.pages.page = len(self.shown.rows) if self.shown else 0, 0
        self.update()


def response_card(row: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """A row of `napo.noise.samples.response_margins`, with its row of RLAIF-V-Bias, as a card."""
    kind = entry["kind"]
    label = f"{LABEL_WORDS.get(entry['label'], entry['label'])} (labelled {entry['label']})"
    if entry["equal_to_chosen"]:
        label += ", equals the chosen one"
    margin = f"margin {entry['margin_sum']:.2f}, per token {entry['margin_mean']:.3f}"
    return card(
        picture(row["image"], f"The picture of row {row['id']}"),
        remark(f"{label}; {margin}"),
        words("Question", escaped(row["question"]), f"row {row['id']}"),
        words("Chosen", escaped(row["chosen"])),
        words(kind.replace("_", "-").capitalize(), against(row["chosen"], row[kind])),
    )
