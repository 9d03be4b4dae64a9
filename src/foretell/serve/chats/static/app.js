// The page put together: which conversation is open, keys, tabs, and what happens when the server is away.

import { get, patch, post, remove } from "./api.js";
import { announce, dialog, find, h, icon, menu, number, recall, remember, toast } from "./dom.js";
import * as composer from "./composer.js";
import * as list from "./list.js";
import * as settings from "./settings.js";
import * as thread from "./thread.js";

const root = document.documentElement, banner = find("banner"), narrow = matchMedia("(max-width: 52rem)");
const apple = /Mac|iPhone|iPad/.test(navigator.platform), title = document.title;
const tabs = "BroadcastChannel" in window ? new BroadcastChannel("foretell-chat") : null;
let state = null, open = null, opening = 0;

const address = () => decodeURIComponent(location.pathname.match(/^\/c\/([^/]+)$/)?.[1] ?? "") || null;
const path = (id, rest = "") => `conversations/${encodeURIComponent(id)}${rest}`;

async function start() {
  const first = address();
  const asked = first ? get(path(first, "?limit=60")) : null;
  asked?.catch(() => {}); // told below, once the page stands
  list.start({ open: go, gone: (id) => (tell({ gone: id }), id === open?.id && fresh()), renamed: (one) => (tell({ list: true }), one.id === open?.id && named(one.title)) });
  const listed = list.load("");
  try {
    state = await get("state");
  } catch (error) {
    if (error.status !== 401) away(error.message, () => location.reload());
    return;
  }
  thread.start({ say, branch, began: () => tell({ conversation: open?.id }), changed: busy, finished, lost: () => away("The connection is lost. The answer goes on being written; trying again …"), back: here });
  composer.start({ send: (said) => say({ ...said, parent: thread.tip() }), stop, editLast });
  settings.start(state, { changed: () => composer.setReads(settings.reads(), settings.barred()), failed: (error) => toast(error.message) });
  caps(state.caps);
  find("who").textContent = state.user?.name ?? "Menu";
  if (!state.models.length) away("This server has no model to talk to.");
  controls();
  if (first) await show(first, asked);
  else welcome();
  await listed;
  root.dataset.ready = "";
}

// What stands where nothing was said yet.
function welcome() {
  const prompts = state.prompts.map((one) => h("button", { type: "button", onclick: () => composer.fill(one.text) }, h("strong", {}, one.title), h("span", {}, one.text)));
  thread.clear(h("div", { class: "welcome" }, h("h1", {}, "What shall we work on?"), prompts.length ? h("div", { class: "prompts" }, ...prompts) : null));
  document.title = title;
  find("heading").hidden = true;
  list.mark(null);
  composer.moveTo(null);
  busy();
}

function fresh() {
  if (location.pathname !== "/") history.pushState(null, "", "/");
  opening++;
  open = null;
  settings.begin();
  welcome();
  shut();
}

function go(id) {
  if (id !== address()) history.pushState(null, "", `/c/${encodeURIComponent(id)}`);
  shut();
  return show(id);
}

async function show(id, asked = get(path(id, "?limit=60"))) {
  const mine = ++opening, age = thread.age();
  list.mark(id);
  try {
    const found = await asked;
    if (mine !== opening) return;
    if (open?.id === id && age !== thread.age()) return show(id); // something was said meanwhile
    const again = open?.id === id;
    open = found;
    named(found.title);
    settings.open(found);
    if (!again) composer.moveTo(id);
    thread.show(found);
  } catch (error) {
    if (mine !== opening) return;
    open = null;
    const gone = error.status === 404;
    settings.begin();
    thread.clear(h("div", { class: "welcome" }, h("h1", {}, gone ? "Nothing here" : "That did not work"), h("p", { class: "soft" }, gone ? "There is no such conversation, or it is not yours." : error.message),
      gone ? h("button", { type: "button", class: "firm", onclick: fresh }, "New chat") : h("button", { type: "button", class: "firm", onclick: () => show(id) }, "Try again")));
    busy();
  }
}

function named(text) {
  document.title = text ? `${text} · ${title}` : title;
  find("heading").textContent = text || "New chat";
  find("heading").hidden = false;
}

