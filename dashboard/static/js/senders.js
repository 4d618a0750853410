// Who sends, as the pane lists it.

import { listSenders } from "./api.js";
import { element } from "./dom.js";
import { count, since } from "./format.js";
import { t } from "./i18n.js";

/** The list is asked for again when it is older; senders are told every ten seconds at most. */
const FRESH_MS = 10_000;

export class SenderList {
  #senders = [];
  #askedAt = -Infinity;

  /** Ask for the list when it is old, and call `onChange` when it is there. */
  refresh(onChange) {
    if (Date.now() - this.#askedAt < FRESH_MS) return;
    this.#askedAt = Date.now();
    // Without an answer the old one stays; the status line says what does not answer.
    listSenders().then((senders) => {
      this.#senders = senders;
      onChange();
    }, () => {});
  }

  render(now) {
    const head = element("tr", "", ["sender", "sent", "seen"].map((name) => element("th", "", t(name), { scope: "col" })));
    const rows = this.#senders.map((sender) => row(sender, now));
    const table = element("table", "", [element("thead", "", head), element("tbody", "", rows)]);
    return element("div", "feeds senders", [
      element("h3", "", t("senders")), ...this.#warnings(), rows.length ? table : element("p", "hint", t("none")),
    ]);
  }

  #warnings() {
    const shared = new Map(this.#senders.filter((sender) => sender.shared).map((sender) => [sender.source, sender.shared]));
    return [...shared].map(([source, differs]) => {
      const what = differs.split(", ").map((kind) => t(kind)).join(t("and"));
      return element("p", "warning", t("sharedSource", { source, what }));
    });
  }
}

function row(sender, now) {
  const program = [sender.ea, sender.version].filter(Boolean).join(" ");
  const build = sender.build && t("build", { build: sender.build });
  const said = [program, sender.server, sender.account, build, sender.address].filter(Boolean).join(" · ");
  return element("tr", sender.shared ? "shared" : "", [
    element("td", "", [element("strong", "", sender.source), element("small", "", said)], { title: `${sender.source} · ${said}` }),
    element("td", "number", count(sender.ticks || sender.bars)),
    element("td", "number", since(Date.parse(sender.last_seen), now)),
  ]);
}
