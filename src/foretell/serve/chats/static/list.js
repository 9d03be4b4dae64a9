// The list of conversations: found, opened, renamed, exported, deleted.

import { get, patch, remove } from "./api.js";
import { button, dialog, find, h, menu, toast } from "./dom.js";

const DAY = 86_400_000;
const list = find("list"), search = find("search");
let items = [], more = false, wanted = "", shown = null, asking = null, told = null;

// on: {open(id), gone(id), renamed(conversation)}
export function start(on) {
  told = on;
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => load(search.value.trim()), 150);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      event.stopPropagation();
      search.value = "";
      load("");
    } else if (event.key === "ArrowDown") {
      event.preventDefault();
      list.querySelector("a")?.focus();
    }
  });
  list.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")], here = links.indexOf(document.activeElement);
    if (here < 0) return;
    const to = { ArrowDown: here + 1, ArrowUp: here - 1 }[event.key];
    if (to === undefined) {
      if (event.key === "F2") rename(items.find((one) => one.id === links[here].dataset.id));
      if (event.key === "Delete") erase(items.find((one) => one.id === links[here].dataset.id));
      return;
    }
    event.preventDefault();
    (links[to] ?? (to < 0 ? search : links.at(-1))).focus();
  });
  list.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    told.open(link.dataset.id);
  });
  list.addEventListener("scroll", () => {
    if (more && list.scrollHeight - list.scrollTop - list.clientHeight < 300) next();
  });
}

export async function load(text = wanted) {
  wanted = text;
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const answer = await get(`conversations?limit=50&search=${encodeURIComponent(text)}`, { signal: mine.signal });
    items = answer.items;
    more = answer.more;
    draw();
  } catch (error) {
    if (error.name !== "AbortError" && !items.length) list.replaceChildren(h("p", { class: "none" }, error.message));
  } finally {
    if (asking === mine) asking = null;
  }
}

async function next() {
  if (asking) return;
  const mine = (asking = new AbortController());
  try {
    const path = `conversations?limit=50&search=${encodeURIComponent(wanted)}&before=${encodeURIComponent(items.at(-1).id)}`;
    const answer = await get(path, { signal: mine.signal });
    const known = new Set(items.map((one) => one.id));
    items.push(...answer.items.filter((one) => !known.has(one.id)));
    more = answer.more;
    draw();
  } catch {
    // Asked again at the next scroll.
  } finally {
    if (asking === mine) asking = null;
  }
}

export function mark(id) {
  shown = id;
  for (const link of list.querySelectorAll("a")) {
    if (link.dataset.id === id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// Puts a conversation on top at once, before the server is asked again.
export function touch(conversation) {
  if (wanted) return;
  items = [{ ...conversation, updated: Date.now() }, ...items.filter((one) => one.id !== conversation.id)];
  draw();
}

function draw() {
  const held = document.activeElement?.closest?.("#list a")?.dataset.id;
  const parts = [];
  let group = null, rows = null;
  for (const item of items) {
    const name = age(item.updated);
    if (name !== group) {
      group = name;
      rows = h("ul");
      parts.push(h("h2", {}, name), rows);
    }
    rows.append(row(item));
  }
  if (!parts.length) parts.push(h("p", { class: "none" }, wanted ? `Nothing holds “${wanted}”.` : "Your conversations will stand here."));
  list.replaceChildren(...parts);
  if (held) list.querySelector(`a[data-id="${CSS.escape(held)}"]`)?.focus();
}

function row(item) {
  const title = item.title || "New chat";
  const link = h("a", { href: `/c/${encodeURIComponent(item.id)}`, "data-id": item.id, title, dir: "auto", "aria-current": item.id === shown ? "page" : null }, title);
  const options = button("more", `Options of ${title}`, { "aria-haspopup": "menu", "aria-expanded": "false", onclick: () => choose(options, item) });
  return h("li", {}, link, options);
}

function choose(at, item) {
  const path = `/chat/conversations/${encodeURIComponent(item.id)}/export?form=`;
  menu(at, [
    { name: "Rename", drawn: "edit", run: () => rename(item) },
    { name: "Export as Markdown", drawn: "export", href: `${path}markdown`, download: true },
    { name: "Export as JSON", drawn: "export", href: `${path}json`, download: true },
    null,
    { name: "Delete", drawn: "delete", danger: true, run: () => erase(item) },
  ], "Conversation");
}

export function rename(item) {
  const link = list.querySelector(`a[data-id="${CSS.escape(item.id)}"]`);
  if (!link) return;
  const input = h("input", { type: "text", "aria-label": "Title", maxlength: "200", dir: "auto" });
  input.value = item.title;
  let ended = false;
  const end = async (keep) => {
    if (ended) return;
    ended = true;
    const title = input.value.trim();
    input.replaceWith(link);
    link.focus();
    if (!keep || !title || title === item.title) return;
    try {
      told.renamed(await patch(`conversations/${encodeURIComponent(item.id)}`, { title }));
      items = items.map((one) => (one.id === item.id ? { ...one, title } : one));
      draw();
    } catch (error) {
      toast(error.message);
    }
  };
  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && !event.isComposing) end(true);
    if (event.key === "Escape") end(false);
  });
  input.addEventListener("blur", () => end(true));
  link.replaceWith(input);
  input.select();
}

export async function erase(item) {
  const text = h("p", {}, h("strong", { dir: "auto" }, item.title || "New chat"), " and its images will be gone for good.");
  const buttons = [{ name: "Cancel", value: "" }, { name: "Delete", value: "delete", kind: "danger" }];
  if ((await dialog("Delete this conversation?", [text], buttons)) !== "delete") return;
  try {
    await remove(`conversations/${encodeURIComponent(item.id)}`);
  } catch (error) {
    if (error.status !== 404) return toast(error.message);
  }
  items = items.filter((one) => one.id !== item.id);
  draw();
  told.gone(item.id);
}

function age(updated) {
  const midnight = new Date().setHours(0, 0, 0, 0), then = new Date(updated);
  if (updated >= midnight) return "Today";
  if (updated >= midnight - DAY) return "Yesterday";
  if (updated >= midnight - 7 * DAY) return "Last 7 days";
  if (updated >= midnight - 30 * DAY) return "Last 30 days";
  const year = then.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
  return then.toLocaleDateString("en", { month: "long", ...year });
}
