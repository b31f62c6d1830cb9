"""Fig. 4 with its bars open to the mouse and the keyboard: which rows stand behind each."""

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

PAGE = 6  # rows at a time
CALLED = {"biased": "noise-free", "unbiased": "noise"}
SMALLEST = 0.012  # of the picture's height: a bar that a finger still meets
ALT = (
    "Fig. 4: histograms of the log-prob margins of noise and noise-free responses, summed and per "
    "token, for language-biased and vision-biased responses"
)


@dataclass(frozen=True)
class Bar:
    """One bar of Fig. 4.

    Attributes:
        kind: "language_biased" or "vision_biased".
        statistic: "sum" or "mean".
        label: "biased" or "unbiased".
        low: its lower edge, nats (per token for "mean").
        high: its upper edge.
        rows: positions in the frame of the responses behind it.
        box: left, top, width and height as shares of the picture.
    """

    kind: str
    statistic: str
    label: str
    low: float
    high: float
    rows: tuple[int, ...]
    box: tuple[float, float, float, float]

    def __str__(self) -> str:
        what = "summed" if self.statistic == "sum" else "per-token"
        count = f"{len(self.rows)} response{'s' * (len(self.rows) != 1)}"
        return (
            f"{self.kind.replace('_', '-').capitalize()}, {CALLED[self.label]}, {what} margin "
            f"{self.low:.2f} to {self.high:.2f}: {count}"
        )


def margins(frame: pd.DataFrame, rows: Any, figure: Figure | None = None) -> Margins:
    """Fig. 4 whose bars show the rows behind them, at a click or at Enter.

    Args:
        frame: as `napo.noise.samples.margins` gives it.
        rows: the rows it was made from; a `datasets.Dataset` or a list of dicts.
        figure: `figures.fig4(frame)`, if it is drawn already.

    Raises:
        NapoError: when a response of the frame is not among the rows.
    """
    return Margins(frame, rows, figure or fig4(frame))


def rows_per_bin(values: Sequence[float], edges: Sequence[float]) -> list[np.ndarray]:
    """Positions of the values in each bin, as `np.histogram` counts them.

    Args:
        values: any values within the edges.
        edges: ascending; a bin holds its lower edge, the last one its upper edge too.

    Returns:
        An array of positions for each bin; every value is in exactly one.
    """
    at = np.searchsorted(edges, values, side="right") - 1
    at = np.minimum(at, len(edges) - 2)
    return [np.flatnonzero(at == number) for number in range(len(edges) - 1)]


def bars(frame: pd.DataFrame, figure: Figure) -> list[Bar]:
    """The bars that `figures.fig4(frame)` drew, taller ones of a bin before shorter ones.

    Edges, heights and places are read off the figure, so they are the figure's.
    """
    groups = _groups(frame)
    panels = [(statistic, kind) for statistic in STATISTICS for kind in BIASED]
    found: list[Bar] = []
    for ax, (statistic, kind) in zip(figure.axes, panels, strict=True):
        drawn = {patch.get_label(): patch.get_data() for patch in ax.patches}
        for label, (name, *_) in LABELS.items():
            if name not in drawn:
                continue
            heights, edges, _ = drawn[name]
            mine = (frame["kind"] == kind) & (frame["label"] == label)
            mine &= frame["group"] != LEFT_OUT
            if groups.get(kind, "all") != "all":
                mine &= frame["group"] == groups[kind]
            positions = np.flatnonzero(mine)
            values = frame[STATISTICS[statistic]].to_numpy(float)[positions]
            for number, inside in enumerate(rows_per_bin(values, edges)):
                if len(inside):
                    low, high = float(edges[number]), float(edges[number + 1])
                    box = _box(figure, ax, low, high, float(heights[number]))
                    rows = tuple(positions[inside].tolist())
                    found.append(Bar(kind, statistic, label, low, high, rows, box))
    return _apart(found)


def _groups(frame: pd.DataFrame) -> dict[str, str]:
    """Which group of responses each kind's panels show; one resample, as no interval is read."""
    facts = separation(frame, resamples=1)
    if facts.empty:
        return {}
    return {kind: part["group"].iloc[0] for kind, part in headline(facts).groupby("kind")}


def _box(
    figure: Figure, ax: Any, low: float, high: float, height: float
) -> tuple[float, float, float, float]:
    (left, bottom), (right, top) = ax.transData.transform([(low, 0), (high, height)])
    wide, tall = figure.bbox.width, figure.bbox.height
    high_enough = max((top - bottom) / tall, SMALLEST)
    return left / wide, 1 - bottom / tall - high_enough, (right - left) / wide, high_enough


def _apart(found: list[Bar]) -> list[Bar]:
    """Bars such that each can be met: of two in one bin the shorter lies on the taller.

    Where they are (nearly) as high, they share the bin's width.
    """
    pairs: dict[tuple[Any, ...], list[Bar]] = {}
    for bar in found:
        pairs.setdefault((bar.statistic, bar.kind, bar.low), []).append(bar)
    placed: list[Bar] = []
    for pair in pairs.values():
        pair.sort(key=lambda bar: -bar.box[3])
        if len(pair) == 2 and pair[0].box[3] - pair[1].box[3] < SMALLEST:
            (left, top, width, height), _ = (bar.box for bar in pair)
            boxes = [(left + half * width / 2, top, width / 2, height) for half in (0, 1)]
            pair = [replace(bar, box=box) for bar, box in zip(pair, boxes, strict=True)]
        placed += pair
    return placed


