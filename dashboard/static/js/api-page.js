// The API as a page to read, from the document that machines read: nothing comes from outside.

import { $, element } from "./dom.js";

/** Text with `code` in it. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", "", part) : part));
}

/** Paragraphs: blank lines part them, other line ends are spaces. */
function paragraphs(text) {
  return text.split(/\n\s*\n/).map((part) => element("p", "", prose(part.replace(/\s+/g, " ").trim())));
}

function typeOf(schema) {
  const kinds = (schema.anyOf ?? [schema]).map((each) => (each.type === "array" ? "several" : each.type));
  return kinds.filter((kind) => kind !== "null").join(" or ");
}

function parameters(list) {
  const rows = list.map(({ name, required, schema, description }) => element("tr", "", [
    element("td", "", element("code", "", name)),
    element("td", "", `${typeOf(schema)}${required ? ", required" : ""}${schema.default === undefined ? "" : `, ${schema.default}`}`),
    element("td", "", description ?? ""),
  ]));
  return rows.length ? [element("table", "", element("tbody", "", rows))] : [];
}

function answers(responses) {
  const told = Object.entries(responses).map(([status, { content }]) =>
    `${status}${content && Object.keys(content).length ? ` (${Object.keys(content).join(", ")})` : ""}`);
  return element("p", "answers", `Answers: ${told.join(" · ")}`);
}

function section(path, { description, parameters: list = [], responses }) {
  return element("section", "", [
    element("h2", "", element("code", "", `GET ${path}`)),
    ...paragraphs(description ?? ""), ...parameters(list), answers(responses),
  ]);
}

const description = await (await fetch("openapi.json")).json();
$("reference").replaceChildren(
  element("h1", "", description.info.title),
  element("p", "", `${description.info.description} Version ${description.info.version}.`),
  ...Object.entries(description.paths).map(([path, { get }]) => section(path, get)),
);
