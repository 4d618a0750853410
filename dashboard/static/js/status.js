// The line at the top: what is so of feed, stream and pipeline.

import { $ } from "./dom.js";
import { dateTime, since } from "./format.js";
import { t } from "./i18n.js";
import { zoneLabel } from "./zone.js";

/** A feed whose newest tick is younger is live. */
const LIVE_MS = 60_000;

export class StatusLine {
  #link = "connecting";
  #refusal = null;
  #pipeline = null;
  #lastTick = 0;
  #aheadTick = 0;

  /** Another feed is shown, of which no tick is known yet. */
  forget() {
    this.#lastTick = this.#aheadTick = 0;
  }

  /** A tick of the feed is known of. */
  noteTick(time) {
    // One that is stamped tomorrow does not make the feed live until then.
    if (time > Date.now() + LIVE_MS) this.#aheadTick = Math.max(this.#aheadTick, time);
    else this.#lastTick = Math.max(this.#lastTick, time);
  }

  /** The state of the stream, as `Stream` tells it. */
  noteLink(link, refusal = null) {
    this.#link = link;
    if (link === "refused") this.#refusal = refusal;
    else if (link === "open" || link === "gone") this.#refusal = null;
    this.show();
  }

  notePipeline(state) {
    this.#pipeline = state;
    this.show();
  }

  show() {
    const [kind, text] = this.#status();
    if ($("status").dataset.kind !== kind) {
      $("status").dataset.kind = kind;
      // How long ago a tick was is another text each second: nobody wants to hear them all.
      $("status").setAttribute("aria-live", kind === "quiet" ? "off" : "polite");
    }
    if ($("status-text").textContent !== text) $("status-text").textContent = text;
    if ($("status").title !== text) $("status").title = text;
  }

  /** Kind (good, quiet, waiting or bad) and words of what is known: the worst first. */
  #status() {
    const state = this.#pipeline;
    if (this.#refusal) return ["bad", t("refused", { why: refusalText(this.#refusal) })];
    if (this.#link === "connecting") return ["waiting", t("connecting")];
    if (this.#link === "lost" || this.#link === "gone") return ["bad", t("reconnecting")];
    if (state && !state.kafka) return ["bad", t("kafkaAway")];
    if (state && !state.database) return ["bad", t("databaseAway")];
    if (state?.folding === false) return ["bad", t("notFolding")];
    if (state?.storing === false) return ["bad", t("notStoring")];
    return this.#feedStatus();
  }

  /** What the newest tick says of the feed. */
  #feedStatus() {
    const now = Date.now();
    if (now - this.#lastTick < LIVE_MS) return ["good", t("live")];
    if (this.#lastTick) return ["quiet", t("lastTick", { ago: since(this.#lastTick, now) })];
    if (this.#aheadTick) return ["quiet", t("aheadTick", { time: dateTime(this.#aheadTick), zone: zoneLabel(this.#aheadTick) })];
    return ["quiet", t("noTicks")];
  }
}

function refusalText({ code, message }) {
  return { TOO_MANY_STREAMS: t("tooManyStreams"), UNAUTHORIZED: t("unauthorized") }[code] ?? message;
}
