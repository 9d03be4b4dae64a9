// One run: its score, and its samples as a list that is filtered, searched and sorted.

import { chosen, choiceOf, forget, look, ORDERS, queryOf, searched } from "./choose.js";
import { h, json, option } from "./dom.js";
import { count, date, duration, number, score } from "./format.js";
import { List } from "./list.js";
import { get, load, termsOf, verdict } from "./store.js";

let last = null; // [run, sample] that was looked at, so that the list opens there again

export const remember = (key, number) => { last = [key, number]; };

export async function runView(main, key, query) {
  const run = await load(key);
  const choice = choiceOf(query);
  const others = (await get("runs")).filter((other) => other.eval === run.head.eval && other.key !== key);
  const status = h("p", { class: "status", role: "status" });
  const bar = h("progress", { max: run.count, value: 0, class: "hidden", "aria-label": "searched" });
  const rows = h("div", { class: "rows", role: "region", "aria-label": "samples" });
  const box = h("input", { type: "search", placeholder: "Search all texts", "aria-label": "Search all texts", value: choice.q });
  box.value = choice.q;
  let kept = [], focused = -1, timer = 0;

  const list = new List(rows, (at) => row(run, kept[at], choice, () => { focused = at; }));
  const update = () => {
    const mask = choice.q ? searched(run, choice.q)?.mask ?? new Uint8Array(run.count) : null;
    kept = chosen(run, choice, mask);
    list.reset(kept.length);
    const state = choice.q ? searched(run, choice.q) : null;
    bar.classList.toggle("hidden", !state || state.done);
    if (state) bar.value = state.searched;
    status.textContent = state && !state.done
      ? `${count(kept.length)} found in ${count(state.searched)} of ${count(run.count)} samples`
      : `${count(kept.length)} of ${count(run.count)} samples`;
    history.replaceState(null, "", `#/run/${key}${queryOf(choice)}`);
  };
  const seek = () => {
    if (termsOf(choice.q).length === 0) {
      choice.q = "";
      forget();
      return update();
    }
    let drawn = 0;
    look(run, choice.q, (state) => {
      if (!rows.isConnected) return false;
      bar.value = state.searched;
      // A draw sorts all that is kept, so that many steps share one.
      if (state.done || performance.now() > drawn + 400) {
        update();
        drawn = performance.now();
      }
      return true;
    }).catch((error) => { status.textContent = error.message; });
    update();
  };
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { choice.q = box.value.trim(); seek(); }, 200);
  });

  main.replaceChildren(
    heading(run, others),
    h("div", { class: "tools", role: "search" }, filters(run, choice, update), box,
      h("label", {}, "Sort ", h("select", { onchange: (event) => { choice.s = event.target.value; update(); } },
        ORDERS.filter(([value]) => run.scored || !["up", "down"].includes(value)).map(([value, label]) => option(value, label, choice.s))))),
    h("div", { class: "told" }, status, bar),
    h("div", { class: "row head", "aria-hidden": "true" }, h("span", {}, "Result"), h("span", {}, "Sample"), h("span", {}, "Question"), h("span", {}, "Answer"), h("span", {}, "Expected")),
    rows,
  );
  document.title = `${run.head.model} on ${run.head.eval}`;
  if (choice.q) seek();
  else update();
  if (last && last[0] === key) list.focus(focused = kept.indexOf(last[1]));

  const move = (step) => list.focus(focused = Math.min(Math.max(focused + step, 0), kept.length - 1));
  return {
    close: () => { clearTimeout(timer); list.close(); },
    keys: {
      j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1),
      PageDown: () => move(20), PageUp: () => move(-20), Home: () => move(-Infinity), End: () => move(Infinity),
      "/": () => box.focus(), u: () => { location.href = "index.html"; },
    },
  };
}