// Sends what was written, or an edited message; `parent` is the message that it follows.
async function say({ text, images, parent }) {
  const mine = opening, begun = open ? null : settings.chosen();
  let to = open;
  if (begun) {
    const { model, second, persona, system, temperature } = begun;
    to = await post("conversations", { model, second, persona, system, temperature });
  }
  let said;
  try {
    said = await post(path(to.id, "/say"), { parent, text, images });
  } catch (error) {
    if (begun) remove(path(to.id)).catch(() => {}); // nothing was said in it
    if (error.status === 429) refreshCaps();
    throw error;
  }
  if (begun ? mine === opening : open?.id === to.id) {
    if (begun) {
      open = to;
      named("");
      settings.began(to.id);
      composer.rename(to.id);
      history.pushState(null, "", `/c/${encodeURIComponent(to.id)}`);
    }
    thread.putAfter(parent, [said.user, ...said.replies]);
  }
  tell({ conversation: to.id });
  list.touch({ id: to.id, title: to.title || text.slice(0, 60) || "Image", model: to.model });
  list.mark(open?.id ?? null);
}

async function branch(to) {
  try {
    const changed = await patch(path(open.id), { tip: to });
    open = changed;
    thread.show(changed);
    document.querySelector(`article[data-id="${CSS.escape(to)}"]`)?.scrollIntoView({ block: "nearest" });
    tell({ conversation: open.id });
  } catch (error) {
    toast(error.message);
  }
}

async function stop() {
  try {
    await thread.stop();
    announce("Stopped");
  } catch (error) {
    toast(error.message);
  }
}

function editLast() {
  const last = thread.shown().findLast((one) => one.role === "user");
  if (last) thread.edit(last);
}

function busy() {
  composer.setWriting(thread.writing().length > 0);
}

async function finished() {
  here();
  refreshCaps();
  await list.load();
  const kept = open;
  if (!kept?.title && kept) {
    try {
      const { title: words } = await get(path(kept.id, "?limit=1"));
      if (open === kept) named((open.title = words));
    } catch {
      // The title comes with the next load.
    }
  }
}

async function refreshCaps() {
  try {
    caps(await get("usage"));
  } catch {
    // The old figures stay.
  }
}

function caps(found) {
  const parts = [];
  if (found) {
    const shares = [];
    if (found.limit_tokens) shares.push((found.used_tokens ?? 0) / found.limit_tokens);
    if (found.requests_limit) shares.push(1 - (found.requests_left ?? found.requests_limit) / found.requests_limit);
    if (shares.length) {
      const share = Math.min(1, Math.max(0, ...shares));
      parts.push(h("meter", { min: "0", max: "1", high: "0.8", optimum: "0", value: share.toFixed(3), "aria-label": "Used of what is allowed" }));
    }
    parts.push(h("p", {}, found.text || `${number.format(found.used_tokens ?? 0)} tokens used`));
  }
  find("caps").replaceChildren(...parts);
}

function away(text, again = null) {
  banner.replaceChildren(icon("warn"), h("span", {}, text), again ? h("button", { type: "button", class: "link", onclick: again }, "Try again") : "");
  banner.hidden = false;
}

function here() {
  banner.hidden = true;
}

// Other tabs of this browser are told what changed, and tell this one.
const tell = (what) => tabs?.postMessage(what);

function heard({ data }) {
  list.load();
  if (data.gone && data.gone === open?.id) fresh();
  if (data.conversation && data.conversation === open?.id && !document.querySelector(".editing")) show(open.id);
}

function shut() {
  if (narrow.matches) drawer(false);
}

function drawer(out) {
  if (narrow.matches) {
    root.toggleAttribute("data-drawer", out);
    find("veil").hidden = !out;
    find("main").inert = out;
    (out ? find("hide") : find("show")).focus();
  } else {
    root.dataset.side = out ? "open" : "shut";
    remember("side", out ? null : "shut");
    (out ? find("hide") : find("show")).focus();
  }
}

const isOut = () => (narrow.matches ? root.hasAttribute("data-drawer") : root.dataset.side !== "shut");