_DRAW = """
const NAME = "http://www.w3.org/2000/svg";
function make(name, values) {
  const made = document.createElementNS(NAME, name);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  return made;
}
function render({ model, el }) {
  const svg = make("svg", { class: "napo-bars", role: "group" });
  el.append(svg);
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  let bars = [];
  const choose = (at) => {
    model.set("chosen", at);
    model.save_changes();
  };
  const reach = (at) => {
    bars.forEach((bar, other) => bar.setAttribute("tabindex", other === at ? 0 : -1));
    bars[at]?.focus({ preventScroll: true });
  };
  const press = (event, at) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) reach((at + step + bars.length) % bars.length);
    else if (event.key === "Enter" || event.key === " ") choose(at);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const mark = () => {
    bars.forEach((bar, at) => bar.setAttribute("aria-pressed", at === model.get("chosen")));
  };
  const draw = () => {
    const [width, height] = model.get("size");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label", model.get("label"));
    svg.replaceChildren(make("image", { href: model.get("picture"), width, height }));
    bars = model.get("bars").map((bar, at) => {
      const [x, y, w, h] = bar.box;
      const place = { x: x * width, y: y * height, width: w * width, height: h * height };
      const shape = make("rect", { ...place, class: "napo-bar", role: "button" });
      shape.setAttribute("tabindex", at === 0 ? 0 : -1);
      shape.setAttribute("aria-label", bar.text);
      const tip = make("title", {});
      tip.textContent = bar.text;
      shape.append(tip);
      shape.addEventListener("click", () => { reach(at); choose(at); });
      shape.addEventListener("keydown", (event) => press(event, at));
      svg.append(shape);
      return shape;
    });
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

# The picture is white in both themes, and so is what is drawn on it dark.
_LOOK = """
.napo-bars {width: 100%; max-width: 1035px; height: auto; display: block}
.napo-bar {fill: transparent; cursor: pointer; outline: none}
.napo-bar:hover {fill: rgba(0, 0, 0, .12)}
.napo-bar:focus-visible {stroke: #000; stroke-width: 2.5}
.napo-bar[aria-pressed=true] {fill: rgba(0, 0, 0, .3)}
"""


class Bars(anywidget.AnyWidget):
    """A picture with bars that can be chosen by click, or by arrow keys and Enter."""

    _esm, _css = _DRAW, _LOOK
    picture = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)
    bars = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)


class Margins(Explorer):
    """See `margins`."""

    def __init__(self, frame: pd.DataFrame, rows: Any, figure: Figure) -> None:
        self._frame, self._rows = frame, rows
        self._at = {id: at for at, id in enumerate(column(rows, "id"))}
        lost = sorted(set(frame["id"]) - set(self._at))
        if lost:
            raise NapoError(
                f"{len(lost)} responses of the margins are not among the rows "
                f"({', '.join(lost[:5])}{' ...' * (len(lost) > 5)}); give the rows they came from."
            )
        self._figure, self._png = figure, figure._repr_png_()
        self.bars = bars(frame, figure)
        self.chart = Bars(label="Fig. 4; arrow keys move between its bars, Enter shows their rows")
        self.heading, self.pages = widgets.HTML(), Pages(PAGE)
        self.pages.layout.display = "none"
        super().__init__(
            "Fig. 4 with the rows behind its bars",
            drawing(self._png, ALT),
            [self.chart, self.heading, self.pages],
        )
        self.chart.observe(self._choose, "chosen")
        self.watch((self.pages, "page"))

    def _fill(self) -> None:
        if not self.chart.picture:
            width, height = (round(side) for side in self._figure.bbox.size)
            self.chart.size, self.chart.picture = [width, height], data_uri(self._png)
            self.chart.bars = [{"box": list(bar.box), "text": str(bar)} for bar in self.bars]
        bar = self.shown
        if bar is None:
            self.heading.value = remark("Choose a bar to see the rows behind it.")
            self.view.value = ""
            return
        self.heading.value = remark(str(bar))
        self.view.value = cards(self._card(bar.rows[at]) for at in self.pages.shown)

    @property
    def shown(self) -> Bar | None:
        """The bar whose rows are shown."""
        chosen = self.chart.chosen
        return self.bars[chosen] if 0 <= chosen < len(self.bars) else None

    def _choose(self, _: Any) -> None:
        bar = self.shown
        self.pages.layout.display = None if bar and len(bar.rows) > PAGE else "none"
        if not self.pages.restart(len(bar.rows) if bar else 0):
            self.update()  # otherwise the turned page did

    def _card(self, position: int) -> str:
        entry = self._frame.iloc[position]
        return response_card(self._rows[self._at[entry["id"]]], entry)


def response_card(row: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """A biased response as a card: picture, question, both responses, label and margins.

    Args:
        row: its row of RLAIF-V-Bias.
        entry: its row of `napo.noise.samples.margins`.
    """
    kind = entry["kind"]
    told = f"{CALLED.get(entry['label'], entry['label'])} (labelled {entry['label']})"
    if entry["equal_to_chosen"]:
        told += ", equals the chosen one"
    margin = f"margin {entry['margin_sum']:.2f}, per token {entry['margin_mean']:.3f}"
    return card(
        picture(row["image"], f"The picture of row {row['id']}"),
        remark(f"{told}; {margin}"),
        words("Question", escaped(row["question"]), f"row {row['id']}"),
        words("Chosen", escaped(row["chosen"])),
        words(kind.replace("_", "-").capitalize(), against(row["chosen"], row[kind])),
    )
