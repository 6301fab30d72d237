"use strict";

// Rows come worst first; a hundred are drawn at a time, details when a row is opened.
const rows = JSON.parse(document.getElementById("data").textContent);
const PAGE = 100;
const COLUMNS = [
  { key: "name", label: "File" },
  { key: "status", label: "Status" },
  { key: "seconds", label: "Length", unit: "s", digits: 2 },
  { key: "wer", label: "WER", unit: "%", scale: 100, digits: 1 },
  { key: "cer", label: "CER", unit: "%", scale: 100, digits: 1 },
  { key: "rtf", label: "RTF", digits: 4 },
].filter((column) => rows.some((row) => row[column.key] !== undefined));

const USUAL = { query: "", status: "", order: "worst" };

const element = (id) => document.getElementById(id);
const state = { ...USUAL, shown: 0, found: rows };

/** Make an element with attributes and children; text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function figure(row, column) {
  const value = row[column.key];
  if (value === undefined) {
    return "";
  }
  const text = (value * (column.scale || 1)).toFixed(column.digits);
  return column.unit ? `${text} ${column.unit}` : text;
}

function words(row) {
  if (row.words === undefined) {
    const parts = [row.name, row.status, row.reason, row.message, row.text, row.said, row.speaker];
    const steps = (row.steps || []).map((step) => step.slice(1).join(" "));
    row.words = [...parts, ...(row.flags || []), ...steps].join(" ").toLowerCase();
  }
  return row.words;
}

function matches(row) {
  const terms = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  return (
    (!state.status || row.status === state.status) &&
    terms.every((term) => words(row).includes(term))
  );
}

function compare(key, sign) {
  return (first, second) => {
    const [a, b] = [first[key], second[key]];
    if (a === undefined || b === undefined) {
      return (a === undefined) - (b === undefined);
    }
    const order = typeof a === "string" ? a.localeCompare(b) : a - b;
    return sign * order;
  };
}

/** Draw the list anew for the filter and the order. */
function refresh() {
  state.found = rows.filter(matches);
  if (state.order !== "worst") {
    const falling = state.order.startsWith("-");
    state.found.sort(compare(state.order.replace("-", ""), falling ? -1 : 1));
  }
  state.shown = 0;
  element("rows").replaceChildren();
  const all = state.found.length === rows.length;
  element("count").textContent = all
    ? `${rows.length} files`
    : `${state.found.length} of ${rows.length} files`;
  for (const head of element("head").children) {
    const key = head.dataset.key;
    const way = { [key]: "ascending", [`-${key}`]: "descending" }[state.order] || "none";
    head.setAttribute("aria-sort", way);
  }
  showMore();
  remember();
}

function showMore() {
  const next = state.found.slice(state.shown, state.shown + PAGE);
  element("rows").append(...next.map(drawRow));
  state.shown += next.length;
  element("more").hidden = state.shown >= state.found.length;
}

function drawRow(row) {
  const place = row.at ? ` @ ${row.at.toFixed(2)} s` : "";
  const open = make("button", { type: "button", class: "open", "aria-expanded": "false" });
  open.textContent = row.name + place;
  const line = make("tr", {}, make("td", {}, open));
  for (const column of COLUMNS.slice(1)) {
    if (column.key === "status") {
      const reason = row.reason ? ` ${row.reason}` : "";
      line.append(make("td", { class: row.status }, row.status + reason));
    } else {
      line.append(make("td", { class: "number", "data-name": column.label }, figure(row, column)));
    }
  }
  open.addEventListener("click", () => toggle(open, line, row));
  return line;
}

function toggle(open, line, row) {
  const opened = open.getAttribute("aria-expanded") === "true";
  open.setAttribute("aria-expanded", String(!opened));
  if (opened) {
    line.nextElementSibling.remove();
  } else {
    const cell = make("td", { colspan: COLUMNS.length }, ...details(row));
    line.after(make("tr", { class: "detail" }, cell));
  }
}

