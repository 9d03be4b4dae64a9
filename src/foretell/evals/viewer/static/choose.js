// Which samples of a run are shown, and in which order.

import { search, termsOf } from "./store.js";

export const ORDERS = [["", "order of the log"], ["down", "best score first"], ["up", "worst score first"], ["id", "id"]];

/** The choice in an address's query. */
export function choiceOf(query) {
  const given = new URLSearchParams(query);
  const one = (name) => given.get(name) ?? "";
  return { f: one("f"), c: one("c"), lo: one("lo"), hi: one("hi"), q: one("q"), s: one("s"), d: one("d") };
}

export function queryOf(choice) {
  const told = new URLSearchParams(Object.entries(choice).filter(([, value]) => value !== ""));
  return told.size === 0 ? "" : `?${told}`;
}

/** Numbers of the samples that a choice keeps, in its order. mask: of those that a search found, where there is one. */
export function chosen(run, choice, mask) {
  const low = choice.lo === "" ? -Infinity : Number(choice.lo);
  const high = choice.hi === "" ? Infinity : Number(choice.hi);
  const ranged = choice.lo !== "" || choice.hi !== "";
  const code = choice.c === "" ? null : run.choices.names.indexOf(choice.c);
  const kept = [];
  for (let i = 0; i < run.count; i++) {
    const value = run.scores[i];
    if (choice.f === "right" && !(value > 0 && !run.invalid[i])) continue;
    if (choice.f === "wrong" && !(value === 0 && !run.invalid[i])) continue;
    if (choice.f === "invalid" && !run.invalid[i]) continue;
    if (code !== null && run.choices.codes?.[i] !== code) continue;
    if (ranged && !(value >= low && value <= high)) continue;
    if (mask && !mask[i]) continue;
    kept.push(i);
  }
  if (choice.s === "id") {
    // A collator would take seconds over a hundred thousand ids.
    kept.sort((a, b) => (run.rank(a) < run.rank(b) ? -1 : run.rank(a) > run.rank(b) ? 1 : a - b));
  } else if (choice.s) {
    const sign = choice.s === "up" ? 1 : -1;
    const key = (i) => (Number.isNaN(run.scores[i]) ? Infinity : sign * run.scores[i]);
    kept.sort((a, b) => key(a) - key(b) || a - b);
  }
  return kept;
}

const found = { key: "", mask: null, searched: 0, hits: 0, done: true };

/** What a search found so far, where it is the latest one. */
export function searched(run, query) {
  return found.key === `${run.key} ${query}` ? found : null;
}

/** Search, and tell as it goes on; a later search ends it. */
export async function look(run, query, tell) {
  const key = `${run.key} ${query}`;
  if (found.key === key && found.done) return tell(found);
  Object.assign(found, { key, mask: new Uint8Array(run.count), searched: 0, hits: 0, done: false });
  const mask = found.mask;
  await search(run, termsOf(query), (hits, next) => {
    if (found.mask !== mask) return false;
    for (const hit of hits) mask[hit] = 1;
    found.hits += hits.length;
    found.searched = next;
    found.done = next >= run.count;
    return tell(found);
  });
}

/** End what is being searched. */
export function forget() {
  Object.assign(found, { key: "", mask: null, done: true });
}
