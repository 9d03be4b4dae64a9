// The red-teamer's page. Whatever a model or a person wrote is put in as text, never as markup.

const token = new URLSearchParams(location.search).get("token") ?? "";
const at = (id) => document.getElementById(id);
const state = { messages: [], next: [], attack: [], areas: {}, families: [] };

async function call(path, body) {
  const init = { headers: { "X-Foretell-Token": token } };
  if (body !== undefined) {
    init.method = "POST";
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  const answer = await fetch(path, init);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.problem ?? `status ${answer.status}`);
  return told;
}

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function option(value, title) {
  const made = make("option", title);
  made.value = value;
  return made;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "note";
}

async function working(button, what, work) {
  button.disabled = true;
  say(what);
  try {
    say((await work()) ?? "");
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
  }
}

function parts(content) {
  if (typeof content === "string") return [make("p", content, "said")];
  return content.map((part) => {
    if (part.type !== "image_url") return make("p", part.text ?? "", "said");
    const url = String(part.image_url.url);
    if (!url.startsWith("data:image/png;base64,")) return make("p", "a picture", "said");
    const image = make("img");
    image.alt = "picture that is shown to the model";
    image.src = url;
    return image;
  });
}

function draw() {
  const shown = state.messages.map((message) => {
    const turn = make("div", undefined, `turn ${message.role}`);
    turn.append(make("p", message.role, "kicker"), ...parts(message.content));
    return turn;
  });
  at("talk").replaceChildren(...(shown.length ? shown : [make("p", "Nothing has been said yet.", "soft")]));
  at("talk").scrollTop = at("talk").scrollHeight;
  const left = state.next.length;
  const picture = left && typeof state.next[0].content !== "string";
  at("queue").textContent = left
    ? `The attack goes on with ${left} ${left === 1 ? "message" : "messages"}${picture ? ", the first a picture" : ""}.`
    : "";
}

function notes(list) {
  const shown = list.map((note) => {
    const item = make("li");
    const head = make("p", undefined, "kicker");
    head.append(
      make("span", note.succeeded ? "succeeded" : "withstood", note.succeeded ? "bad" : "good"),
      ` · ${note.severity} · ${state.areas[note.area] ?? note.area} · ${note.who || "unnamed"}`,
    );
    item.append(head, make("p", note.text || "without words", note.text ? "said" : "soft"));
    return item;
  });
  at("notes").replaceChildren(...(shown.length ? shown : [make("li", "None yet.", "soft")]));
}

function whole() {
  const system = at("system").value.trim();
  return system ? [{ role: "system", content: system }, ...state.messages] : state.messages;
}

function fill() {
  const first = state.next[0];
  at("message").value = first && typeof first.content === "string" ? first.content : "";
  draw();
}

at("wear").addEventListener("click", () =>
  working(at("wear"), "Putting it on…", async () => {
    const attack = [...at("operators").selectedOptions].map((one) => one.value);
    const told = await call("wear", { text: at("request").value, attack });
    const system = told.head.filter((message) => message.role === "system");
    at("system").value = system.map((message) => message.content).join("\n\n");
    state.messages = told.head.filter((message) => message.role !== "system");
    state.next = told.next;
    const last = told.attack.at(-1);
    const family = state.families.find((one) => one.operators.includes(last));
    at("family").value = family ? family.name : "direct";
    fill();
    return "The attack stands in the next message. Send it as it is, or change it.";
  }),
);

at("send").addEventListener("click", () =>
  working(at("send"), "The model is answering…", async () => {
    const written = at("message").value.trim();
    const first = state.next[0];
    const content = first && typeof first.content !== "string" ? first.content : written;
    if (!content.length) throw new Error("There is no message. Write one.");
    const before = state.messages;
    state.messages = [...before, { role: "user", content }];
    draw();
    try {
      const told = await call("say", { messages: whole() });
      state.messages = [...state.messages, { role: "assistant", content: told.reply }];
    } catch (error) {
      state.messages = before;
      draw();
      throw error;
    }
    state.next = state.next.slice(1);
    fill();
    return "";
  }),
);

at("back").addEventListener("click", () => {
  const last = state.messages.findLastIndex((message) => message.role === "user");
  if (last < 0) return;
  const taken = state.messages[last];
  state.messages = state.messages.slice(0, last);
  state.next = [taken, ...state.next];
  fill();
});

at("clear").addEventListener("click", () => {
  Object.assign(state, { messages: [], next: [], attack: [] });
  at("system").value = "";
  fill();
});

at("keep").addEventListener("click", () =>
  working(at("keep"), "Keeping the note…", async () => {
    const told = await call("note", {
      who: at("who").value,
      area: at("area").value,
      family: at("family").value,
      severity: at("severity").value,
      succeeded: at("succeeded").checked,
      text: at("text").value,
      refusal: at("refusal").value,
      messages: state.messages.length ? whole() : [],
    });
    notes(told.notes);
    at("text").value = "";
    at("refusal").value = "";
    at("succeeded").checked = false;
    return "The note is kept.";
  }),
);

call("start").then(
  (told) => {
    Object.assign(state, { areas: told.areas, families: told.families });
    at("model").textContent = told.model;
    at("area").replaceChildren(...Object.entries(told.areas).map(([name, title]) => option(name, title)));
    at("family").replaceChildren(...told.families.map((one) => option(one.name, one.title)));
    at("severity").replaceChildren(...told.severities.map((name) => option(name, name)));
    const groups = told.families.map((one) => {
      const group = document.createElement("optgroup");
      group.label = one.title;
      group.append(...one.operators.map((name) => option(name, name)));
      return group;
    });
    at("operators").replaceChildren(...groups);
    notes(told.notes);
    draw();
  },
  (error) => say(error.message, true),
);
