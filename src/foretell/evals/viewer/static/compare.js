// Two runs side by side: the samples on which they differ, and who is right.

import { choiceOf, queryOf } from "./choose.js";
import { h, option } from "./dom.js";
import { count, date, number, score, signed } from "./format.js";
import { List } from "./list.js";
import { answers, body, conversation, judgement } from "./sample.js";
import { range } from "./run.js";
import { get, load, sample, verdict } from "./store.js";

const KINDS = [["", "All that differ"], ["worse", "Only the first is right"], ["better", "Only the second is right"], ["lone", "In one run only"], ["same", "Alike"]];

let known = { key: "", pairs: null };
let last = -1;

/** The samples of both runs by id; epochs of one sample in their order. -1 where a run has it not. */
function pairsOf(first, second) {
  const key = `${first.key} ${second.key}`;
  if (known.key === key) return known.pairs;
  const places = new Map();
  for (let i = 0; i < second.count; i++) {
    const id = second.id(i);
    if (places.has(id)) places.get(id).push(i);
    else places.set(id, [i]);
  }
  const taken = new Uint8Array(second.count), at = new Map(), pairs = [];
  for (let i = 0; i < first.count; i++) {
    const id = first.id(i), times = at.get(id) ?? 0;
    at.set(id, times + 1);
    const other = places.get(id)?.[times] ?? -1;
    if (other >= 0) taken[other] = 1;
    pairs.push([i, other]);
  }
  for (let i = 0; i < second.count; i++) if (!taken[i]) pairs.push([-1, i]);
  known = { key, pairs };
  return pairs;
}

function kindOf(first, second, [a, b]) {
  if (a < 0 || b < 0) return "lone";
  const x = first.scores[a], y = second.scores[b];
  if (x > y) return "worse";
  if (y > x) return "better";
  return verdict(first, a)[0] === verdict(second, b)[0] ? "same" : "other";
}

const isKept = (kind, asked) => (asked === "" ? kind !== "same" && kind !== "lone" : kind === asked);

export async function compareView(main, one, two, query) {
  const [first, second, runs] = await Promise.all([load(one), load(two), get("runs")]);
  const choice = choiceOf(query);
  const pairs = pairsOf(first, second);
  const kinds = pairs.map((pair) => kindOf(first, second, pair));
  let kept = [], focused = -1;
  const status = h("p", { class: "status", role: "status" });
  const rows = h("div", { class: "rows pairs", role: "region", "aria-label": "samples" });
  const list = new List(rows, (at) => row(first, second, pairs, kept[at], choice, () => { focused = at; }));
  const update = () => {
    kept = [];
    kinds.forEach((kind, i) => { if (isKept(kind, choice.d)) kept.push(i); });
    list.reset(kept.length);
    status.textContent = kept.length ? `${count(kept.length)} of ${count(pairs.length)} samples` : "No sample of this kind.";
    history.replaceState(null, "", `#/compare/${one}/${two}${queryOf(choice)}`);
  };
  const sizes = Object.fromEntries(KINDS.map(([value]) => [value, kinds.filter((kind) => isKept(kind, value)).length]));
  const graded = first.binary && second.binary;
  const label = (value, words) => (graded ? words : words.replace("Only the first is right", "The first is better").replace("Only the second is right", "The second is better"));
  const buttons = KINDS.map(([value, words]) => h("button", {
    type: "button", class: "kind", "aria-pressed": String(choice.d === value),
    onclick: (event) => {
      choice.d = value;
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      update();
    },
  }, label(value, words), " ", h("span", { class: "soft" }, count(sizes[value]))));
  const told = h("p", { class: "lead", role: "status" }, "Working out the difference…");
  get(`compare-${one}-${two}`).then((d) => { told.textContent = d.problem ?? sentence(d); }, () => { told.textContent = "The difference of these two runs is not part of this export."; });
  const pick = (run, place) => h("select", {
    "aria-label": `${place} run`,
    onchange: (event) => { location.hash = place === "first" ? `#/compare/${event.target.value}/${two}` : `#/compare/${one}/${event.target.value}`; },
  }, runs.filter((other) => other.eval === run.head.eval).map((other) => option(other.key, `${other.model}, ${date(other.date)}`, run.key)));
  main.replaceChildren(
    h("header", {},
      h("p", { class: "kicker" }, h("a", { href: "index.html" }, "Runs"), " › compare"),
      h("h1", {}, first.head.eval), told,
      h("dl", { class: "cards two" }, [[first, "first"], [second, "second"]].map(([run, place]) => h("div", {},
        h("dt", {}, pick(run, place)), h("dd", { class: "value" }, run.head.mean ? score(run.head.mean.estimate) : "–"),
        h("dd", { class: "soft" }, run.head.mean ? range(run.head.mean) : "no sample has a score", " · ", h("a", { href: `#/run/${run.key}` }, "its samples")))))),
    h("div", { class: "tools" }, h("div", { class: "kinds", role: "group", "aria-label": "Which samples" }, buttons)),
    h("div", { class: "told" }, status),
    h("div", { class: "row head", "aria-hidden": "true" }, h("span", {}, "First"), h("span", {}, "Second"), h("span", {}, "Sample"), h("span", {}, "Question"), h("span", {}, "First answer"), h("span", {}, "Second answer")),
    rows,
  );
  document.title = `${first.head.model} and ${second.head.model} on ${first.head.eval}`;
  update();
  if (last >= 0) list.focus(focused = kept.indexOf(last));
  const move = (by) => list.focus(focused = Math.min(Math.max(focused + by, 0), kept.length - 1));
  return {
    close: () => list.close(),
    keys: { j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(20), PageUp: () => move(-20), u: () => { location.href = "index.html"; } },
  };
}

