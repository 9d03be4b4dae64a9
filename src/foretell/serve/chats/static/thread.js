// The messages of the open conversation, as far as they are loaded; answers that are being written are followed.

import { follow, get, post } from "./api.js";
import { announce, button, copy, dialog, find, h, icon, plural, toast } from "./dom.js";
import { messageOf, said } from "./message.js";
import { setBlocks } from "./render.js";
import * as scroll from "./scroll.js";

const PAGE = 60, KEPT = 120; // messages asked for at a time, and left standing when the next one is sent
const thread = find("thread");
const following = new Map(); // id → leaves the stream
let messages = [], earlier = false, conversation = null, loading = false, on = null, version = 0;

// handlers: {say({parent, text, images}), branch(id), began(), changed(), finished(message), lost(), back()}
export function start(handlers) {
  on = handlers;
  scroll.start(loadEarlier);
  thread.addEventListener("click", (event) => {
    const pressed = event.target.closest("[data-act]");
    if (pressed) act(pressed, pressed.dataset.act);
  });
}

export const shown = () => messages;
// Changes with every message that is put in here: what was asked for before is out of date then.
export const age = () => version;
export const writing = () => messages.filter((one) => one.status === "streaming").map((one) => one.id);

// What the next message follows: the last one, of two answers the better one if that was said.
export function tip() {
  const last = messages.at(-1), rival = messages.at(-2);
  const paired = last?.role === "assistant" && rival?.role === "assistant";
  return (paired && !last.preferred ? rival.id : last?.id) ?? null;
}

export function show(opened) {
  leave();
  conversation = opened.id;
  messages = opened.messages;
  earlier = opened.earlier;
  thread.replaceChildren(...rows(messages));
  scroll.toEnd();
  followAll();
}

export function clear(...instead) {
  leave();
  messages = [];
  earlier = false;
  conversation = null;
  thread.replaceChildren(...instead);
}

export function leave() {
  for (const end of following.values()) end();
  following.clear();
}

// Puts new messages after `parent` (null: from the beginning), in place of what stood there.
export function putAfter(parent, added) {
  version++;
  cutAfter(parent);
  messages = [...messages, ...added];
  thread.querySelector(":scope > .welcome")?.remove();
  thread.append(...rows(added));
  trim();
  scroll.toEnd();
  followAll();
  settleAll(added);
}

// A short answer may have ended before this page could follow it.
const settleAll = (replies) => replies.filter((one) => one.role === "assistant" && one.status !== "streaming").forEach(settle);

function cutAfter(parent) {
  let end = parent === null ? 0 : messages.findIndex((one) => one.id === parent) + 1;
  // The other side's answer to the same question stays.
  while (end > 0 && messages[end]?.role === "assistant" && messages[end].parent === messages[end - 1].parent) end++;
  for (const old of messages.slice(end)) drop(old.id);
  messages = messages.slice(0, end);
}

function drop(id) {
  following.get(id)?.();
  following.delete(id);
  const article = articleOf(id);
  const pair = article?.closest(".pair");
  article?.remove();
  if (pair && !pair.children.length) pair.remove();
}

// Far back messages leave the page again; scrolling up brings them back.
function trim() {
  if (messages.length <= KEPT + PAGE) return;
  const first = messages.at(-KEPT), begin = messages.length - KEPT + (first.side ? 1 : 0); // no half of a pair
  for (const old of messages.slice(0, begin)) drop(old.id);
  messages = messages.slice(begin);
  earlier = true;
}

const articleOf = (id) => thread.querySelector(`article[data-id="${CSS.escape(id)}"]`);

function rows(of) {
  const found = [];
  for (let i = 0; i < of.length; i++) {
    const one = of[i], next = of[i + 1];
    const paired = one.role === "assistant" && next?.role === "assistant" && next.parent === one.parent && next.side !== one.side;
    if (paired) {
      found.push(h("div", { class: "pair", role: "group", "aria-label": "Two answers" }, messageOf(one, { rivals: true, named: true }), messageOf(next, { rivals: true, named: true })));
      i++;
    } else found.push(messageOf(one));
  }
  return found;
}

