// Language and theme: at first those of the system, then those that the reader chooses.

import { $, element } from "./dom.js";
import { setLocale } from "./format.js";
import { preferredLanguage, setLanguage, t } from "./i18n.js";
import { remember } from "./preferences.js";

const KEYS = [
  ["1 … 9", "keyTimeframe"], ["/", "keySymbol"], ["← →", "keyScroll"], ["+ −", "keyZoom"], ["End", "keyLatest"], ["Home", "keyFirst"],
  ["G", "keyGoing"], ["P", "keyPane"], ["D", "keyTable"], ["V", "keyProof"], ["C", "view"], ["Q", "viewQuote"], ["S", "spread_"], ["B", "viewBroker"], ["T", "keyTheme"], ["L", "keyLanguage"],
];

export class Appearance {
  #language;
  #theme;
  #prefersDark = matchMedia("(prefers-color-scheme: dark)");
  #onLanguage;
  #onTheme;

  /** What is called after the language, or the theme, has changed. */
  constructor({ language, theme, onLanguage, onTheme }) {
    this.#language = language ?? preferredLanguage();
    this.#theme = theme ?? null;
    this.#onLanguage = onLanguage;
    this.#onTheme = onTheme;
    $("language").addEventListener("click", () => this.toggleLanguage());
    $("theme").addEventListener("click", () => this.toggleTheme());
    this.#prefersDark.addEventListener("change", () => this.#showTheme());
  }

  show() {
    this.#showLanguage();
    this.#showTheme();
  }

  toggleLanguage() {
    this.#language = this.#language === "en" ? "pt" : "en";
    remember({ language: this.#language });
    this.#showLanguage();
  }

  /** The other one; who comes back to the system's follows the system again. */
  toggleTheme() {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    this.#theme = (theme === "dark") === this.#prefersDark.matches ? null : theme;
    remember({ theme: this.#theme });
    this.#showTheme();
  }

  #showLanguage() {
    setLanguage(this.#language);
    setLocale(t("locale"));
    $("language").textContent = this.#language === "en" ? "PT" : "EN";
    $("key-list").replaceChildren(...KEYS.map(([key, name]) =>
      element("div", "", [element("dt", "", element("kbd", "", key)), element("dd", "", t(name))])));
    this.#onLanguage();
  }

  #showTheme() {
    const isDark = this.#theme ? this.#theme === "dark" : this.#prefersDark.matches;
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    $("theme").setAttribute("aria-pressed", String(isDark));
    this.#onTheme();
  }
}
