// Where the pages' data come from: the local server, or in an export the scripts beside the page.

import { number, score } from "./format.js";

const LIVE = () => document.body.dataset.live === "yes";
const KEPT = 60; // pieces that are held
const held = new Map();
const waiting = new Map();

/** A piece of data by its name, such as KEY/rows-3. Rejects with a message for people. */
export function get(name) {
  if (held.has(name)) {
    const found = held.get(name);
    held.delete(name);
    held.set(name, found);
    return found;
  }
  const found = LIVE() ? fetched(name) : scripted(name);
  held.set(name, found);
  if (held.size > KEPT) held.delete(held.keys().next().value);
  found.catch(() => held.delete(name));
  return found;
}

async function fetched(name) {
  let response, found;
  try {
    response = await fetch(`data/${name.replace(/(\?|$)/, ".json$1")}`);
    found = await response.json();
  } catch {
    throw new Error("The viewer's server does not answer. Start it again: foretell eval view");
  }
  if (!response.ok) throw new Error(found.problem);
  return found;
}

let policy = null;

// Scripts, since a page opened from a file may load those, but no JSON.
function scripted(name) {
  policy ??= globalThis.trustedTypes?.createPolicy("foretell", {
    createScriptURL: (url) => {
      if (/^data\/[\w/-]+\.js$/.test(url)) return url;
      throw new TypeError("no data of this viewer");
    },
  }) ?? { createScriptURL: (url) => url };
  if (!waiting.has(name)) {
    const script = document.createElement("script");
    const entry = { text: null };
    entry.found = new Promise((resolve, reject) => {
      script.onload = script.onerror = () => {
        script.remove();
        waiting.delete(name);
        if (entry.text === null) reject(new Error(`data/${name}.js is missing from this export. Export again.`));
        else resolve(JSON.parse(entry.text));
      };
    });
    waiting.set(name, entry);
    script.src = policy.createScriptURL(`data/${name}.js`);
    document.head.append(script);
  }
  return waiting.get(name).found;
}

globalThis.foretell = (name, text) => {
  if (waiting.has(name)) waiting.get(name).text = text;
};

/** The events of a sample. */
export async function sample(run, number) {
  if (LIVE()) return get(`${run.key}/samples-${number}`);
  const chunk = chunkOf(run.head.starts, number);
  return (await get(`${run.key}/samples-${chunk}`))[number - run.head.starts[chunk]];
}

function chunkOf(starts, number) {
  let low = 0, high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle] <= number) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Search all texts of a run: `found` is told the numbers of samples, and how many were searched, again and again, until it returns false. */
export async function search(run, terms, found) {
  const total = run.count;
  for (let from = 0, chunk = 0; from < total; chunk++) {
    let hits, next;
    if (LIVE()) {
      const asked = terms.map((term) => `&t=${encodeURIComponent(term)}`).join("");
      ({ hits, next } = await fetched(`${run.key}/search?from=${from}${asked}`));
    } else {
      const samples = await scripted(`${run.key}/samples-${chunk}`);
      hits = samples.flatMap((events, i) => (holds(run.id(from + i), events, terms) ? [from + i] : []));
      next = from + samples.length;
    }
    if (found(hits, next) === false) return;
    from = next;
  }
}

function holds(id, events, terms) {
  const texts = [id];
  const stack = events.map((event) => event.data);
  while (stack.length) {
    const value = stack.pop();
    if (typeof value === "string") {
      if (!value.startsWith("data:image/")) texts.push(value);
    } else if (value && typeof value === "object") stack.push(...Object.values(value));
  }
  const told = texts.join("\n").toLowerCase();
  return terms.every((term) => told.includes(term.toLowerCase()));
}

/** The words of a query; "several in quotes" are one. */
export function termsOf(query) {
  return [...query.matchAll(/"([^"]+)"|(\S+)/g)].map((m) => m[1] ?? m[2]);
}

const runs = new Map();

/** A run with its columns: scores (NaN where there is none), invalid, ids, choices. */
export function load(key) {
  if (!/^[A-Za-z0-9]+$/.test(key)) return Promise.reject(new Error("There is no such run."));
  if (!runs.has(key)) {
    const found = open(key);
    runs.set(key, found);
    found.catch(() => runs.delete(key));
  }
  return runs.get(key);
}

async function open(key) {
  const head = await get(`${key}/head`);
  const total = head.count;
  const scores = Float64Array.from(head.scores, (value) => value ?? NaN);
  const invalid = new Uint8Array(total);
  for (const number of head.invalid) invalid[number] = 1;
  const { prefix, numbers, list } = head.ids;
  const run = {
    key, head, count: total, scores, invalid, choices: { names: [], codes: null },
    binary: scores.every((value) => Number.isNaN(value) || value === 0 || value === 1),
    scored: scores.some((value) => !Number.isNaN(value)),
    id: (i) => (list ? list[i] : prefix + numbers[i]),
    rank: (i) => (list ? list[i] : numbers[i]),
    short: (i) => (list ? list[i] : String(numbers[i])) || `sample ${i}`,
    epoch: (i) => (head.epochs ? head.epochs[i] + 1 : 0),
    row: async (i) => (await get(`${key}/rows-${Math.floor(i / head.page)}`))[i % head.page],
  };
  if (head.graded) run.choices = await get(`${key}/choices`);
  return run;
}

/** What a sample came to: a word, and the class it is shown in. */
export function verdict(run, i) {
  if (run.invalid[i]) return ["invalid", "unsure"];
  const value = run.scores[i];
  const choice = run.choices.codes && run.choices.codes[i] >= 0 ? run.choices.names[run.choices.codes[i]] : "";
  if (choice === "__invalid__") return ["no choice", "unsure"];
  if (choice) return [Number.isNaN(value) || Number(choice) === value ? choice : `${choice} · ${number(value)}`, "plain"];
  if (Number.isNaN(value)) return ["–", "plain"];
  if (!run.binary) return [score(value), "plain"];
  return value ? ["right", "right"] : ["wrong", "wrong"];
}
