// The keyboard: one key, one thing; nothing while somebody types.

/** `actions` maps a key (as in KeyboardEvent.key, letters in lower case) to a function. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input, dialog, [role=listbox]")) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
