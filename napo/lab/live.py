"""The base of all explorers: a static picture that widgets replace once a front end answers.

Without a kernel nothing answers: the static picture stays and the widgets stay hidden. Under
papermill there is no front end either, so the widgets stay empty and the notebook small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from napo.errors import NapoError
from napo.lab.html import STYLE, remark

# Asks whether there is a kernel. The rule goes into the page's head, not onto the element, since
# JupyterLab removes outputs that are scrolled away and draws them again.
_ASK = """
function render({ model, el }) {
  el.style.display = "none";
  const rule = document.createElement("style");
  rule.textContent = `.napo-static[data-napo="${model.get("mark")}"] { display: none; }`;
  const heard = (message) => {
    if (message.alive) document.head.append(rule);
  };
  model.on("msg:custom", heard);
  model.send({ ask: "alive" });
  return () => {
    model.off("msg:custom", heard);
    rule.remove();
  };
}
export default { render };
"""


class Alive(anywidget.AnyWidget):
    """Tells Python that a front end shows the widgets, and hides the static picture there."""

    _esm = _ASK
    mark = traitlets.Unicode().tag(sync=True)


class Explorer(widgets.VBox):
    """A static picture without a kernel, widgets with one.

    Subclasses build their controls, call `super().__init__`, and set `view` in `fill`.

    Args:
        name: a line for screen readers, and for places without HTML.
        static: HTML of the picture or table that is shown without a kernel.
        parts: the widgets above the view, in order.
    """

    fill: Callable[[], None]  # each explorer's own: shows in `view` what the controls select

    def __init__(self, name: str, static: str, parts: Sequence[widgets.Widget]) -> None:
        self.name = name
        self.view, self.message = widgets.HTML(), widgets.HTML()
        self.alive = Alive()
        self.alive.mark = self.alive.model_id
        self.alive.on_msg(self.wake)
        self.static = (
            f'{STYLE}<div class="napo-static" data-napo="{self.alive.mark}">{static}</div>'
        )
        super().__init__(
            children=[widgets.HTML(STYLE), *parts, self.message, self.view, self.alive]
        )
        self.add_class("napo-explorer")
        self.layout.display = "none"

    def update(self, _: Any = None) -> None:
        """Fill the view; an error is shown in its place."""
        try:
            self.fill()
            self.message.value = ""
        except NapoError as error:
            self.message.value, self.view.value = remark(str(error)), ""

    def wake(self, *_: Any) -> None:
        """Fill and show the widgets: a front end asks whether there is a kernel."""
        self.update()
        self.layout.display = None
        self.alive.send({"alive": True})

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display({"text/html": self.static, "text/plain": self.name}, raw=True)
        display({**self._repr_mimebundle_(), "text/plain": self.name}, raw=True)

    def __repr__(self) -> str:
        return self.name  # not the content of every widget


class Pages(widgets.HBox):
    """Buttons that page through items, `size` of them per page."""

    count = traitlets.Int(0)
    page = traitlets.Int(0)

    def __init__(self, size: int, count: int = 0) -> None:
        self.size = size
        self.back = widgets.Button(icon="arrow-left", tooltip="previous page")
        self.on = widgets.Button(icon="arrow-right", tooltip="next page")
        for button, step in ((self.back, -1), (self.on, 1)):
            button.layout.width = "auto"
            button.on_click(lambda _, step=step: setattr(self, "page", self.page + step))
        self.place = widgets.Label()
        super().__init__(children=[self.back, self.on, self.place])
        self.observe(self.label, ["count", "page"])
        self.count = count
        self.label()

    @property
    def shown(self) -> range:
        """Numbers of the items on this page."""
        start = self.page * self.size
        return range(start, min(start + self.size, self.count))

    @traitlets.validate("page")
    def _within(self, proposal: Any) -> int:
        last = max(0, math.ceil(self.count / self.size) - 1)
        return min(max(proposal["value"], 0), last)

    def label(self, _: Any = None) -> None:
        """Say which items are shown, and disable a button at its end."""
        first, last = self.shown.start + 1, self.shown.stop
        self.back.disabled, self.on.disabled = first == 1, last >= self.count
        numbers = f"{first} to {last}" if last > first else f"{last}"
        self.place.value = f"{numbers} of {self.count}"


def controls(*parts: widgets.Widget) -> widgets.HBox:
    """Controls in a row that wraps in a narrow window."""
    box = widgets.HBox(list(parts))
    box.layout.flex_flow, box.layout.grid_gap = "row wrap", "4px 16px"
    return box