function details(row) {
  const parts = [];
  const say = (label, text) => {
    parts.push(make("p", {}, make("span", { class: "label" }, `${label} `), text));
  };
  if (row.message) {
    say("found", row.message);
  }
  if (row.flags) {
    say("flags", row.flags.join(", "));
  }
  if (row.steps) {
    const [edits, reference] = row.edits;
    say("edits", `${edits} in ${reference} words`);
    parts.push(difference(row.steps));
  }
  if (row.said) {
    say("said", row.said);
  }
  if (row.text) {
    say("recognised", row.text);
  }
  if (row.scores) {
    say("scores", JSON.stringify(row.scores).replace(/[{}"]/g, "").replace(/,/g, ", "));
  }
  parts.push(player(row.after ? "before" : "audio", row.audio));
  if (row.after) {
    parts.push(player("after", row.after));
  }
  for (const [name, source] of Object.entries(row.pictures || {})) {
    const picture = make("img", { src: source, alt: `spectrogram ${name}`, loading: "lazy" });
    parts.push(make("figure", {}, picture, make("figcaption", {}, name)));
  }
  return parts;
}

function player(label, source) {
  const audio = make("audio", { controls: "", preload: "none", "aria-label": label });
  audio.setAttribute("src", source);
  return make("p", {}, make("span", { class: "label" }, label), audio);
}

/** Show deletions struck out, insertions underlined, a substitution as both. */
function difference(steps) {
  const box = make("p", { class: "difference" });
  for (const [mark, first, second] of steps) {
    if (mark === "=") {
      box.append(`${first} `);
    } else if (mark === "S") {
      const swap = make("span", { class: "swap" }, make("del", {}, first), make("ins", {}, second));
      box.append(swap, " ");
    } else {
      box.append(make(mark === "D" ? "del" : "ins", {}, first), " ");
    }
  }
  return box;
}

/** Keep filter and order in the address, so that a view can be bookmarked. */
function remember() {
  const view = new URLSearchParams();
  for (const [name, usual] of Object.entries(USUAL)) {
    if (state[name] !== usual) {
      view.set(name, state[name]);
    }
  }
  const text = view.toString();
  const address = text ? `#${text}` : location.href.split("#")[0];
  if (text || location.hash.includes("=")) {
    history.replaceState(null, "", address);
  }
}

function recall() {
  const view = new URLSearchParams(location.hash.slice(1));
  for (const [name, usual] of Object.entries(USUAL)) {
    element(name).value = view.get(name) || usual;
    state[name] = element(name).value || usual;
  }
}

function prepareControls() {
  for (const status of new Set(rows.map((row) => row.status))) {
    element("status").append(make("option", { value: status }, status));
  }
  element("order").append(make("option", { value: "worst" }, "worst first"));
  for (const { key, label } of COLUMNS) {
    element("order").append(make("option", { value: key }, `${label}, rising`));
    element("order").append(make("option", { value: `-${key}` }, `${label}, falling`));
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      change("order", state.order === `-${key}` ? key : `-${key}`);
    });
    element("head").append(make("th", { scope: "col", "data-key": key }, button));
  }
}

function change(name, value) {
  state[name] = value;
  element(name).value = value;
  refresh();
}

/** Arrow keys go from file to file, a slash to the filter. */
function steer(event) {
  const typing = event.target.matches("input, select, audio");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    element("query").focus();
  }
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.matches(".open")) {
    const buttons = [...document.querySelectorAll(".open")];
    const next = buttons[buttons.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }
}

function start() {
  prepareControls();
  recall();
  refresh();
  element("query").addEventListener("input", (event) => change("query", event.target.value));
  element("status").addEventListener("change", (event) => change("status", event.target.value));
  element("order").addEventListener("change", (event) => change("order", event.target.value));
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  element("more").addEventListener("click", showMore);
  for (const chip of document.querySelectorAll("[data-query]")) {
    chip.addEventListener("click", () => {
      change("query", chip.dataset.query);
      element("items").scrollIntoView();
      element("query").focus({ preventScroll: true });
    });
  }
  document.addEventListener("keydown", steer);
  window.addEventListener("hashchange", () => {
    if (location.hash.includes("=")) {
      recall();
      refresh();
    }
  });
}

start();
