"""What all explorers share: a static picture that gives way to widgets once a front end answers.

Without a kernel nothing answers: the static picture stays, the widgets stay hidden. Under papermill
no front end asks either, so the live part is never filled and the saved notebook stays small.
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

# Asks the kernel whether it is there. The rule goes into the page's head, not onto the element:
# JupyterLab takes outputs out of the page while they are scrolled away and draws them anew.
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
    """A static picture for whoever reads without a kernel, and widgets for whoever has one.

    Subclasses build their controls, call `super().__init__`, and say in `_fill` what `view` shows.

    Args:
        name: what it is, in a line: for screen readers and where no HTML is shown.
        static: HTML of the picture or table that stands for it without a kernel.
        parts: what stands above the view, in order.
    """

    _fill: Callable[[], None]  # each explorer's own: brings the view in line with the controls

    def __init__(self, name: str, static: str, parts: Sequence[widgets.Widget]) -> None:
        self.name, self.awake = name, False
        self.view, self.said = widgets.HTML(), widgets.HTML()
        self.alive = Alive()
        self.alive.mark = self.alive.model_id
        self.alive.on_msg(self._asked)
        self.static = (
            f'{STYLE}<div class="napo-static" data-napo="{self.alive.mark}">{static}</div>'
        )
        super().__init__(children=[widgets.HTML(STYLE), *parts, self.said, self.view, self.alive])
        self.add_class("napo-explorer")
        self.layout.display = "none"

    def update(self, _: Any = None) -> None:
        """Fill the view; what went wrong is said in its place, not lost in a log."""
        try:
            self._fill()
            self.said.value = ""
        except NapoError as error:
            self.said.value, self.view.value = remark(str(error)), ""

    def watch(self, *traits: tuple[widgets.Widget, str]) -> None:
        """Update whenever one of these traits changes."""
        for widget, name in traits:
            widget.observe(self.update, name)

    def wake(self) -> None:
        """Show the widgets, filled; what a front end's question leads to."""
        if not self.awake:
            self.awake = True
            self.update()
        self.layout.display = None

    def _asked(self, _: Any, __: Any, ___: Any) -> None:
        self.wake()
        self.alive.send({"alive": True})  # each view asks for itself

    def _ipython_display_(self) -> None:
        from IPython.display import display

        view = {**self._repr_mimebundle_(), "text/plain": self.name}
        display({"text/html": self.static, "text/plain": self.name}, raw=True)
        display(view, raw=True)

    def __repr__(self) -> str:
        return self.name  # not the content of every widget


class Pages(widgets.HBox):
    """Leafs through things, so many at a time.

    Args:
        size: things a page.
        what: their name, plural.
    """

    count = traitlets.Int(0)
    page = traitlets.Int(0)

    def __init__(self, size: int, what: str = "rows") -> None:
        self.size, self.what = size, what
        self.back = self._button("arrow-left", "previous page", -1)
        self.on = self._button("arrow-right", "next page", 1)
        self.place = widgets.Label()
        super().__init__(children=[self.back, self.on, self.place])
        self.observe(self._tell, ["count", "page"])
        self._tell()

    @property
    def shown(self) -> range:
        """Numbers of the things on this page."""
        start = self.page * self.size
        return range(start, min(start + self.size, self.count))

    def restart(self, count: int) -> bool:
        """Other things, from the first page on; whether that turned the page."""
        before = self.page
        with self.hold_trait_notifications():
            self.count, self.page = count, 0
        return before != 0

    @traitlets.validate("page")
    def _within(self, proposal: Any) -> int:
        last = max(0, math.ceil(self.count / self.size) - 1)
        return min(max(proposal["value"], 0), last)

    def _button(self, icon: str, tooltip: str, by: int) -> widgets.Button:
        button = widgets.Button(icon=icon, tooltip=tooltip)
        button.layout.width = "auto"
        button.on_click(lambda _: setattr(self, "page", self.page + by))
        return button

    def _tell(self, _: Any = None) -> None:
        shown = self.shown
        self.back.disabled, self.on.disabled = shown.start == 0, shown.stop >= self.count
        first, last = shown.start + 1, shown.stop
        which = f"{self.what} {first} to {last}" if self.size > 1 else f"{self.what[:-1]} {first}"
        place = f"{which} of {self.count}"
        self.place.value = place if self.count else f"no {self.what}"


def controls(*parts: widgets.Widget) -> widgets.HBox:
    """Controls in a line, which breaks where the window is narrow."""
    box = widgets.HBox(list(parts))
    box.layout.flex_flow, box.layout.grid_gap = "row wrap", "4px 16px"
    return box
