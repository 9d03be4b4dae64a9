// What a conversation is held with: model, second model, persona, system message, temperature.

import { patch } from "./api.js";
import { dialog, find, h, recall, remember } from "./dom.js";

const model = find("model"), second = find("second"), pair = find("pair"), versus = find("versus"), persona = find("persona");
const NONE = { model: null, second: null, persona: null, system: "", temperature: null };
let state = null, now = { ...NONE }, conversation = null, on = null;

// handlers: {changed(), failed(error)}. loaded: /chat/state.
export function start(loaded, handlers) {
  state = loaded;
  on = handlers;
  const names = state.models.map((one) => one.name);
  for (const select of [model, second]) select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  pair.hidden = names.length < 2;
  model.addEventListener("change", () => {
    remember("model", model.value);
    set({ model: model.value });
  });
  second.addEventListener("change", () => set({ second: second.value }));
  pair.addEventListener("click", () => set({ second: now.second ? null : (names.find((name) => name !== now.model) ?? null) }));
  find("settings").addEventListener("click", () => choose());
  persona.addEventListener("click", () => choose());
  begin();
}

// A new conversation, with the model that was chosen last.
export function begin() {
  conversation = null;
  const kept = recall("model");
  const known = state.models.some((one) => one.name === kept);
  show({ ...NONE, model: known ? kept : (state.models[0]?.name ?? null) });
}

export function open(opened) {
  conversation = opened.id;
  show({ model: opened.model, second: opened.second, persona: opened.persona, system: opened.system ?? "", temperature: opened.temperature });
}

export const chosen = () => now;
export const began = (id) => (conversation = id);
export const barred = () => state.models.some((one) => one.barred && (one.name === now.model || one.name === now.second));
export const reads = () => state.models.some((one) => one.images && (one.name === now.model || one.name === now.second));

function show(settings) {
  now = settings;
  for (const [select, name] of [[model, now.model], [second, now.second]]) {
    // A model that this server no longer has is still named.
    if (name && ![...select.options].some((one) => one.value === name)) select.append(h("option", { value: name }, name));
    if (name) select.value = name;
  }
  const two = Boolean(now.second);
  second.hidden = versus.hidden = !two;
  pair.setAttribute("aria-pressed", String(two));
  const named = state.personas.find((one) => one.id === now.persona && one.system)?.name;
  const parts = [named ?? (now.system ? "Own system message" : ""), now.temperature === null ? "" : `Temperature ${now.temperature}`];
  const line = parts.filter(Boolean).join(" · ");
  persona.hidden = !line;
  persona.textContent = line;
  on.changed();
}

async function set(change) {
  const before = now;
  show({ ...now, ...change });
  if (!conversation) return;
  try {
    await patch(`conversations/${encodeURIComponent(conversation)}`, change);
  } catch (error) {
    show(before);
    on.failed(error);
  }
}

async function choose() {
  const system = h("textarea", { id: "system", rows: "7", maxlength: "20000", dir: "auto", placeholder: "How the model should answer, and as whom" });
  system.value = now.system;
  const choices = state.personas.some((one) => !one.system) ? state.personas : [{ id: "", name: "None", system: "" }, ...state.personas];
  const radios = h("div", { class: "personas", role: "radiogroup", "aria-label": "Persona" });
  const draw = (id) => {
    for (const input of radios.querySelectorAll("input")) input.checked = input.value === id;
  };
  for (const one of choices) {
    radios.append(h("label", {}, h("input", { type: "radio", name: "persona", value: one.id, onchange: () => (system.value = one.system) }), h("span", {}, one.name)));
  }
  draw(choices.find((one) => one.system === now.system)?.id ?? "own");
  system.addEventListener("input", () => draw(choices.find((one) => one.system === system.value)?.id ?? "own"));
  const own = h("input", { type: "checkbox", id: "own" }), shown = h("output", { for: "temperature" });
  const temperature = h("input", { type: "range", id: "temperature", min: "0", max: "2", step: "0.1" });
  own.checked = now.temperature === null;
  temperature.value = now.temperature ?? 1;
  const tell = () => {
    temperature.disabled = own.checked;
    shown.textContent = own.checked ? "the model’s own" : Number(temperature.value).toFixed(1);
  };
  own.addEventListener("change", tell);
  temperature.addEventListener("input", tell);
  tell();
  const body = [
    h("fieldset", {}, h("legend", {}, "Persona"), radios),
    h("div", { class: "field" }, h("label", { for: "system" }, "System message"), system),
    h("div", { class: "field" },
      h("div", { class: "between" }, h("label", { for: "temperature" }, "Temperature"), shown), temperature,
      h("div", { class: "between hint" }, h("span", {}, "exact"), h("span", {}, "varied")),
      h("label", { class: "check" }, own, h("span", {}, "Leave it to the model"))),
    h("p", { class: "hint" }, "For this conversation, from the next answer on."),
  ];
  if ((await dialog("How it answers", body, [{ name: "Cancel", value: "" }, { name: "Save", value: "save", kind: "firm" }], { class: "sheet" })) !== "save") return;
  const picked = choices.find((one) => one.id && one.system && one.system === system.value.trim());
  set({ persona: picked?.id ?? null, system: system.value.trim(), temperature: own.checked ? null : Number(temperature.value) });
}
