"""Keys and clicks for a widget in JupyterLab, and words for screen readers.

ipywidgets has no keyboard events, and its clicks do not say which item was on the screen. This
anywidget listens on the element around it; JupyterLab's own shortcuts are off while that element
has the focus.
"""

from __future__ import annotations

import anywidget
import traitlets

CLICKED = "does-"  # CSS class of a button, followed by its action
_LISTEN = """
function render({ model, el }) {
  // A live region outside the view: it stays, and screen readers speak its new text.
  const voice = document.createElement("div");
  voice.setAttribute("role", "status");
  voice.style.cssText = "position: absolute; width: 1px; height: 1px; overflow: hidden; "
    + "clip-path: inset(50%)";
  el.style.cssText = "position: relative; width: 1px; height: 0; margin: 0";
  el.append(voice);
  const speak = () => { voice.textContent = model.get("said"); };
  model.on("change:said", speak);
  speak();
  // With the item that is on the screen: a key that comes too late labels nothing.
  const send = (action) => model.send({ action, item: model.get("item") });
  const listen = (root) => {
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", model.get("label"));
    root.setAttribute("data-lm-suppress-shortcuts", "true");
    const pressed = (event) => {
      if (event.target.matches("input, textarea, select")) {  // someone is writing
        if (event.key === "Escape" || event.key === "Enter") root.focus();  // saves the text
        return;
      }
      if (event.repeat && event.target.matches("button")) event.preventDefault();
      if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
      const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const action = model.get("bindings")[name];
      if (!action) return;
      event.preventDefault();
      event.stopPropagation();
      if (action.startsWith("#")) root.querySelector(action.slice(1))?.focus();
      else send(action);
    };
    const clicked = (event) => {
      const button = event.target.closest("button");
      const does = [...(button?.classList ?? [])].find((name) => name.startsWith("CLICKED"));
      if (!does) return;
      event.stopPropagation();
      const action = does.slice("CLICKED".length);
      // The second click of a double click would label an item that nobody has looked at.
      if (event.detail > 1 && model.get("once").includes(action)) return;
      send(action);
    };
    // Before the widgets: a text field of ipywidgets keeps its keys from the elements around it.
    root.addEventListener("keydown", pressed, true);
    root.addEventListener("click", clicked, true);
    root.focus({ preventScroll: true });
    return () => {
      root.removeEventListener("keydown", pressed, true);
      root.removeEventListener("click", clicked, true);
    };
  };
  let stop = () => {}, tries = 0;
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
    """Listens for keys and clicks on the element around it; screen readers speak its `said`.

    It sends `{"action", "item"}`: what a key, or a click on a button of the class `CLICKED` and the
    action's name, stands for, and the number of the item that was on the screen.

    Attributes:
        around: the CSS class of that element.
        bindings: key (as browsers name it, letters in lower case) -> action; an action that starts
            with `#` only moves the focus to the element of its CSS selector.
        label: what a screen reader calls the element.
        once: actions that ignore the second click of a double click.
        said: the sentence to speak.
        item: the number of the item on the screen.
    """

    _esm = _LISTEN
    around = traitlets.Unicode().tag(sync=True)
    bindings = traitlets.Dict().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    once = traitlets.List(traitlets.Unicode()).tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    item = traitlets.Int(0).tag(sync=True)