function sentence(d) {
  const sure = d.low > 0 ? "The second is better" : d.high < 0 ? "The first is better" : "No difference can be told";
  const interval = d.low === null ? "" : ` (${signed(d.low)} to ${signed(d.high)})`;
  return `${sure}: ${signed(d.estimate)}${interval}, ${d.p < 0.001 ? "p < 0.001" : `p = ${number(d.p, 2)}`}, on ${count(d.n)} samples of both.`;
}

function row(first, second, pairs, at, choice, focus) {
  const [a, b] = pairs[at];
  const mark = (run, i) => {
    const [word, kind] = i < 0 ? ["absent", "plain"] : verdict(run, i);
    return h("span", { class: `verdict ${kind}` }, word);
  };
  const texts = [1, 2, 3].map(() => h("span", { class: "text" }, "…"));
  const put = (text, told) => { text.textContent = told; text.title = told; };
  const element = h("a", { class: "row", href: `#/compare/${first.key}/${second.key}/${at}${queryOf(choice)}`, onfocus: focus },
    mark(first, a), mark(second, b), h("span", { class: "id", title: a < 0 ? second.id(b) : first.id(a) }, a < 0 ? second.short(b) : first.short(a)), texts);
  Promise.all([a < 0 ? ["", "", ""] : first.row(a), b < 0 ? ["", "", ""] : second.row(b)]).then(
    ([x, y]) => { put(texts[0], x[0] || y[0]); put(texts[1], x[1]); put(texts[2], y[1]); },
    (error) => put(texts[0], error.message),
  );
  return element;
}

export async function pairView(main, one, two, place, query) {
  const [first, second] = await Promise.all([load(one), load(two)]);
  const pairs = pairsOf(first, second);
  const at = Number(place);
  if (!pairs[at]) throw new Error(`The two runs have ${pairs.length} samples; this address asks for ${place}.`);
  last = at;
  const choice = choiceOf(query);
  const [a, b] = pairs[at];
  const [x, y] = await Promise.all([a < 0 ? [] : sample(first, a), b < 0 ? [] : sample(second, b)]);
  const seek = (by) => {
    for (let i = at + by; i >= 0 && i < pairs.length; i += by) if (isKept(kindOf(first, second, pairs[i]), choice.d)) return `#/compare/${one}/${two}/${i}${queryOf(choice)}`;
    return null;
  };
  const before = seek(-1), after = seek(1), list = `#/compare/${one}/${two}${queryOf(choice)}`;
  const asked = (events) => events.find((event) => event.type === "sampling")?.data?.prompt;
  const shared = JSON.stringify(asked(x)) === JSON.stringify(asked(y));
  const side = (run, i, events) => {
    const [word, kind] = i < 0 ? ["absent", "plain"] : verdict(run, i);
    const calls = events.filter((event) => event.type === "sampling").map((event) => event.data ?? {});
    return h("section", { class: "side" },
      h("h2", {}, run.head.model, " ", h("span", { class: `verdict ${kind}` }, word)),
      i < 0 ? h("p", { class: "notice" }, "This run does not have the sample.") : [
        judgement(events), !shared && calls[0] && conversation(calls[0].prompt), calls.map(answers),
        h("p", {}, h("a", { href: `#/run/${run.key}/${i}` }, "All of this sample")),
      ]);
  };
  main.replaceChildren(
    h("header", {},
      h("p", { class: "kicker" }, h("a", { href: "index.html" }, "Runs"), " › ", h("a", { href: list }, `${first.head.model} and ${second.head.model} on ${first.head.eval}`)),
      h("h1", { class: "small" }, a < 0 ? second.id(b) : first.id(a)),
      h("p", { class: "steps" }, before ? h("a", { href: before }, "← previous") : h("span", { class: "soft" }, "← previous"), after ? h("a", { href: after }, "next →") : h("span", { class: "soft" }, "next →"))),
    shared && asked(x) !== undefined ? h("section", { class: "part" }, h("h2", {}, "Prompt"), conversation(asked(x))) : "",
    h("div", { class: "sides" }, side(first, a, x), side(second, b, y)),
  );
  document.title = `${first.head.model} and ${second.head.model}`;
  scrollTo({ top: 0, behavior: "instant" });
  const to = (address) => () => { if (address) location.hash = address; };
  return { close: () => {}, keys: { n: to(after), p: to(before), j: to(after), k: to(before), ArrowRight: to(after), ArrowLeft: to(before), u: to(list), Escape: to(list) } };
}
