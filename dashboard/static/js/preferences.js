// What the reader chose, stored in this browser; what is looked at also stands in the address, to be shared.

const KEY = "tickpipe";
const IN_ADDRESS = ["symbol", "source", "timeframe"];

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {};
  }
}

/** The remembered choices: symbol, source, timeframe, theme, language, pane, zone. The address goes first. */
export function preferences() {
  return { ...stored(), ...addressed() };
}

/** What the address asks for: symbol, source, timeframe, and the moment `at`, null for the present. */
export function addressed() {
  const address = new URLSearchParams(location.search);
  const chosen = {};
  for (const name of IN_ADDRESS) {
    if (address.has(name)) chosen[name] = address.get(name);
  }
  if (address.has("symbol") && !address.has("source")) chosen.source = undefined;
  const at = Date.parse(address.get("at") ?? "");
  return { ...chosen, at: Number.isNaN(at) ? null : at };
}

/** Remember choices; `isStep`: the browser's button Back undoes them. */
export function remember({ at, ...choices }, { isStep = false } = {}) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...stored(), ...choices }));
  } catch {
    // Without storage the choice holds for this visit.
  }
  if (!choices.symbol && !choices.timeframe && at === undefined) return;
  const address = new URLSearchParams(location.search);
  for (const name of IN_ADDRESS) {
    if (choices[name]) address.set(name, choices[name]);
  }
  if (at === null) address.delete("at");
  else if (at !== undefined) address.set("at", new Date(at).toISOString().replace(/:00\.000Z$/, "Z"));
  const colons = String(address).replaceAll("%3A", ":");
  if (isStep) history.pushState(null, "", `?${colons}`);
  else history.replaceState(null, "", `?${colons}`);
}
