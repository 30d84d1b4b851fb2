// Shows what /status.json says, again and again. Text is set as text, never as markup.
"use strict";

const SECONDS = 2;
const ON_THE_WAY = ["ANNOUNCED", "PULLED", "VERIFIED", "LOADED", "DRAINING"];
const GOOD = ["ACTIVE", "WARM"];
// Without a name and a password that the address may hold: fetch refuses those.
const STATUS = new URL("status.json", location.origin + location.pathname);
let before = null;

const word = (value) => String(value).replace("BUNDLE_STATE_", "");
const short = (digest) => digest.replace(/^sha256:(.{12}).*/, "$1");
const list = (values) => (values.length ? values.join(", ") : "-");

function element(name, text, style) {
  const made = document.createElement(name);
  made.textContent = text;
  if (style) made.className = style;
  return made;
}

function show(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

function table(id, heads, rows) {
  if (!rows.length) return show(id, element("p", "none", "none"));
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  heads.forEach((text) => head.append(element("th", text)));
  const body = made.createTBody();
  rows.forEach((cells) => {
    const row = body.insertRow();
    cells.forEach((cell) => row.append(Array.isArray(cell) ? element("td", ...cell) : element("td", cell)));
  });
  show(id, made);
}

function number(value, name) {
  const made = element("div", "", "number");
  made.append(element("b", value), element("span", name));
  return made;
}

function rate(found, kind) {
  if (!before) return "-";
  const seconds = (Date.parse(found.at) - Date.parse(before.at)) / 1000;
  return seconds > 0 ? ((found.tokens[kind] - before.tokens[kind]) / seconds).toFixed(1) : "-";
}

function stateOf(revision) {
  const text = word(revision.state);
  return [text, revision.error ? "bad" : GOOD.includes(text) ? "good" : ""];
}

function showNumbers(found) {
  const status = found.status;
  const held = status.revisions.filter((one) => !["ANNOUNCED", "FAILED", "GONE"].includes(word(one.state))).length;
  const pinned = status.revisions.filter((one) => one.pinned).length;
  show(
    "numbers",
    number(rate(found, "completion"), "tokens made per second"),
    number(rate(found, "prompt"), "tokens read per second"),
    number(`${status.running} of ${status.batch}`, "requests in the engine"),
    number(status.waiting, "requests waiting"),
    number(`${held} of ${status.capacity}`, "bundles in memory"),
    number(`${status.slots} (${pinned} pinned)`, "slots"),
  );
}

function showRevisions(revisions) {
  const row = (one) => [
    [short(one.revision), "digest"], one.name, stateOf(one), list(one.references), one.in_flight, list(one.requests),
    one.pinned ? "yes" : "no", [one.error, "bad"],
  ];
  const heads = ["revision", "bundle", "state", "served as", "in flight", "forgets", "pinned", "error"];
  table("revisions", heads, revisions.map(row));
  const moving = revisions.filter((one) => ON_THE_WAY.includes(word(one.state)));
  table("swaps", heads.slice(0, 5), moving.map((one) => row(one).slice(0, 5)));
}

function showRest(found) {
  table(
    "tenants",
    ["tenant", "default", "bundles", "base", "rights", "in flight", "priority"],
    found.status.tenants.map((one) => [
      one.name, one.default_adapter || "-", list(one.bundles), one.base ? "yes" : "no", list(one.rights), one.in_flight,
      one.priority,
    ]),
  );
  table("denials", ["at", "method", "reason", "tenant"],
    found.denials.map((one) => [one.at, one.method || "-", one.reason, one.tenant || "unknown"]));
  table("happenings", ["at", "what", "of", "revision", "state", "more"],
    found.happenings.map((one) => [
      one.at, one.act, one.reference, [short(one.revision), "digest"], word(one.state).replace("UNSPECIFIED", ""),
      short(one.detail),
    ]));
}

function say(text, bad) {
  const state = document.getElementById("state");
  state.textContent = text;
  state.className = bad ? "bad" : "";
}

async function look() {
  try {
    const answer = await fetch(STATUS, { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const found = await answer.json();
    showNumbers(found);
    showRevisions(found.status.revisions);
    showRest(found);
    say(`${found.status.draining ? "DRAINING, " : ""}as of ${found.at}`, found.status.draining);
    before = found;
  } catch (error) {
    say(`no answer (${error.message}); what is shown may be old`, true);
  }
  setTimeout(look, SECONDS * 1000);
}

look();