function heading(run, others) {
  const { head } = run;
  const mean = head.mean;
  const cards = [
    [head.metric || "Score", mean ? score(mean.estimate) : "–", mean ? range(mean) : "no sample has a score"],
    ["Samples", count(head.count), head.epochs ? `${new Set(head.epochs).size} epochs` : ""],
    ["Invalid", count(head.invalid.length), "could not be judged"],
    ["Tokens", count(head.tokens), head.money ? `cost ${number(head.money)}` : ""],
    ["Took", duration(head.seconds), ""],
  ];
  return h("header", {},
    h("p", { class: "kicker" }, h("a", { href: "index.html" }, "Runs"), " › ", h("a", { href: head.history }, head.eval || "unnamed eval")),
    h("h1", {}, head.model || "unnamed model"),
    h("p", { class: "lead" }, [head.eval, head.version, head.others.length > 0 && `with ${head.others.join(", ")}`, `${date(head.date)} UTC`, head.complete || "cut off before its end"].filter((told) => told && told !== true).join(" · ")),
    h("dl", { class: "cards" }, cards.map(([label, value, note]) => h("div", {}, h("dt", {}, label), h("dd", { class: "value" }, value), h("dd", { class: "soft" }, note)))),
    h("div", { class: "more" },
      h("details", {}, h("summary", {}, "Report and settings"),
        h("dl", { class: "terms" }, Object.entries(head.report).map(([name, value]) => term(name, typeof value === "number" ? number(value, 6) : String(value)))),
        h("p", { class: "caption" }, head.name), json(head.spec)),
      others.length > 0 && h("label", {}, "Compare with ", h("select", { onchange: (event) => { location.hash = `#/compare/${event.target.value}/${run.key}`; } },
        option("", "choose a run", ""), others.map((other) => option(other.key, `${other.model}, ${date(other.date)}`, ""))))),
  );
}

export const term = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));

export const range = (mean) => (mean.low === null ? "too few for an interval" : `${score(mean.low)} to ${score(mean.high)} (95 %)`);

function filters(run, choice, update) {
  let right = 0, wrong = 0, invalid = 0;
  for (let i = 0; i < run.count; i++) {
    if (run.invalid[i]) invalid++;
    else if (run.scores[i] > 0) right++;
    else if (run.scores[i] === 0) wrong++;
  }
  const kinds = [["", "All", run.count]];
  if (run.binary && run.scored) kinds.push(["right", "Right", right], ["wrong", "Wrong", wrong]);
  kinds.push(["invalid", "Invalid", invalid]);
  const buttons = kinds.map(([value, label, size]) => h("button", {
    type: "button", class: "kind", "aria-pressed": String(choice.f === value), "data-kind": value,
    onclick: (event) => {
      choice.f = value;
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      update();
    },
  }, label, " ", h("span", { class: "soft" }, count(size))));
  const bound = (name, label) => {
    const input = h("input", { type: "number", step: "any", class: "bound", "aria-label": label, value: choice[name], oninput: () => { choice[name] = input.value; update(); } });
    return input;
  };
  return [
    h("div", { class: "kinds", role: "group", "aria-label": "Which samples" }, buttons),
    run.choices.names.length > 0 && h("label", {}, "Choice ", h("select", { onchange: (event) => { choice.c = event.target.value; update(); } },
      option("", "any", choice.c), run.choices.names.map((name, code) => [name, run.choices.codes.filter((other) => other === code).length]).sort()
        .map(([name, size]) => option(name, `${name} (${count(size)})`, choice.c)))),
    run.scored && !run.binary && h("label", {}, "Score ", bound("lo", "least score"), " to ", bound("hi", "largest score")),
  ];
}

function row(run, number, choice, focus) {
  const [word, kind] = verdict(run, number);
  const texts = [1, 2, 3].map(() => h("span", { class: "text" }, "…"));
  const epoch = run.epoch(number);
  const element = h("a", { class: "row", href: `#/run/${run.key}/${number}${queryOf(choice)}`, onfocus: focus },
    h("span", { class: `verdict ${kind}` }, word),
    h("span", { class: "id", title: run.id(number) }, run.short(number), epoch ? ` · epoch ${epoch}` : ""), texts);
  run.row(number).then((told) => texts.forEach((text, i) => { text.textContent = told[i]; text.title = told[i]; }),
    (error) => { texts[0].textContent = error.message; });
  return element;
}
