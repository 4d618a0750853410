// The keyboard: one key, one thing; nothing while somebody types.

/** `actions` maps a key (as in KeyboardEvent.key, letters in lower case) to a function. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    // A dialog that was just closed holds the focus until the next frame.
    if (event.target.closest("input, select, dialog, [role=listbox]")?.checkVisibility()) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