const KEYS = [
  ["Enter", "Send"], ["Shift Enter", "New line"], ["Esc", "Stop the answer"], ["↑", "Edit the last message, in an empty box"],
  ["Ctrl Shift O", "New chat"], ["Ctrl K", "Search conversations"], ["Ctrl Shift S", "Show or hide conversations"],
  ["Shift Esc", "To the message box"], ["F2", "Rename the conversation in focus"], ["Delete", "Delete the conversation in focus"], ["Ctrl /", "This list"],
];
const spelled = (keys) => (apple ? keys.replace("Ctrl", "⌘").replace("Shift", "⇧") : keys);

function help() {
  const rows = KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, ...spelled(keys).split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, what)));
  return dialog("Keys", [h("dl", { class: "keys" }, ...rows)]);
}

function controls() {
  for (const id of ["new", "fresh"]) find(id).addEventListener("click", fresh);
  find("new").querySelector("kbd").textContent = spelled("Ctrl Shift O");
  find("hide").addEventListener("click", () => drawer(false));
  find("show").addEventListener("click", () => drawer(true));
  find("veil").addEventListener("click", () => drawer(false));
  find("menu").setAttribute("aria-haspopup", "menu");
  find("menu").addEventListener("click", options);
  document.querySelector(".home").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    fresh();
  });
  narrow.addEventListener("change", () => {
    root.removeAttribute("data-drawer");
    find("veil").hidden = true;
    find("main").inert = false;
  });
  // Drafts are not for whoever logs in next.
  find("leave")?.addEventListener("submit", composer.forget);
  addEventListener("popstate", () => (address() ? show(address()) : fresh()));
  addEventListener("keydown", key);
  addEventListener("offline", () => away("You are offline. What you write is kept."));
  addEventListener("online", () => (here(), list.load(), open && !thread.writing().length && show(open.id)));
  tabs?.addEventListener("message", heard);
}

function key(event) {
  const held = apple ? event.metaKey : event.ctrlKey, letter = event.key.toLowerCase();
  if (document.querySelector("dialog[open], .menu")) return;
  if (event.key === "Escape") {
    if (event.shiftKey) find("text").focus();
    else if (narrow.matches && isOut()) drawer(false);
    else if (thread.writing().length) stop();
    else return;
  } else if (held && event.shiftKey && letter === "o") fresh();
  else if (held && event.shiftKey && letter === "s") drawer(!isOut());
  else if (held && letter === "k") {
    if (!isOut()) drawer(true);
    find("search").focus();
  } else if (held && letter === "/") help();
  else return;
  event.preventDefault();
}

function options() {
  const theme = recall("theme") ?? "system";
  const themes = [["system", "As the system"], ["light", "Light"], ["dark", "Dark"]];
  menu(find("menu"), [
    ...themes.map(([id, name]) => ({ name, drawn: "theme", checked: theme === id, run: () => setTheme(id) })),
    null,
    { name: "Import conversations", drawn: "import", run: bring },
    { name: "Export all", drawn: "export", href: "/chat/export", download: true },
    { name: "Keys", drawn: "keys", hint: spelled("Ctrl /"), run: help },
  ], "Menu");
}

function setTheme(id) {
  remember("theme", id === "system" ? null : id);
  if (id === "system") delete root.dataset.theme;
  else root.dataset.theme = id;
}

function bring() {
  const file = h("input", { type: "file", accept: ".json,application/json" });
  file.addEventListener("change", async () => {
    toast("Importing …");
    try {
      const { imported, skipped } = await post("import", new Blob([file.files[0]], { type: "application/json" }));
      list.load("");
      const rows = skipped.map((one) => h("li", {}, h("strong", { dir: "auto" }, one.title || "Untitled"), ` ${one.why}`));
      const said = `${number.format(imported)} imported${skipped.length ? `, ${number.format(skipped.length)} left out:` : "."}`;
      await dialog("Import", [h("p", {}, said), rows.length ? h("ul", { class: "skipped" }, ...rows) : null].filter(Boolean), [{ name: "Close", value: "" }]);
    } catch (error) {
      toast(error.message);
    }
  });
  file.click();
}

document.addEventListener("logged-out", () => {
  const back = `/log-in?next=${encodeURIComponent(location.pathname)}`;
  banner.replaceChildren(icon("warn"), h("span", {}, "You are logged out. "), h("a", { href: back }, "Log in again"));
  banner.hidden = false;
});

start();
