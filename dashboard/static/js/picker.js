// The list of symbols: opened by its button or the key /, searched by typing, chosen by pointer or Enter.

import { listSymbols } from "./api.js";
import { $, element } from "./dom.js";
import { t } from "./i18n.js";

/** Whoever types faster is answered once. */
const TYPING_MS = 120;

export class Picker {
  #listings = [];
  #shown = [];
  #active = 0;
  #chosen = null;
  /** Whether these are all there are; else what is typed is asked for. */
  #isWhole = true;
  #timer = 0;
  /** Answers that are awaited: until they come, nothing is said not to be found. */
  #asked = 0;
  #onChoose;

  constructor({ onChoose }) {
    this.#onChoose = onChoose;
    $("symbol").addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    $("symbol-search").addEventListener("input", () => this.#type());
    $("symbols").addEventListener("keydown", (event) => this.#key(event));
    const leave = (target) => {
      if (this.isOpen && target && !target.closest(".picker")) this.#hide();
    };
    document.addEventListener("pointerdown", ({ target }) => leave(target));
    document.addEventListener("focusin", ({ target }) => leave(target));
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

  /**
   * Of all listings, `told`: what is chosen, or undefined, and `first`: what to begin with: that, else its symbol from
   * another source, else what is chosen where it is asked for, or the listing with the newest candle.
   */
  async find(chosen, isAsked) {
    const { symbols, isWhole } = await this.#refresh("");
    const isChosen = ({ symbol }) => symbol === chosen.symbol;
    let wanted = symbols.filter(isChosen);
    if (!wanted.length && !isWhole && chosen.symbol) wanted = (await listSymbols(chosen.symbol)).symbols.filter(isChosen);
    const told = wanted.find(({ source }) => source === chosen.source);
    const newest = [...symbols].sort((a, b) => Date.parse(b.last) - Date.parse(a.last))[0];
    return { told, first: told ?? wanted[0] ?? (isAsked ? chosen : newest) };
  }

  /** Ask for the listings that contain `search`. */
  async #refresh(search) {
    const listed = await listSymbols(search);
    this.#take(search, listed);
    return listed;
  }

  /** Take the listings that contain `search`; those of a text that was typed over meanwhile are left. */
  #take(search, { symbols, isWhole }) {
    if (search !== (this.isOpen && !this.#isWhole ? this.#typed : "")) return;
    this.#listings = symbols;
    // The end of a search says nothing of the whole list.
    if (!search) this.#isWhole = isWhole;
    // It was typed while the list was thought to be whole.
    if (!search && !isWhole && this.isOpen && this.#typed) this.#search(this.#typed);
    // Who goes through the list stays where they are in it.
    if (this.isOpen) this.#render(this.#shown[this.#active]);
  }

  open() {
    $("symbols").hidden = false;
    $("symbol").setAttribute("aria-expanded", "true");
    $("symbol-search").value = "";
    this.#search("");
    this.#render();
    $("symbol-search").focus();
  }

  close() {
    this.#hide();
    $("symbol").focus();
  }

  #hide() {
    $("symbols").hidden = true;
    $("symbol").setAttribute("aria-expanded", "false");
  }

  get #typed() {
    return $("symbol-search").value.trim().toLowerCase();
  }

  #type() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (!this.#isWhole) {
      this.#timer = setTimeout(() => {
        this.#timer = 0;
        this.#search(this.#typed);
      }, TYPING_MS);
    }
    this.#render();
  }

  /** When the list is opened, and when there may be more than it shows of what is typed. */
  async #search(text) {
    this.#asked += 1;
    // The list that it opens with may be old; without an answer that stays.
    await this.#refresh(text).catch(() => {});
    this.#asked -= 1;
    if (this.isOpen && !this.#shown.length) this.#render();
  }

  /** `active`: the listing to begin at, else the chosen one. */
  #render(active = this.#chosen) {
    const wanted = this.#typed;
    this.#shown = this.#listings.filter(({ symbol, source }) => `${symbol} ${source}`.toLowerCase().includes(wanted));
    this.#active = Math.max(0, this.#shown.findIndex((listing) => same(listing, active)));
    const rows = this.#shown.map((listing, index) => {
      const row = element("li", "", [element("strong", "", listing.symbol), element("span", "", listing.source)], {
        role: "option", id: `symbol-${index}`, "aria-selected": String(same(listing, this.#chosen)),
      });
      row.addEventListener("click", () => this.#pick(listing));
      return row;
    });
    const words = t(this.#asked || this.#timer ? "searching" : "nothingFound");
    $("symbol-list").replaceChildren(...(rows.length ? rows : [element("li", "empty", words, { role: "option", "aria-disabled": "true" })]));
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

const same = (a, b) => a?.symbol === b?.symbol && a?.source === b?.source;
