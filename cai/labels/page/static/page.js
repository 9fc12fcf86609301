// The labelling page. Texts of models and users are only ever put into the page by textContent.
"use strict";

const $ = (id) => document.getElementById(id);
const QUEUE = "cai-label-queue";
const state = { settings: null, task: null, since: 0, axis: 0, busy: false };
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
  const found = await reply.json();
  if (!reply.ok) {
    const error = new Error(found.error || `error ${reply.status}`);
    error.status = reply.status;
    throw error;
  }
  return found;
}

// --- what was said but has not reached the server: kept until it has ------------------------------------------------

function queued() {
  try { return JSON.parse(localStorage.getItem(QUEUE) || "[]"); } catch { return []; }
}
function keep(list) { localStorage.setItem(QUEUE, JSON.stringify(list)); }

async function send(verdict) {
  keep([...queued(), verdict]);
  return flush();
}

async function flush() {
  let last = null;
  for (const verdict of queued()) {
    try {
      last = await ask("/api/verdict", verdict);
    } catch (error) {
      if (error.status === 400) {  // it will never be taken: tell, and go on
        keep(queued().filter((each) => each.id !== verdict.id));
        throw error;
      }
      throw error;
    }
    keep(queued().filter((each) => each.id !== verdict.id));
  }
  return last;
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
  if (reply.task.hint !== undefined) {
    $("hint").textContent = `The AI judge gives answer A ${Math.round(100 * reply.task.hint)} %.`;
    $("hint").hidden = false;
  }
  $("questions").replaceChildren(...questions(reply.task));
  $("note").value = "";
  $("edit").value = "";
  $("more").open = false;
  if (reply.said) restore(reply.said);
  mark();
  window.scrollTo(0, 0);
  $("work").focus();
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
  const most = mode === "rating" ? 5 : task.answers.length;
  return task.answers.map((_, place) => {
    const legend = mode === "rating" ? `Answer ${letter(place)}: 1 (bad) to 5 (very good)` : `Rank of answer ${letter(place)} (1 is best; equal ranks are ties)`;
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
  $("note").value = said.note || "";
  $("edit").value = Object.values(said.edits || {})[0] || "";
  $("more").open = Boolean($("note").value || $("edit").value);
  state.settings.axes.forEach((axis, place) => {
    const own = (said.axes || {})[axis];
    if (own) { pick(`v${place}`, own.verdict); if (own.strength) pick(`s${place}`, String(own.strength)); }
  });
  (said.ratings || said.ranking || []).forEach((value, place) => pick(`r${place}`, String(value)));
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
  const said = { note: $("note").value, edits: $("edit").value.trim() ? { 0: $("edit").value } : {} };
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
  state.busy = true;
  const verdict = {
    id: crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2) + Date.now(),
    task: state.task.id,
    seconds: Math.round((performance.now() - state.since) / 100) / 10,
    said: skip ? { skip: true, note: $("note").value, edits: {} } : payload(),
  };
  await deliver(() => send(verdict), "Saved.");
  state.busy = false;
}

async function deliver(work, done) {
  try {
    const reply = await work();
    if (reply) { say(done); show(reply); }
  } catch (error) {
    if (error.status === 401) { leave(error.message); return; }
    if (error.status) { say(error.message, true); return; }
    say("No connection. What you said is kept here and sent as soon as there is one.", true);
    setTimeout(() => deliver(flush, "Connected again; everything is saved."), 2000);
  }
}

async function undo() {
  if (state.busy) return;
  state.busy = true;
  await deliver(() => ask("/api/undo", {}), "Taken back: say it again.");
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
}

function onChange(event) {
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
  showProgress(state.settings.progress);
  await flush();
  show(await ask("/api/next"));
}

document.addEventListener("keydown", onKey);
document.addEventListener("change", onChange);
$("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("pass").addEventListener("click", () => submit(true));
$("undo").addEventListener("click", undo);
$("guide").addEventListener("click", guidelines);
$("help").addEventListener("click", keys);
$("close").addEventListener("click", () => $("dialog").close());
begin().catch((error) => leave(error.status ? error.message : "The server does not answer. Reload when it is back."));
