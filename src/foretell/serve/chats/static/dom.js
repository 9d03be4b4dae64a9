// Small tools for the page: elements, menus, dialogs, notes that pass.

export const find = (id) => document.getElementById(id);

export function h(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const icon = (name) => h("span", { class: `i i-${name}`, "aria-hidden": "true" });

export function button(drawn, label, properties = {}) {
  return h("button", { type: "button", class: "icon", "aria-label": label, title: label, ...properties }, icon(drawn));
}

export function redraw(button, drawn, label) {
  button.replaceChildren(icon(drawn));
  button.setAttribute("aria-label", label);
  button.title = label;
}

// Says something to who listens to the page; shown nowhere.
export function announce(text) {
  find("live").textContent = text;
}

export function toast(text, action = null) {
  const note = h("div", { class: "toast" }, h("span", {}, text));
  if (action) note.append(h("button", { type: "button", class: "link", onclick: () => (note.remove(), action.run()) }, action.name));
  note.append(button("close", "Close", { onclick: () => note.remove() }));
  find("toasts").append(note);
  setTimeout(() => note.remove(), 8000);
}

// A menu at a button. items: {name, drawn, run, href, download, danger, checked} or null for a rule.
export function menu(at, items, label) {
  const list = h("div", { class: "menu", role: "menu", popover: "auto", "aria-label": label });
  for (const item of items) {
    if (!item) {
      list.append(h("hr", { role: "separator" }));
      continue;
    }
    const role = item.checked === undefined ? "menuitem" : "menuitemradio";
    const inside = [icon(item.drawn), h("span", {}, item.name), item.hint ? h("kbd", {}, item.hint) : null, item.checked ? icon("done") : null];
    const common = { role, tabindex: "-1", class: item.danger ? "danger" : null, "aria-checked": item.checked === undefined ? null : String(item.checked) };
    list.append(
      item.href
        ? h("a", { ...common, href: item.href, download: item.download ? "" : null, onclick: () => list.hidePopover() }, ...inside)
        : h("button", { ...common, type: "button", onclick: () => (list.hidePopover(), item.run()) }, ...inside),
    );
  }
  const entries = [...list.querySelectorAll("[role^=menuitem]")];
  list.addEventListener("keydown", (event) => {
    const here = entries.indexOf(document.activeElement);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: entries.length - 1 }[event.key];
    if (to !== undefined) entries[(to + entries.length) % entries.length].focus();
    else if (event.key === "Tab") list.hidePopover();
    else return;
    event.preventDefault();
  });
  list.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    at.setAttribute("aria-expanded", "false");
    if (list.contains(document.activeElement) || document.activeElement === document.body) at.focus();
    list.remove();
  });
  (at.closest("dialog") ?? document.body).append(list);
  list.showPopover();
  place(list, at);
  at.setAttribute("aria-expanded", "true");
  entries[0].focus({ focusVisible: false });
  return list;
}

function place(list, at) {
  const box = at.getBoundingClientRect(), own = list.getBoundingClientRect();
  const under = box.bottom + 4 + own.height < innerHeight;
  list.style.top = `${Math.max(8, under ? box.bottom + 4 : box.top - own.height - 4)}px`;
  list.style.left = `${Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
}

// A dialog with a form; resolves with the name of the button that ended it, or null. body: elements of the form.
export function dialog(title, body, buttons = [], { class: kind = "" } = {}) {
  return new Promise((resolve) => {
    const head = h("h2", { id: "dialog-title" }, title);
    const row = h("div", { class: "buttons" });
    for (const one of buttons) {
      row.append(h("button", { class: one.kind ?? "quiet", value: one.value, type: one.value === "" ? "button" : "submit", onclick: one.value === "" ? () => box.close("") : null }, one.name));
    }
    const form = h("form", { method: "dialog" }, ...body, buttons.length ? row : null);
    const box = h("dialog", { class: kind, "aria-labelledby": "dialog-title" },
      h("div", { class: "head" }, head, button("close", "Close", { onclick: () => box.close("") })), form);
    box.addEventListener("close", () => {
      box.remove();
      resolve(box.returnValue || null);
    });
    box.addEventListener("click", (event) => event.target === box && box.close(""));
    document.body.append(box);
    box.showModal();
    (form.querySelector(":checked") ?? (buttons.length ? row.firstChild : null))?.focus(); // not the cross
  });
}

export async function copy(text, at) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages that are not https:// may not use the clipboard directly.
    const area = h("textarea", { class: "unseen", readonly: true });
    area.value = text;
    (at.closest("dialog") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return toast("The browser does not let this page copy.");
  }
  announce("Copied");
  const mark = at.querySelector(".i");
  const was = mark.className;
  mark.className = "i i-done";
  setTimeout(() => (mark.className = was), 1500);
}

export const number = new Intl.NumberFormat("en-US");
export const plural = (count, one, more = `${one}s`) => `${number.format(count)} ${count === 1 ? one : more}`;

// A value kept in the browser; kept: localStorage or sessionStorage, which may both be forbidden.
export const remember = (name, value, kept = localStorage) => {
  try {
    if (value === null) kept.removeItem(`foretell-${name}`);
    else kept.setItem(`foretell-${name}`, value);
  } catch {
    // Nothing is remembered then.
  }
};
export const recall = (name, kept = localStorage) => {
  try {
    return kept.getItem(`foretell-${name}`);
  } catch {
    return null;
  }
};
