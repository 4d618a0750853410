// The line at the top: what is so of feed, stream and pipeline.

import { dateTime, since } from "./format.js";
import { t } from "./i18n.js";

/** A feed whose newest tick is younger is live. */
export const LIVE_MS = 60_000;

/** What the newest tick says of the feed. */
function feedStatus(view) {
  const now = Date.now();
  if (now - view.lastTick < LIVE_MS) return ["good", t("live")];
  if (view.lastTick) return ["quiet", t("lastTick", { ago: since(view.lastTick, now) })];
  if (view.aheadTick) return ["quiet", t("aheadTick", { time: dateTime(view.aheadTick) })];
  return ["quiet", t("noTicks")];
}

function refusalText({ code, message }) {
  return { TOO_MANY_STREAMS: t("tooManyStreams"), UNAUTHORIZED: t("unauthorized") }[code] ?? message;
}

/** Kind (good, quiet, waiting or bad) and words of what the page knows: the worst first. */
export function statusOf(view) {
  const state = view.pipeline;
  if (view.refusal) return ["bad", t("refused", { why: refusalText(view.refusal) })];
  if (view.link === "connecting") return ["waiting", t("connecting")];
  if (view.link === "lost" || view.link === "gone") return ["bad", t("reconnecting")];
  if (state && !state.kafka) return ["bad", t("kafkaAway")];
  if (state && !state.database) return ["bad", t("databaseAway")];
  if (state?.folding === false) return ["bad", t("notFolding")];
  if (state?.storing === false) return ["bad", t("notStoring")];
  return feedStatus(view);
}
