// What must survive a lost network, a reload and a crash, kept in this browser for each person and run apart: verdicts
// on their way, verdicts that were not taken, and what is being written. One entry an item of storage, so that two tabs
// never write over each other's.
"use strict";

let prefix = "";
let counter = 0;
const memory = new Map();  // where the browser's storage is full or forbidden

export function belongTo(key) { prefix = `cai-label:${key}:`; }

function names(kind) {
  const start = `${prefix}${kind}:`;
  const found = new Set([...memory.keys()].filter((name) => name.startsWith(start)));
  try {
    for (const name of Object.keys(localStorage)) if (name.startsWith(start)) found.add(name);
  } catch { /* forbidden: the memory is all there is */ }
  return [...found].sort();
}

function read(name) {
  try {
    const text = memory.get(name) ?? localStorage.getItem(name);
    return text === null ? null : JSON.parse(text);
  } catch { return null; }
}

function write(name, value) {
  const text = JSON.stringify(value);
  try { localStorage.setItem(name, text); memory.delete(name); } catch { memory.set(name, text); }
}

function drop(name) {
  memory.delete(name);
  try { localStorage.removeItem(name); } catch { /* forbidden */ }
}

// --- verdicts, in the order in which they were given -----------------------------------------------------------------

export function put(kind, verdict) {
  const place = `${String(Date.now()).padStart(15, "0")}-${String(counter++).padStart(6, "0")}`;
  write(`${prefix}${kind}:${place}-${verdict.id}`, verdict);
}

export function all(kind) { return names(kind).map(read).filter((verdict) => verdict !== null); }

export function remove(kind, id) { for (const name of names(kind)) if (name.endsWith(`-${id}`)) drop(name); }

export function refuse(verdict, reason) {  // it will never be taken: kept, out of the way of the others
  put("refused", { ...verdict, reason });
  remove("queue", verdict.id);
}

// --- what is being written, by item ----------------------------------------------------------------------------------

export function draft(task) {
  const found = read(`${prefix}draft:${task.id}`);
  return found && found.ticket === task.ticket ? found : null;
}

export function keepDraft(task, form) { write(`${prefix}draft:${task.id}`, { ...form, ticket: task.ticket }); }

export function dropDraft(id) { drop(`${prefix}draft:${id}`); }
