// What is said in the middle of the stage while there is no chart to show there.

import { ApiError } from "./api.js";
import { $, element } from "./dom.js";
import { t } from "./i18n.js";

/** Say that something failed, or a title with a hint; without arguments nothing, if there is a chart library. */
export function notice(error, title = "", hint = "") {
  let [heading, text] = [title, hint];
  if (error) [heading, text] = [t("failed"), error instanceof ApiError && error.code !== "OFFLINE" ? error.message : t("offline")];
  if (!globalThis.LightweightCharts) [heading, text] = [t("noChart"), t("noChartHint")];
  $("notice").hidden = !heading;
  $("notice").replaceChildren(element("strong", "", heading), element("p", "", text));
}
