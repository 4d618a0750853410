// Elements, made and found.

export const $ = (id) => document.getElementById(id);

/** An element with a class, attributes and children; text stays text. */
export function element(tag, className = "", children = [], attributes = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...[children].flat());
  return made;
}

/** A function that has `act` done with the next frame, once however often it is called; a page that is hidden has none. */
export function oncePerFrame(act) {
  let isWaiting = false;
  return () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      act();
    });
  };
}

/**
 * Make the children of `parent` like these, and keep the elements that stay, so that focus, selection and a click that
 * is under way survive. Elements with `data-key` are known by it, others by their place.
 */
export function patch(parent, wanted) {
  const keys = new Set(wanted.map((next) => next.dataset?.key));
  for (const child of [...parent.children]) {
    if (child.dataset.key !== undefined && !keys.has(child.dataset.key)) child.remove();
  }
  const keyed = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstChild;
  for (const next of wanted) {
    const key = next.dataset?.key;
    const known = key === undefined ? place : keyed.get(key);
    if (known?.nodeName !== next.nodeName || known.dataset?.key !== key) {
      parent.insertBefore(next, place);
      continue;
    }
    if (known !== place) parent.insertBefore(known, place);
    liken(known, next);
    place = known.nextSibling;
  }
  while (place) {
    const rest = place.nextSibling;
    place.remove();
    place = rest;
  }
}

function liken(known, next) {
  if (known.nodeType === Node.TEXT_NODE) {
    if (known.data !== next.data) known.data = next.data;
    return;
  }
  for (const { name } of [...known.attributes]) {
    if (!next.hasAttribute(name)) known.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (known.getAttribute(name) !== value) known.setAttribute(name, value);
  }
  patch(known, [...next.childNodes]);
}
