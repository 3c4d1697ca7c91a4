// Asks the server for its state once in each interval, and draws it. What is old is said to be old.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const number = (value) => (value == null ? "none" : Math.abs(value) < 1000 ? String(+value.toPrecision(3)) : whole.format(Math.round(value)));
const clock = (millis) => new Date(millis).toISOString().slice(11, 19);

// Only what has changed is written, so that a reader is told of news alone.
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function light(id, state, words, detail) {
  const place = byId(id);
  place.dataset.state = state;
  write(place.querySelector(".sign"), { good: "✓", bad: "✗", unknown: "?" }[state]);
  write(place.querySelector("strong"), words);
  write(place.querySelector("small"), detail);
}

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The least of 1, 2, 5, 10 … that is not below.
function ceiling(value) {
  const ten = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * ten >= value * 0.999) * ten;
}

// One or two lines over time; the second is dashed. A second without a value is a gap, and no zero.
function chart(id, what, lines) {
  const figure = byId(id);
  const width = Math.max(figure.clientWidth - 24, 200), height = 144;
  const left = 44, right = width - 8, top = 8, bottom = height - 18;
  const length = Math.max(...lines.map((line) => line.values.length));
  const known = lines.flatMap((line) => line.values).filter((value) => value != null);
  const greatest = ceiling(Math.max(...known, 0) || 1);
  const x = (index, count) => right - ((count - 1 - index) / Math.max(span - 1, 1)) * (right - left);
  const y = (value) => bottom - (value / greatest) * (bottom - top);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const part of [0, 0.5, 1]) {
    const at = y(greatest * part);
    svg.append(draw("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
    svg.append(draw("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, short.format(greatest * part)));
  }
  const minutes = Math.round((span * interval) / 60000);
  svg.append(draw("text", { x: left, y: height - 3 }, minutes + " min ago"));
  svg.append(draw("text", { x: right, y: height - 3, "text-anchor": "end" }, "now"));
  lines.forEach((line, which) => {
    const second = which === 1 ? { class: "second" } : {};
    let run = [];
    const end = () => {
      if (run.length > 1) svg.append(draw("polyline", { ...second, points: run.map((at) => at.join()).join(" ") }));
      else if (run.length) svg.append(draw("circle", { ...second, cx: run[0][0], cy: run[0][1], r: 2 }));
      run = [];
    };
    line.values.forEach((value, index) => {
      if (value == null) end();
      else run.push([x(index, length).toFixed(1), y(value).toFixed(1)]);
    });
    end();
  });
  const now = lines.map((line) => line.name + number(line.values.at(-1))).join(" · ");
  const most = known.length ? number(Math.max(...known)) : "none";
  svg.setAttribute("aria-label", `${what}: now ${now}; at most ${most} in the last ${Math.max(1, Math.round((length * interval) / 60000))} minutes`);
  write(figure.querySelector("b"), now);
  figure.querySelector("svg")?.remove();
  figure.append(svg);
}

let span = 300, interval = 1000;

function figures(status) {
  const { journal } = status;
  const pairs = {
    "Sessions": status.sessions,
    "Accounts": status.accounts,
    "Newest journal row": journal.appended,
    "Newest row on disk": journal.durable,
    "Rows not on disk yet": journal.lag,
    "Waiting for the journal": journal.queued,
    "PINs being checked": status.pin_checks,
    "Logins refused": status.logins_refused,
    "Connections refused": status.connections_refused,
  };
  const list = byId("figures");
  for (const [name, value] of Object.entries(pairs)) {
    let pair = [...list.children].find((child) => child.firstChild.textContent === name);
    if (!pair) {
      pair = document.createElement("div");
      pair.append(document.createElement("dt"), document.createElement("dd"));
      pair.firstChild.textContent = name;
      list.append(pair);
    }
    write(pair.lastChild, value === undefined ? "–" : whole.format(value));
  }
}

function terminals(status) {
  const rows = status.terminals.map(({ terminal, sessions, cash }) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = terminal;
    const count = document.createElement("td");
    count.textContent = sessions;
    const sums = document.createElement("td");
    (cash.length ? cash : ["none moved"]).forEach((sum, index) => {
      if (index) sums.append(document.createElement("br"));
      sums.append(sum);
    });
    row.append(name, count, sums);
    return row;
  });
  if (!rows.length) {
    const row = document.createElement("tr");
    const nobody = document.createElement("th");
    nobody.colSpan = 3;
    nobody.textContent = "No terminal has been here yet.";
    row.append(nobody);
    rows.push(row);
  }
  byId("terminals").replaceChildren(...rows);
  byId("more").hidden = !status.more_terminals;
  write(byId("more"), `These are the first ${status.terminals.length}; there are more.`);
}

function show(status) {
  interval = status.interval_ms;
  write(byId("about"), `version ${status.version}, started ${new Date(status.started).toISOString().slice(0, 19).replace("T", " ")} UTC, as of ${clock(status.now)} UTC`);
  light("ready", status.ready ? "good" : "bad", status.ready ? "Serving" : "Not serving", status.ready ? "The bank is open, and its journal takes transactions." : status.why_not);
  const [state, words] = {
    balanced: ["good", "The books balance"],
    unbalanced: ["bad", "The books do not balance"],
  }[status.books.state] ?? ["unknown", "Not known whether the books balance"];
  light("books", state, words, status.books.detail);
  const of = (name, factor = 1) => status.samples.map((sample) => (sample[name] == null ? null : sample[name] * factor));
  chart("rate", "Requests a second", [{ name: "", values: of("requests") }]);
  chart("latency", "Milliseconds of a transaction", [
    { name: "p50 (solid) ", values: of("p50_us", 1e-3) },
    { name: "p99 (dashed) ", values: of("p99_us", 1e-3) },
  ]);
  chart("rows", "Journal rows in a commit", [{ name: "", values: of("rows_per_commit") }]);
  chart("sync", "Milliseconds for the disk", [{ name: "p99 ", values: of("sync_p99_us", 1e-3) }]);
  figures(status);
  terminals(status);
}

let heard = null, latest = null;

// What is drawn fits the width that there was.
addEventListener("resize", () => latest && show(latest));

async function ask() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    latest = await answer.json();
    show(latest);
    heard = Date.now();
  } catch (error) {
    const since = heard === null ? "" : ` since ${clock(heard)} UTC; all below is as it was then`;
    light("ready", "bad", "No answer", `The server has not answered${since} (${error.message}).`);
    light("books", "unknown", "Not known whether the books balance", "The server does not answer.");
  }
  setTimeout(ask, interval);
}

ask();
