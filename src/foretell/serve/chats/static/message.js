// One message: its blocks or its text, its images, what became of it, and what can be done with it.

import { button, h, icon, number, plural } from "./dom.js";
import { blockOf } from "./render.js";

const STATUS = {
  stopped: "Stopped",
  cut: "Cut off when the server stopped",
};

export const said = (error) => (typeof error === "string" ? error : error?.message ?? "");

// rivals: whether the reply stands beside another one that it can be preferred over.
export function messageOf(message, { rivals = false, named = false } = {}) {
  const mine = message.role === "user";
  const article = h("article", {
    class: `message ${message.role}`,
    "data-id": message.id,
    "data-status": message.status,
    "data-side": message.side ?? 0,
    "aria-label": mine ? "You" : message.model || "Answer",
    tabindex: "-1",
  });
  if (named && !mine) article.append(h("h3", { class: "by" }, message.model || "Answer"));
  if (message.images?.length) article.append(pictures(message.images));
  const body = h("div", { class: mine ? "said" : "blocks", dir: "auto" });
  if (mine) body.textContent = message.text;
  else body.append(...message.blocks.map(blockOf));
  if (!mine || message.text) article.append(body);
  article.append(...fate(message), tools(message, rivals));
  return article;
}

function pictures(images) {
  const row = h("ul", { class: "images", "aria-label": plural(images.length, "image") });
  for (const image of images) {
    const path = `/chat/images/${encodeURIComponent(image.id)}`;
    const small = h("img", { src: `${path}?small=1`, alt: image.name, loading: "lazy", decoding: "async", ...room(image) });
    row.append(h("li", {}, h("button", { type: "button", "data-act": "look", "data-image": path, "aria-label": `Show ${image.name} large`, title: `${image.name} · ${cost(image)}` }, small)));
  }
  return row;
}

// The space of a thumbnail is known before it is loaded, so nothing jumps.
function room({ width, height }) {
  const scale = Math.min(1, 240 / width, 200 / height);
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

export function cost(image) {
  const parts = [`${image.width} × ${image.height}`];
  if (image.tiles) parts.push(plural(image.tiles, "tile"));
  if (image.tokens) parts.push(plural(image.tokens, "token"));
  return parts.join(" · ");
}

// What stands under an answer that did not end well, told plainly.
function fate(message) {
  const why = said(message.error);
  if (message.status === "streaming") return message.blocks?.length ? [] : [h("p", { class: "waiting" }, h("span", { class: "unseen" }, "The answer is being written"), h("i"), h("i"), h("i"))];
  if (message.status === "refused") return [h("div", { class: "fate refused" }, icon("warn"), h("p", {}, h("strong", {}, "Not answered. "), why || "The server's usage policy does not allow this."))];
  if (message.status === "failed") {
    const again = message.role === "assistant" ? h("button", { type: "button", class: "quiet", "data-act": "again" }, "Try again") : null;
    return [h("div", { class: "fate failed" }, icon("warn"), h("p", {}, why || "The answer failed."), again)];
  }
  if (message.status === "done" && why) return [h("p", { class: "fate" }, why)]; // as that the beginning was left out
  const text = STATUS[message.status];
  return text ? [h("p", { class: "fate" }, why && message.status !== "stopped" ? `${text}: ${why}` : text)] : [];
}

function tools(message, rivals) {
  const mine = message.role === "user", writing = message.status === "streaming";
  const row = h("div", { class: "actions", role: "group", "aria-label": "Message" });
  if (message.siblings?.length > 1 && !writing) row.append(branches(message));
  const about = h("span", { class: "about" }, [message.model, message.tokens ? plural(message.tokens, "token") : ""].filter(Boolean).join(" · "));
  if (writing) {
    row.append(about);
    return row;
  }
  if (message.text) row.append(button("copy", mine ? "Copy message" : "Copy answer", { "data-act": "copy" }));
  if (mine) {
    row.append(button("edit", "Edit message", { "data-act": "edit" }));
    return row;
  }
  row.append(button("again", "Answer again", { "data-act": "again" }));
  if (message.text) {
    row.append(
      button("good", "Good answer", { "data-act": "good", "aria-pressed": String(message.rating === 1) }),
      button("bad", "Bad answer", { "data-act": "bad", "aria-pressed": String(message.rating === -1) }),
    );
  }
  if (rivals) {
    const name = message.preferred ? "Preferred" : "This one is better";
    row.append(h("button", { type: "button", class: "quiet prefer", "data-act": "prefer", "aria-pressed": String(Boolean(message.preferred)) }, icon("prefer"), name));
  }
  row.append(about);
  return row;
}

function branches(message) {
  const at = message.siblings.indexOf(message.id), count = message.siblings.length;
  const of = message.role === "user" ? "version" : "answer";
  return h("span", { class: "branches", role: "group", "aria-label": `${of} ${at + 1} of ${count}` },
    button("left", `Earlier ${of}`, { "data-act": "branch", "data-to": message.siblings[at - 1] ?? "", disabled: at <= 0 }),
    h("span", {}, `${number.format(at + 1)}/${number.format(count)}`),
    button("right", `Later ${of}`, { "data-act": "branch", "data-to": message.siblings[at + 1] ?? "", disabled: at >= count - 1 }),
  );
}
