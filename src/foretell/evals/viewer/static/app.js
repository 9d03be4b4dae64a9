// Addresses and keys: #/run/KEY, #/run/KEY/SAMPLE, #/compare/KEY/KEY, #/compare/KEY/KEY/SAMPLE.

import { compareView, pairView } from "./compare.js";
import { h } from "./dom.js";
import { runView } from "./run.js";
import { sampleView } from "./sample.js";

const HELP = [
  ["j, k or ↓, ↑", "next and previous row"], ["Enter", "open it"], ["n, p or →, ←", "next and previous sample"],
  ["/", "search"], ["u or Esc", "back to the list"], ["?", "this help"],
];

let view = null;
let asked = 0;

export function start(main) {
  const help = h("dialog", { "aria-label": "Keys" }, h("h2", {}, "Keys"),
    h("dl", { class: "terms" }, HELP.map(([keys, what]) => h("div", {}, h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what)))),
    h("button", { type: "button", onclick: () => help.close() }, "Close"));
  document.body.append(help);
  addEventListener("hashchange", () => show(main));
  addEventListener("keydown", (event) => pressed(event, help));
  show(main);
}

async function show(main) {
  const number = ++asked;
  const [path, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  const [kind, ...parts] = path.split("/").filter(Boolean);
  view?.close();
  view = null;
  const place = h("div");
  const wait = setTimeout(() => main.setAttribute("aria-busy", "true"), 150);
  try {
    const opened = await route(place, kind, parts, query, main, number);
    if (number !== asked) opened.close();
    else view = opened;
  } catch (error) {
    if (number === asked) main.replaceChildren(h("p", { class: "kicker" }, h("a", { href: "index.html" }, "Runs")), h("p", { class: "notice", role: "alert" }, error.message));
  } finally {
    clearTimeout(wait);
    main.removeAttribute("aria-busy");
  }
}

function route(place, kind, parts, query, main, number) {
  // A page that was left while it was read must not overwrite the one that came after it.
  const screen = { replaceChildren: (...children) => { if (number === asked) main.replaceChildren(...children); } };
  if (kind === "run" && parts.length === 1) return runView(screen, parts[0], query);
  if (kind === "run" && parts.length === 2) return sampleView(screen, parts[0], parts[1], query);
  if (kind === "compare" && parts.length === 2) return compareView(screen, parts[0], parts[1], query);
  if (kind === "compare" && parts.length === 3) return pairView(screen, parts[0], parts[1], parts[2], query);
  return Promise.reject(new Error("This address leads nowhere. Choose a run."));
}

function pressed(event, help) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = event.key === "?" ? () => help.showModal() : view?.keys[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
}
