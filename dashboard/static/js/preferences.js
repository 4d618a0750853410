// What the reader chose, stored in this browser; the symbol and timeframe also stand in the address, to be shared.

const KEY = "tickpipe";

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {};
  }
}

/** The remembered choices: symbol, source, timeframe, theme, language, pane. The address goes first. */
export function preferences() {
  const address = new URLSearchParams(location.search);
  const chosen = stored();
  for (const name of ["symbol", "source", "timeframe"]) {
    if (address.has(name)) chosen[name] = address.get(name);
  }
  if (address.has("symbol") && !address.has("source")) delete chosen.source;
  return chosen;
}

/** Remember choices. */
export function remember(choices) {
  const chosen = { ...stored(), ...choices };
  try {
    localStorage.setItem(KEY, JSON.stringify(chosen));
  } catch {
    // Without storage the choice holds for this visit.
  }
  if (choices.symbol || choices.timeframe) {
    const address = new URLSearchParams(location.search);
    for (const name of ["symbol", "source", "timeframe"]) {
      if (choices[name]) address.set(name, choices[name]);
    }
    history.replaceState(null, "", `?${address}`);
  }
}