export function update(message) {
  messages = messages.map((one) => (one.id === message.id ? message : one));
  const article = articleOf(message.id);
  if (!article) return;
  const pair = Boolean(article.closest(".pair"));
  const held = article.contains(document.activeElement) ? document.activeElement.dataset.act : null;
  const fresh = messageOf(message, { rivals: pair, named: pair });
  article.replaceWith(fresh);
  if (held) (fresh.querySelector(`[data-act="${held}"]`) ?? fresh).focus();
}

function followAll() {
  for (const one of messages) {
    if (one.status === "streaming" && !following.has(one.id)) following.set(one.id, attach(one.id));
  }
  on.changed();
}

function attach(id) {
  let waiting = null; // what the next frame draws
  const draw = () => {
    const { blocks, count, tokens } = waiting;
    waiting = null;
    const article = articleOf(id);
    if (!article) return;
    if (count) article.querySelector(".waiting")?.remove();
    article.classList.add("writing");
    setBlocks(article.querySelector(".blocks"), blocks, count);
    const about = article.querySelector(".about"), model = messages.find((one) => one.id === id)?.model;
    if (about && tokens) about.textContent = [model, plural(tokens, "token")].filter(Boolean).join(" · ");
  };
  announce("The answer is being written");
  return follow(id, {
    blocks(blocks, count, tokens) {
      if (!waiting) requestAnimationFrame(() => waiting && draw());
      waiting = { blocks: { ...waiting?.blocks, ...blocks }, count, tokens };
    },
    done(message) {
      waiting = null;
      following.delete(id);
      update(message);
      settle(message);
    },
    lost: () => on.lost(),
    back: () => on.back(),
    gone() {
      following.delete(id);
      messages = messages.filter((one) => one.id !== id);
      drop(id);
      on.changed();
    },
  });
}

function settle(message) {
  announce(message.status === "done" ? `Answer: ${message.text}` : `${message.status === "refused" ? "Not answered" : message.status}. ${said(message.error)}`);
  askWhich(message);
  on.changed();
  on.finished(message);
}

// After a second answer to the same question: which of both was better? It is training data, and may be left open.
function askWhich(message) {
  const at = message.siblings?.indexOf(message.id) ?? -1;
  const article = articleOf(message.id);
  if (at < 1 || message.status !== "done" || !article || article.closest(".pair")) return;
  const before = message.siblings[at - 1];
  const row = h("div", { class: "which", role: "group", "aria-label": "Compare with the answer before" },
    h("span", {}, "Better or worse than the answer before?"),
    h("button", { type: "button", class: "quiet", "data-act": "better", "data-than": before }, "Better"),
    h("button", { type: "button", class: "quiet", "data-act": "worse", "data-than": before }, "Worse"),
    button("close", "Do not say", { "data-act": "unasked" }));
  article.append(row);
}

async function loadEarlier() {
  if (!earlier || loading || !conversation) return;
  loading = true;
  const asked = conversation;
  try {
    const answer = await get(`conversations/${encodeURIComponent(asked)}?limit=${PAGE}&before=${encodeURIComponent(messages[0].id)}`);
    if (asked !== conversation) return;
    const known = new Set(messages.map((one) => one.id));
    const found = answer.messages.filter((one) => !known.has(one.id));
    earlier = answer.earlier;
    messages = [...found, ...messages];
    const first = thread.firstElementChild;
    scroll.holding(first, () => thread.prepend(...rows(found)));
  } catch (error) {
    toast(error.message, { name: "Try again", run: loadEarlier });
  } finally {
    loading = false;
  }
}

