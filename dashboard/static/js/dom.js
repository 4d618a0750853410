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
