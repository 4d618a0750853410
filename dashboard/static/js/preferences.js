// What the reader chose, stored in this browser; what is looked at also stands in the address, to be shared.

const KEY = "tickpipe";
/** What the chart shows, and what is drawn over it and beside it. */
const PLACE = ["symbol", "source", "timeframe"];
const LOOK = ["studies", "second", "second-source", "second-timeframe", "second-studies"];
/** What belongs to both charts. */
const SHARED = ["alerts", "sound"];

/** Whether this page is the second chart beside another page's: that one remembers for both. */
export const isBeside = window !== parent && new URLSearchParams(location.search).has("beside");

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {};
  }
}

/** The remembered choices: symbol, timeframe, theme, language and so on. The address goes first. */
export function preferences() {
  const address = new URLSearchParams(location.search);
  const look = LOOK.filter((name) => address.has(name)).map((name) => [name, address.get(name)]);
  return { ...stored(), ...Object.fromEntries(look), ...addressed() };
}

/** What the address asks for: symbol, source, timeframe, and the moment `at`, null for the present. */
export function addressed() {
  const address = new URLSearchParams(location.search);
  const chosen = {};
  for (const name of PLACE) {
    if (address.has(name)) chosen[name] = address.get(name);
  }
  if (address.has("symbol") && !address.has("source")) chosen.source = undefined;
  const at = Date.parse(address.get("at") ?? "");
  return { ...chosen, at: Number.isNaN(at) ? null : at };
}

/** Remember choices, an empty text for none; `isStep`: the browser's button Back undoes them. */
export function remember({ at, ...choices }, { isStep = false } = {}) {
  const kept = isBeside ? Object.fromEntries(Object.entries(choices).filter(([name]) => SHARED.includes(name))) : choices;
  if (Object.keys(kept).length) {
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...stored(), ...kept }));
    } catch {
      // Without storage the choice holds for this visit.
    }
  }
  if (![...PLACE, ...LOOK].some((name) => name in choices) && at === undefined) return;
  const address = new URLSearchParams(location.search);
  for (const name of [...PLACE, ...LOOK]) {
    if (choices[name]) address.set(name, choices[name]);
    else if (choices[name] === "") address.delete(name);
  }
  // What is drawn over the bars is shared with the link although it was chosen before.
  const look = isBeside ? {} : stored();
  for (const name of LOOK) if (!address.has(name) && look[name]) address.set(name, look[name]);
  if (at === null) address.delete("at");
  else if (at !== undefined) address.set("at", new Date(at).toISOString().replace(/:00\.000Z$/, "Z"));
  const readable = String(address).replaceAll("%3A", ":").replaceAll("%2C", ",");
  if (isStep) history.pushState(null, "", `?${readable}`);
  else history.replaceState(null, "", `?${readable}`);
  if (isBeside) parent.postMessage({ place: { ...addressed(), studies: address.get("studies") ?? "" } }, location.origin);
}