const ACTS = {
  "copy-code": (pressed) => copy(pressed.closest(".code").querySelector("pre").innerText, pressed),
  copy: (pressed, message) => copy(message.text, pressed),
  look: (pressed) => look(pressed),
  edit: (pressed, message, article) => edit(message, article),
  branch: (pressed) => on.branch(pressed.dataset.to),
  again: (pressed, message) => again(message.id),
  good: (pressed, message) => rate(message, message.rating === 1 ? 0 : 1),
  bad: (pressed, message) => (message.rating === -1 ? rate(message, 0) : askWhy(message)),
  prefer: (pressed, message) => prefer(message),
  better: (pressed, message) => judge(message.id, pressed.dataset.than, pressed),
  worse: (pressed, message) => judge(pressed.dataset.than, message.id, pressed),
  unasked: (pressed) => pressed.closest(".which").remove(),
};

async function act(pressed, name) {
  const article = pressed.closest("article");
  const message = messages.find((one) => one.id === article?.dataset.id);
  try {
    await ACTS[name]?.(pressed, message, article);
  } catch (error) {
    toast(error.message);
  }
}

export async function again(id) {
  const old = messages.find((one) => one.id === id), article = articleOf(id);
  const { replies } = await post(`messages/${encodeURIComponent(id)}/again`, {});
  on.began();
  if (!article.closest(".pair") || replies.length > 1) return putAfter(old.parent, replies);
  version++;
  cutAfter(id);
  messages = messages.map((one) => (one.id === id ? replies[0] : one));
  article.replaceWith(messageOf(replies[0], { rivals: true, named: true }));
  followAll();
  settleAll(replies);
}

export const stop = () => Promise.all(writing().map((id) => post(`messages/${encodeURIComponent(id)}/stop`, {})));

async function rate(message, rating, note) {
  await post(`messages/${encodeURIComponent(message.id)}/rate`, { rating, ...(note ? { note } : {}) });
  update({ ...message, rating });
  if (rating) announce("Thank you. The rating is kept.");
}

async function askWhy(message) {
  await rate(message, -1);
  const note = h("textarea", { rows: "3", maxlength: "2000", "aria-label": "What was wrong" });
  const body = [h("p", { class: "hint" }, "Optional. It is kept beside the rating, for whoever trains the next model."), note];
  if ((await dialog("What was wrong?", body, [{ name: "Skip", value: "" }, { name: "Send", value: "send", kind: "firm" }])) && note.value.trim()) {
    await rate({ ...message, rating: -1 }, -1, note.value.trim());
  }
}

async function prefer(message) {
  const rival = messages.find((one) => one.parent === message.parent && one.role === "assistant" && one.id !== message.id);
  if (!rival) return;
  await post(`messages/${encodeURIComponent(message.id)}/prefer`, { over: rival.id });
  update({ ...message, preferred: true });
  update({ ...rival, preferred: false });
  announce("The preference is kept.");
}

async function judge(better, worse, pressed) {
  await post(`messages/${encodeURIComponent(better)}/prefer`, { over: worse });
  pressed.closest(".which").replaceChildren(icon("done"), h("span", {}, "Thank you, that is kept."));
  announce("The preference is kept.");
}

export function edit(message, article = articleOf(message.id)) {
  const area = h("textarea", { rows: "2", "aria-label": "Edit message", dir: "auto" });
  area.value = message.text;
  const end = () => {
    form.remove();
    article.classList.remove("editing");
    article.querySelector('[data-act="edit"]')?.focus();
  };
  const send = () => {
    const text = area.value.trim();
    if (!text && !message.images.length) return;
    end();
    on.say({ parent: message.parent, text, images: message.images.map((one) => one.id) });
  };
  const form = h("form", { class: "edit", onsubmit: (event) => (event.preventDefault(), send()) }, area,
    h("div", { class: "buttons" },
      h("span", { class: "hint" }, "Sending starts a second version; this one is kept."),
      h("button", { type: "button", class: "quiet", onclick: end }, "Cancel"),
      h("button", { type: "submit", class: "firm" }, "Send")));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") (event.stopPropagation(), end());
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) (event.preventDefault(), send());
  });
  if (article.classList.contains("editing")) return;
  article.classList.add("editing");
  article.querySelector(".actions").before(form);
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

function look(pressed) {
  const small = pressed.querySelector("img");
  dialog(small.alt, [h("img", { src: pressed.dataset.image, alt: small.alt })], [], { class: "large" });
}
