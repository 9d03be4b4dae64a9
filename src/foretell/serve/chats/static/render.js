// The only place where markup enters the page. It was rendered and cleaned on the server, block by block.

import { button, h } from "./dom.js";

const cleaned = globalThis.trustedTypes
  ? trustedTypes.createPolicy("foretell", { createHTML: (html) => html })
  : { createHTML: (html) => html };

export function blockOf(html) {
  const block = h("div", { class: "block" });
  fill(block, html);
  return block;
}

function fill(block, html) {
  const template = document.createElement("template");
  template.innerHTML = cleaned.createHTML(html);
  dress(template.content);
  morph(block, template.content);
}

// Code gets its bar with the language and a copy button; what may be wider than the page scrolls by itself.
function dress(content) {
  for (const pre of content.querySelectorAll("pre")) {
    const language = pre.querySelector("code")?.className.match(/language-([\w+#.-]+)/)?.[1] ?? "";
    const bar = h("div", { class: "code-bar" }, h("span", {}, language || "text"), button("copy", "Copy code", { "data-act": "copy-code" }));
    const frame = h("div", { class: "code" });
    pre.replaceWith(frame);
    pre.tabIndex = 0;
    pre.setAttribute("role", "region");
    pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
    frame.append(bar, pre);
  }
  for (const table of content.querySelectorAll("table")) {
    const frame = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" });
    table.replaceWith(frame);
    frame.append(table);
  }
}

// Makes `old`'s children like `fresh`'s with the fewest changes, so that a selection and the pointer's place survive
// while a reply grows, and a long block costs only what was added to it.
function morph(old, fresh) {
  const had = [...old.childNodes], wanted = [...fresh.childNodes];
  wanted.forEach((next, i) => {
    const now = had[i];
    if (!now) old.append(next);
    else if (now.nodeType === Node.TEXT_NODE && next.nodeType === Node.TEXT_NODE) {
      if (next.data.startsWith(now.data)) now.appendData(next.data.slice(now.data.length));
      else now.data = next.data;
    } else if (now.nodeType === Node.ELEMENT_NODE && alike(now, next)) morph(now, next);
    else now.replaceWith(next);
  });
  for (const rest of had.slice(wanted.length)) rest.remove();
}

function alike(one, other) {
  if (one.nodeName !== other.nodeName || one.attributes.length !== other.attributes.length) return false;
  return [...one.attributes].every(({ name, value }) => other.getAttribute(name) === value);
}

// changed: {"number of the block": html}; count: how many blocks there are now.
export function setBlocks(holder, changed, count) {
  for (const [at, html] of Object.entries(changed)) {
    while (holder.children.length <= Number(at)) holder.append(h("div", { class: "block" }));
    fill(holder.children[at], html);
  }
  while (holder.children.length > count) holder.lastChild.remove();
}
