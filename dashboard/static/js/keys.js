// The keyboard: one key, one thing; nothing while somebody types.

import { $ } from "./dom.js";
import { TIMEFRAMES } from "./timeframes.js";

/** Let keys do what the parts of the page can. */
export function listen({ appearance, askWhere, chart, chooseTimeframe, dialog, goTo, picker, proof, showPane, showProof, table }) {
  // As in KeyboardEvent.key, letters in lower case.
  const actions = {
    ...Object.fromEntries(TIMEFRAMES.map((name, index) => [String(index + 1), () => chooseTimeframe(name)])),
    "/": () => picker.open(),
    ArrowLeft: () => chart?.scroll(-0.1),
    ArrowRight: () => chart?.scroll(0.1),
    "+": () => chart?.zoom(0.8),
    "=": () => chart?.zoom(0.8),
    "-": () => chart?.zoom(1.25),
    End: () => goTo(null),
    Home: () => goTo(0),
    g: askWhere,
    p: () => showPane($("pane").hidden),
    d: () => table.toggle(),
    v: () => showProof(),
    c: () => dialog.open(),
    q: () => dialog.toggle("quote"),
    s: () => dialog.toggle("spread"),
    b: () => dialog.toggle("broker"),
    Escape: () => {
      if (table.isOpen) table.toggle(false);
      else if (proof.isOpen) proof.close();
      else showPane(false);
    },
    t: () => appearance.toggleTheme(),
    l: () => appearance.toggleLanguage(),
    "?": () => $("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    // A dialog that was just closed holds the focus until the next frame.
    if (event.target.closest("input, select, dialog, [role=listbox]")?.checkVisibility()) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
