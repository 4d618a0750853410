// The list of symbols: opened by its button or the key /, searched by typing, chosen by pointer or Enter.

import { $, element } from "./dom.js";
import { t } from "./i18n.js";

export class Picker {
  #listings = [];
  #shown = [];
  #active = 0;
  #chosen = null;
  #onChoose;
  #onOpen;

  constructor({ onChoose, onOpen }) {
    this.#onChoose = onChoose;
    this.#onOpen = onOpen;
    $("symbol").addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    $("symbol-search").addEventListener("input", () => this.#render());
    $("symbols").addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("pointerdown", (event) => {
      if (this.isOpen && !event.target.closest(".picker")) this.close();
    });
  }

  get isOpen() {
    return !$("symbols").hidden;
  }

  /** Show what is chosen. */
  choose(listing) {
    this.#chosen = listing;
    $("symbol-name").textContent = listing?.symbol ?? "–";
    $("symbol-source").textContent = listing?.source ?? "";
  }

  list(listings) {
    this.#listings = listings;
    // Who goes through the list stays where they are in it.
    if (this.isOpen) this.#render(this.#shown[this.#active]);
  }

  open() {
    $("symbols").hidden = false;
    $("symbol").setAttribute("aria-expanded", "true");
    $("symbol-search").value = "";
    this.#render();
    $("symbol-search").focus();
    this.#onOpen();
  }

  close() {
    $("symbols").hidden = true;
    $("symbol").setAttribute("aria-expanded", "false");
    $("symbol").focus();
  }

  /** `active`: the listing to begin at, else the chosen one. */
  #render(active = this.#chosen) {
    const wanted = $("symbol-search").value.trim().toLowerCase();
    this.#shown = this.#listings.filter(({ symbol, source }) => `${symbol} ${source}`.toLowerCase().includes(wanted));
    this.#active = Math.max(0, this.#shown.findIndex((listing) => same(listing, active)));
    const rows = this.#shown.map((listing, index) => {
      const row = element("li", "", [element("strong", "", listing.symbol), element("span", "", listing.source)], {
        role: "option", id: `symbol-${index}`, "aria-selected": String(same(listing, this.#chosen)),
      });
      row.addEventListener("click", () => this.#pick(listing));
      return row;
    });
    $("symbol-list").replaceChildren(...(rows.length ? rows : [element("li", "empty", t("nothingFound"), { role: "option", "aria-disabled": "true" })]));
    this.#mark();
  }

  #mark() {
    for (const [index, row] of [...$("symbol-list").children].entries()) {
      row.classList.toggle("active", index === this.#active && this.#shown.length > 0);
    }
    if (this.#shown.length) $("symbol-search").setAttribute("aria-activedescendant", `symbol-${this.#active}`);
    else $("symbol-search").removeAttribute("aria-activedescendant");
    $("symbol-list").children[this.#active]?.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.#shown.length) {
      this.#active = (this.#active + step + this.#shown.length) % this.#shown.length;
      this.#mark();
    } else if (event.key === "Enter" && this.#shown[this.#active]) this.#pick(this.#shown[this.#active]);
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
  }

  #pick(listing) {
    this.close();
    this.#onChoose(listing);
  }
}

/** The listing with the newest candle, or undefined. */
export function newestOf(listings) {
  return [...listings].sort((a, b) => Date.parse(b.last) - Date.parse(a.last))[0];
}

const same = (a, b) => a?.symbol === b?.symbol && a?.source === b?.source;
