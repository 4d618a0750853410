// The keyboard, where one key does one thing, and nothing while somebody types; and the buttons that do the same.

import { $ } from "./dom.js";
import { isBeside } from "./preferences.js";
import { TIMEFRAMES } from "./timeframes.js";

/** Let keys and buttons do what the parts of the page can. */
export function listen({ alerts, appearance, beside, chart, chooseTimeframe, dialog, goTo, going, picker, proof, showPane, showProof, table }) {
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
    g: () => going.open(chart?.middle ?? Date.now()),
    p: () => showPane($("pane").hidden),
    d: () => table.toggle(),
    v: () => showProof(),
    c: () => dialog.open(),
    q: () => dialog.toggle("quote"),
    a: () => alerts.open(),
    x: () => beside.toggle(),
    m: () => chart?.measure.arm(),
    s: () => dialog.toggle("spread"),
    b: () => dialog.toggle("broker"),
    Escape: () => {
      if (chart?.measure.clear()) return;
      if (table.isOpen) table.toggle(false);
      else if (proof.isOpen) proof.close();
      else showPane(false);
    },
    t: () => appearance.toggleTheme(),
    l: () => appearance.toggleLanguage(),
    "?": () => $("help").showModal(),
  };
  const buttons = {
    "alerts-open": "a", "beside-toggle": "x", "going-open": "g", "help-toggle": "?", latest: "End", "pane-toggle": "p",
    "table-toggle": "d", "view-open": "c",
  };
  for (const [id, key] of Object.entries(buttons)) $(id).addEventListener("click", () => actions[key]());
  // The second chart has no pane, and looks as the first does.
  if (isBeside) for (const key of ["l", "p", "t", "x"]) delete actions[key];
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
