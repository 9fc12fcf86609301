// The labelling page. Texts of models and users are only ever put into the page by textContent.
"use strict";

import * as kept from "./kept.js";

const $ = (id) => document.getElementById(id);
const state = { settings: null, task: null, last: null, since: 0, axis: 0, busy: false, filled: "" };
const AGAIN = 2000, TRIES = 3;
const VERDICTS = [["left", "A is better", "A"], ["right", "B is better", "B"], ["tie", "Equal", "T"], ["both_bad", "Both bad", "X"]];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function ask(path, body) {
  const options = { headers: { "x-cai": "1" }, credentials: "same-origin" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const reply = await fetch(path, options);
  const found = await reply.json().catch(() => ({}));
  if (!reply.ok) {
    const error = new Error(found.error || `error ${reply.status}`);
    error.status = reply.status;
    error.why = found.why || "";
    throw error;
  }
  return found;
}

// --- what was said is kept until the server has it ------------------------------------------------------------------

const tries = new Map();

function passes(error, verdict) {  // whether the same may be taken later
  if (error.status === undefined || [401, 408, 429, 502, 503, 504].includes(error.status) || error.why === "person") return true;
  if (error.status !== 500) return false;
  tries.set(verdict.id, (tries.get(verdict.id) || 0) + 1);
  return tries.get(verdict.id) < TRIES;
}

async function flush() {  // the last reply, and what was not taken of the item in view
  let reply = null, refused = null;
  for (const verdict of kept.all("queue")) {
    try {
      reply = await ask("/api/verdict", verdict);
      kept.remove("queue", verdict.id);
      kept.dropDraft(verdict.task);
      refused = null;
    } catch (error) {
      if (passes(error, verdict)) throw error;
      if (state.task && state.task.id === verdict.task) {  // it is still in the form, to be mended there
        kept.remove("queue", verdict.id);
        refused = error;
      } else {
        kept.refuse(verdict, error.message);
      }
    }
  }
  showRefused();
  return { reply, refused };
}

function showRefused() {
  const count = kept.all("refused").length;
  $("refused").hidden = count === 0;
  $("refused").textContent = `Not taken: ${count}`;
}

function refusals() {
  const rows = kept.all("refused");
  dialog("Verdicts that the server did not take", rows.map((each) => [each.reason, JSON.stringify(each.said, null, 1)]));
  const again = make("button", { type: "button", text: "Send them again" });
  const forget = make("button", { type: "button", text: "Throw them away" });
  const emptied = (kind) => {
    for (const { reason, ...verdict } of rows) {
      if (kind) kept.put(kind, verdict);
      kept.remove("refused", verdict.id);
    }
    $("dialog").close();
    showRefused();
  };
  again.addEventListener("click", () => { emptied("queue"); deliver("Sent again."); });
  forget.addEventListener("click", () => emptied(""));
  $("dialog-text").append(make("p", { class: "choices" }, again, forget));
}

// --- showing ----------------------------------------------------------------------------------------------------------

const letter = (place) => String.fromCharCode(65 + place);

function showProgress(progress) {
  $("bar").max = Math.max(1, progress.of);
  $("bar").value = progress.done;
  $("count").textContent = `${progress.done} of ${progress.of}`;
}

function show(reply) {
  showProgress(reply.progress);
  state.task = reply.task;
  state.last = reply.last;
  state.filled = "";
  state.since = performance.now();
  state.axis = 0;
  const none = reply.task === null;
  $("form").hidden = none;
  $("empty").hidden = !none;
  $("prompt").replaceChildren();
  $("answers").replaceChildren();
  $("hint").hidden = true;
  if (none) {
    $("empty").textContent = "All done. Thank you! You can close this page; everything is saved.";
    return;
  }
  for (const turn of reply.task.messages) {
    $("prompt").append(make("div", { class: `turn ${turn.role === "user" ? "user" : ""}` },
      make("b", { text: turn.role }), make("div", { class: "text", text: turn.content })));
  }
  reply.task.answers.forEach((text, place) => {
    $("answers").append(make("article", { class: "answer", id: `answer-${place}`, "aria-label": `Answer ${letter(place)}` },
      make("h2", { text: `Answer ${letter(place)}` }), make("div", { class: "text", text })));
  });
  const hints = state.settings.axes.filter((axis) => (reply.task.hints || {})[axis] !== undefined);
  if (hints.length) {
    const told = hints.map((axis) => `${Math.round(100 * reply.task.hints[axis])} %${axis ? ` for ${axis}` : ""}`);
    $("hint").textContent = `The AI judge gives answer A ${told.join(", ")}.`;
    $("hint").hidden = false;
  }
  $("questions").replaceChildren(...questions(reply.task));
  $("edits").replaceChildren(...reply.task.answers.map((_, place) => radio("edited", String(place), `Answer ${letter(place)}`)));
  $("note").value = "";
  $("edit").value = "";
  $("more").open = false;
  if (reply.said) restore(reply.said);
  else redraft(kept.draft(reply.task));
  mark();
  $("work").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function radio(name, value, label, key) {
  const id = `${name}-${value}`;
  const input = make("input", { type: "radio", name, value, id });
  const node = make("label", { for: id }, input, make("span", { text: label }));
  if (key) node.append(make("kbd", { text: key }));
  return node;
}

function questions(task) {
  const mode = state.settings.mode;
  if (mode === "pairs") {
    return state.settings.axes.map((axis, place) => {
      const box = make("fieldset", { id: `axis-${place}` },
        make("legend", { text: axis ? `Which is more ${axis}?` : "Which answer is better?" }));
      const row = make("div", { class: "choices" });
      for (const [value, label, key] of VERDICTS) row.append(radio(`v${place}`, value, label, key));
      const scale = make("div", { class: "choices scale", role: "group", "aria-label": "How much better, 1 to 7" });
      for (let n = 1; n <= 7; n++) scale.append(radio(`s${place}`, String(n), String(n)));
      box.append(row, make("p", { class: "ends" }, make("span", { text: "1: A much better" }), make("span", { text: "7: B much better" })), scale);
      return box;
    });
  }
  const asked = state.settings.axes[0] ? `${state.settings.axes[0]}: ` : "";
  const most = mode === "rating" ? 5 : task.answers.length;
  return task.answers.map((_, place) => {
    const legend = mode === "rating" ? `${asked}answer ${letter(place)}: 1 (bad) to 5 (very good)` : `${asked}rank of answer ${letter(place)} (1 is best; equal ranks are ties)`;
    const row = make("div", { class: "choices scale" });
    for (let n = 1; n <= most; n++) row.append(radio(`r${place}`, String(n), String(n)));
    return make("fieldset", { id: `axis-${place}` }, make("legend", { text: legend }), row);
  });
}

function picked(name) {
  const found = document.querySelector(`input[name="${name}"]:checked`);
  return found ? found.value : null;
}

function pick(name, value) {
  const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
  if (input) input.checked = true;
}

function clear(name) {
  for (const input of document.querySelectorAll(`input[name="${name}"]`)) input.checked = false;
}

function restore(said) {
  const [place, text] = Object.entries(said.edits || {})[0] || [];
  $("note").value = said.note || "";
  if (text) { $("edit").value = text; pick("edited", place); }
  $("more").open = Boolean($("note").value || $("edit").value);
  state.settings.axes.forEach((axis, place) => {
    const own = (said.axes || {})[axis];
    if (own) { pick(`v${place}`, own.verdict); if (own.strength) pick(`s${place}`, String(own.strength)); }
  });
  (said.ratings || said.ranking || []).forEach((value, place) => pick(`r${place}`, String(value)));
}

function keepDraft() {
  if (!state.task) return;
  const picks = [...document.querySelectorAll("#form input:checked")].map((input) => [input.name, input.value]);
  kept.keepDraft(state.task, { picks, note: $("note").value, edit: $("edit").value });
}

function redraft(found) {
  if (!found) return;
  for (const [name, value] of found.picks) pick(name, value);
  $("note").value = found.note;
  $("edit").value = found.edit;
  $("more").open = Boolean(found.note || found.edit);
}

// An answer is rewritten from what it is, not from nothing; what was typed is never replaced.
function fillEdit(place) {
  const box = $("edit");
  if (box.value === "" || box.value === state.filled) box.value = state.filled = state.task.answers[place];
}

function beginEdit() {
  if (!state.task || picked("edited") !== null) return;
  const place = picked("v0") === "right" ? 1 : 0;
  pick("edited", String(place));
  fillEdit(place);
  $("edit").setSelectionRange(0, 0);
}

function mark() {  // the frame around the better answer, and strength and verdict in step
  if (!state.task || state.settings.mode !== "pairs") return;
  const verdict = picked("v0");
  $("answer-0").classList.toggle("better", verdict === "left");
  $("answer-1").classList.toggle("better", verdict === "right");
}

function answered(place) { return picked(state.settings.mode === "pairs" ? `v${place}` : `r${place}`) !== null; }
function count() { return state.settings.mode === "pairs" ? state.settings.axes.length : state.task.answers.length; }

function choose(place, verdict) {
  pick(`v${place}`, verdict);
  clear(`s${place}`);
  if (verdict === "tie") pick(`s${place}`, "4");
  mark();
}

function strength(place, value) {
  pick(`s${place}`, String(value));
  pick(`v${place}`, value < 4 ? "left" : value > 4 ? "right" : "tie");
  mark();
}

// --- doing ------------------------------------------------------------------------------------------------------------

function payload() {
  const place = picked("edited"), text = $("edit").value;
  const edited = place !== null && text.trim() && text !== state.task.answers[Number(place)];
  const said = { note: $("note").value, edits: edited ? { [place]: text } : {} };
  if (state.settings.mode !== "pairs") {
    const values = state.task.answers.map((_, place) => Number(picked(`r${place}`)));
    said[state.settings.mode === "rating" ? "ratings" : "ranking"] = values;
    return said;
  }
  said.axes = {};
  state.settings.axes.forEach((axis, place) => {
    const degree = picked(`s${place}`);
    said.axes[axis] = { verdict: picked(`v${place}`), strength: degree ? Number(degree) : null };
  });
  return said;
}

async function submit(skip = false) {
  if (state.busy) say("Still sending what you said.", true);
  if (state.busy || !state.task) return;
  if (!skip) {
    for (let place = 0; place < count(); place++) {
      if (!answered(place)) {
        state.axis = place;
        say("One question is still open.", true);
        document.querySelector(`#axis-${place} input`).focus();
        return;
      }
    }
  }
  kept.put("queue", {
    id: crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2) + Date.now(),
    task: state.task.id,
    ticket: state.task.ticket,
    seconds: Math.round((performance.now() - state.since) / 100) / 10,
    said: skip ? { skip: true, note: $("note").value, edits: {} } : payload(),
  });
  await deliver("Saved.");
}

// Sends what waits, and goes on trying; true once the server has answered.
async function deliver(done) {
  if (state.busy) return false;
  state.busy = true;
  for (let lost = false; ; ) {
    try {
      const { reply, refused } = await flush();
      state.busy = false;
      if (refused) say(`Not taken: ${refused.message}`, true);
      else if (reply) { say(lost ? "Connected again; everything is saved." : done); show(reply); }
      return true;
    } catch (error) {
      if (error.status === 401 || error.why === "person") { leave(`${error.message}. What you said is kept here.`); return false; }
      lost = true;
      say(error.status ? `${error.message}. What you said is kept here and sent again.`
        : "No connection. What you said is kept here and sent as soon as there is one.", true);
      await new Promise((resume) => setTimeout(resume, AGAIN));
    }
  }
}

async function undo() {
  if (state.busy || !(await deliver(""))) return;
  if (!state.last) { say("There is nothing to take back.", true); return; }
  state.busy = true;
  try {
    const reply = await ask("/api/undo", { verdict: state.last });
    say(reply.said ? "Taken back: say it again." : "That was taken back already.");
    show(reply);
  } catch (error) {
    if (error.status === 401) leave(error.message);
    else say(error.status ? error.message : "No connection. Press Undo again when there is one: it takes back one verdict only.", true);
  }
  state.busy = false;
}

function dialog(title, rows) {
  $("dialog-title").textContent = title;
  const list = make("dl");
  for (const [term, text] of rows) list.append(make("dt", { text: term }), make("dd", { class: "text", text }));
  $("dialog-text").replaceChildren(list);
  $("dialog").showModal();
}

function guidelines() {
  dialog("Guidelines", state.settings.guidelines.map((each) => [each.title, each.text]));
}

function keys() {
  dialog("Keys", [["A, B", "this answer is better"], ["T", "equal"], ["X", "both bad"], ["S", "skip"],
    ["1 to 7", "how much better (pairs), or the rating or rank of the next answer"], ["Enter", "save and go on"],
    ["U", "take back the last verdict"], ["N, E", "note; the answer as it should be"], ["G", "guidelines"]]);
}

function leave(text) {
  state.task = null;
  $("form").hidden = true;
  $("prompt").replaceChildren();
  $("answers").replaceChildren();
  $("empty").hidden = false;
  $("empty").textContent = text;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog").open || !state.settings) return;
  const typing = event.target.tagName === "TEXTAREA";
  if (event.key === "Escape" && typing) { $("work").focus(); return; }
  if (event.key === "Enter" && !typing && !["BUTTON", "SUMMARY", "A"].includes(event.target.tagName)) {
    event.preventDefault();
    submit();
    return;
  }
  if (typing || event.repeat) return;
  const key = event.key.toLowerCase();
  const tools = { u: undo, g: guidelines, "?": keys, s: () => submit(true) };
  const words = { a: "left", b: "right", t: "tie", x: "both_bad" };
  if (tools[key]) { event.preventDefault(); tools[key](); return; }
  if (!state.task) return;
  if (key === "n" || key === "e") {
    event.preventDefault();
    $("more").open = true;
    if (key === "e") beginEdit();
    $(key === "n" ? "note" : "edit").focus();
  } else if (state.settings.mode === "pairs" && words[key]) {
    event.preventDefault();
    choose(state.axis, words[key]);
    step();
  } else if (/^[1-9]$/.test(key)) {
    event.preventDefault();
    const value = Number(key);
    if (state.settings.mode === "pairs") { if (value <= 7) { strength(state.axis, value); step(); } }
    else { pick(`r${state.axis}`, key); step(); }
  }
}

function step() {  // on to the next open question
  const open = [...Array(count()).keys()].find((place) => !answered(place));
  if (open !== undefined) state.axis = open;
  keepDraft();
}

function onChange(event) {
  if (event.target.name === "edited") fillEdit(Number(event.target.value));
  const [, kind, place] = /^([vsr])(\d+)$/.exec(event.target.name || "") || [];
  if (kind === "v") choose(Number(place), event.target.value);
  if (kind === "s") strength(Number(place), Number(event.target.value));
  if (kind) { state.axis = Number(place); step(); }
}

async function begin() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", location.pathname);
    await ask("/api/login", { token });
  }
  state.settings = await ask("/api/start");
  kept.belongTo(state.settings.key);
  $("who").textContent = state.settings.name;
  showProgress(state.settings.progress);
  if (await deliver("")) show(await ask("/api/next"));
}

document.addEventListener("keydown", onKey);
document.addEventListener("change", onChange);
for (const kind of ["input", "change"]) $("form").addEventListener(kind, keepDraft);
$("edit").addEventListener("focus", beginEdit);
$("refused").addEventListener("click", refusals);
$("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("pass").addEventListener("click", () => submit(true));
$("undo").addEventListener("click", undo);
$("guide").addEventListener("click", guidelines);
$("help").addEventListener("click", keys);
$("close").addEventListener("click", () => $("dialog").close());
begin().catch((error) => leave(error.status ? error.message : "The server does not answer. Reload when it is back."));
