// One sample: what was asked, what came back, how it was judged.

import { chosen, choiceOf, queryOf, searched } from "./choose.js";
import { h, json, picture, prose } from "./dom.js";
import { count, number } from "./format.js";
import { remember, term } from "./run.js";
import { load, sample, verdict } from "./store.js";

export async function sampleView(main, key, place, query) {
  const run = await load(key);
  const at = Number(place);
  if (!Number.isInteger(at) || at < 0 || at >= run.count) throw new Error(`The run has samples 0 to ${run.count - 1}; this address asks for ${place}.`);
  const choice = choiceOf(query);
  const kept = chosen(run, choice, choice.q ? searched(run, choice.q)?.mask : null);
  const position = kept.indexOf(at);
  const events = await sample(run, at);
  remember(key, at);
  const told = queryOf(choice);
  const go = (other) => (other === undefined ? null : `#/run/${key}/${other}${told}`);
  const before = go(kept[position - 1]), after = position < 0 ? null : go(kept[position + 1]);
  const list = `#/run/${key}${told}`;
  const [word, kind] = verdict(run, at);
  const epoch = run.epoch(at);
  main.replaceChildren(
    h("header", {},
      h("p", { class: "kicker" }, h("a", { href: "index.html" }, "Runs"), " › ", h("a", { href: list }, `${run.head.model} on ${run.head.eval}`)),
      h("h1", { class: "small" }, run.id(at) || `sample ${at}`, epoch ? h("span", { class: "soft" }, ` epoch ${epoch}`) : ""),
      h("p", { class: "steps" }, h("span", { class: `verdict ${kind}` }, word),
        step(before, "← previous"), step(after, "next →"),
        position >= 0 && h("span", { class: "soft" }, `${count(position + 1)} of ${count(kept.length)}`))),
    ...body(events),
  );
  document.title = `${run.id(at)} · ${run.head.model}`;
  scrollTo({ top: 0, behavior: "instant" });
  const to = (address) => () => { if (address) location.hash = address; };
  return { close: () => {}, keys: { n: to(after), p: to(before), j: to(after), k: to(before), ArrowRight: to(after), ArrowLeft: to(before), u: to(list), Escape: to(list) } };
}

const step = (address, label) => (address ? h("a", { href: address }, label) : h("span", { class: "soft" }, label));

const dataOf = (event) => (event.data && typeof event.data === "object" ? event.data : {});

/** A sample's events as sections. */
export function body(events) {
  const calls = events.filter((event) => event.type === "sampling").map(dataOf);
  const graded = events.some((event) => event.type === "metrics" && "choice" in dataOf(event));
  const grader = graded && calls.length > 0 ? calls.pop() : null;
  return [
    judgement(events),
    ...calls.map((call, i) => h("section", { class: "part" }, h("h2", {}, calls.length > 1 ? `Call ${i + 1} of ${calls.length}` : "Prompt and answer"), conversation(call.prompt), answers(call))),
    grader && h("section", { class: "part" }, h("h2", {}, "Grader"), answers(grader),
      h("details", { open: calls.length === 0 }, h("summary", {}, "What the grader was asked"), conversation(grader.prompt))),
    h("section", { class: "part" }, h("h2", {}, "Events"),
      events.map((event, i) => h("details", {}, h("summary", {}, `${i + 1}. ${event.type}`, h("span", { class: "soft" }, ` ${String(event.created_at ?? "").slice(0, 19)}`)), json(event.data)))),
  ].filter(Boolean);
}

/** Expected, picked, and what else was recorded of the judgement. */
export function judgement(events) {
  const lines = [];
  for (const event of events) {
    const data = dataOf(event);
    if (event.type === "match") {
      lines.push(term("Expected", value(data.expected)), term("Picked", value(data.picked)));
      for (const [name, told] of Object.entries(data)) {
        if (!["correct", "expected", "picked", "sampled", "options", "prompt"].includes(name)) lines.push(term(name, value(told)));
      }
    } else if (event.type === "metrics") for (const [name, told] of Object.entries(data)) if (told !== null) lines.push(term(name, value(told)));
    else if (event.type === "invalid_sample") lines.push(term("Could not be judged", value(data.message)));
  }
  return lines.length > 0 ? h("dl", { class: "terms judged" }, lines) : null;
}

function value(told) {
  if (told === null || told === undefined) return h("span", { class: "soft" }, "nothing");
  if (typeof told === "string") return prose(told, true);
  if (typeof told === "number") return number(told, 6);
  if (Array.isArray(told) && told.length > 0 && told.every((item) => typeof item === "string")) return told.map((item) => prose(item, true));
  return typeof told === "object" ? h("code", {}, JSON.stringify(told)) : String(told);
}

/** A prompt, text or messages, as a conversation. */
export function conversation(prompt) {
  if (!Array.isArray(prompt)) return h("article", { class: "message" }, h("h3", {}, "text"), content(prompt));
  return prompt.map((message) => {
    if (!message || typeof message !== "object") return h("article", { class: "message" }, content(message));
    const { role, name, content: said, ...rest } = message;
    const known = ["system", "user", "assistant", "tool", "developer"].includes(role) ? role : "other";
    return h("article", { class: `message ${known}` }, h("h3", {}, String(role ?? "message"), name === undefined ? "" : ` · ${name}`), content(said),
      Object.keys(rest).length > 0 && json(rest));
  });
}

function content(said) {
  if (said === null || said === undefined) return "";
  if (typeof said === "string") return prose(said);
  if (!Array.isArray(said)) return json(said);
  return said.map((part) => {
    if (typeof part === "string") return prose(part);
    if (part && part.type === "text") return prose(String(part.text ?? ""));
    if (part && (part.type === "image_url" || part.type === "input_image")) return picture(part.image_url?.url ?? part.image_url);
    return json(part);
  });
}

/** What a model answered. */
export function answers(call) {
  const texts = Array.isArray(call.sampled) ? call.sampled : [call.sampled];
  const usage = call.usage && typeof call.usage === "object" ? Object.entries(call.usage).map(([name, size]) => `${name.replaceAll("_", " ")} ${size}`) : [];
  const note = [call.model, ...usage].filter(Boolean).join(" · ");
  return texts.map((text, i) => h("article", { class: "message answer" }, h("h3", {}, texts.length > 1 ? `answer ${i + 1}` : "answer", h("span", { class: "soft" }, note && ` · ${note}`)),
    typeof text === "string" ? prose(text, true) : json(text ?? null)));
}
