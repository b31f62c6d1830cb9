"""Keys and clicks for a widget in JupyterLab: what is pressed inside it, told to Python.

ipywidgets has no keyboard events, and its clicks do not say what was on the screen; this is an
anywidget of a few lines that listens on the element around it, and speaks to screen readers.
JupyterLab's own shortcuts rest while that element has the focus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anywidget
import traitlets

CLICKED = "does-"  # CSS class of a button, before the action that it stands for
_LISTEN = """
function render({ model, el }) {
  // Out of sight and still heard: a live region that stays, only its text changes.
  const voice = document.createElement("div");
  voice.setAttribute("role", "status");
  voice.style.cssText = "position: absolute; width: 1px; height: 1px; overflow: hidden; "
    + "clip-path: inset(50%)";
  el.style.cssText = "position: relative; width: 1px; height: 0; margin: 0";
  el.append(voice);
  const speak = () => { voice.textContent = model.get("said"); };
  model.on("change:said", speak);
  speak();
  const listen = (root) => {
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", model.get("label"));
    root.setAttribute("data-lm-suppress-shortcuts", "true");
    const heard = (event) => {
      const writing = event.target.matches("input, textarea, select");
      if (writing) {
        if (event.key === "Escape" || event.key === "Enter") root.focus();
        event.stopPropagation();
        return;
      }
      if (event.repeat && event.target.matches("button")) event.preventDefault();
      if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
      const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const action = model.get("bindings")[name];
      if (!action) return;
      event.preventDefault();
      event.stopPropagation();
      if (action.startsWith("#")) {
        root.querySelector(action.slice(1))?.focus();
        return;
      }
      // With the item that is on the screen: a key that comes too late labels nothing.
      model.send({ action, item: model.get("item") });
    };
    const clicked = (event) => {
      const button = event.target.closest("button");
      const does = [...(button?.classList ?? [])].find((name) => name.startsWith("CLICKED"));
      if (!does) return;
      event.stopPropagation();
      const action = does.slice("CLICKED".length);
      // The second click of a double one would be about an item that nobody has looked at.
      if (event.detail > 1 && model.get("once").includes(action)) return;
      model.send({ action, item: model.get("item") });
    };
    root.addEventListener("keydown", heard);
    root.addEventListener("click", clicked, true);
    root.focus({ preventScroll: true });
    return () => {
      root.removeEventListener("keydown", heard);
      root.removeEventListener("click", clicked, true);
    };
  };
  let stop = () => {};
  let tries = 0;
  const attach = () => {
    const root = el.closest("." + model.get("around"));
    if (root) stop = listen(root);
    else if (tries++ < 600) requestAnimationFrame(attach);
  };
  attach();
  return () => {
    model.off("change:said", speak);
    stop();
  };
}
export default { render };
""".replace("CLICKED", CLICKED)


class Keys(anywidget.AnyWidget):
    """Listens for keys and clicks on the element around it, and speaks to screen readers: `said`.

    Args:
        around: the CSS class of that element.
        keys: key (as browsers name it, letters in lower case) -> action; an action that starts
            with `#` moves the focus to what its CSS selector finds, and is not told.
        label: what a screen reader calls the element.
        pressed: called with an action and the number of the item that was on the screen; also for
            a click on a button with the class `CLICKED` and the action's name.
        once: actions for which the second click of a double one is none.
    """

    _esm = _LISTEN
    around = traitlets.Unicode().tag(sync=True)
    bindings = traitlets.Dict().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    once = traitlets.List(traitlets.Unicode()).tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    item = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        around: str,
        keys: Mapping[str, str],
        label: str,
        pressed: Callable[[str, int], None],
        once: Iterable[str] = (),
    ) -> None:
        super().__init__(around=around, bindings=dict(keys), label=label, once=list(once))
        self._pressed = pressed
        self.on_msg(self._heard)

    def _heard(self, _: Any, content: Mapping[str, Any], __: Any) -> None:
        self._pressed(str(content.get("action", "")), int(content.get("item", -1)))
