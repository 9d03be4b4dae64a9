// The message box: text that survives a reload, images with what they cost, sending and stopping.

import { call } from "./api.js";
import { announce, button, find, h, icon, number, plural, recall, redraw, remember } from "./dom.js";
import { cost } from "./message.js";

const text = find("text"), pictures = find("pictures"), count = find("count"), send = find("send"), wrong = find("wrong");
const file = find("file"), attach = find("attach"), drop = find("drop");
const KINDS = /^image\/(png|jpeg|webp|gif)$/, MOST_BYTES = 20_000_000, MOST_LETTERS = 100_000, CHARACTERS = 4; // a token, in English text
const touch = matchMedia("(pointer: coarse)");
let images = [], writing = false, busy = false, readsImages = true, why = "", place = "new", on = null;

// handlers: {send({text, images}) → promise of whether it was taken, stop(), editLast()}
export function start(handlers) {
  on = handlers;
  find("say").addEventListener("submit", (event) => (event.preventDefault(), writing ? on.stop() : submit()));
  text.addEventListener("input", changed);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !(touch.matches && !event.ctrlKey)) {
      event.preventDefault();
      if (!writing) submit();
    } else if (event.key === "ArrowUp" && !text.value) {
      event.preventDefault();
      on.editLast();
    }
  });
  text.addEventListener("paste", (event) => {
    const found = [...event.clipboardData.files].filter((one) => KINDS.test(one.type));
    if (!found.length) return;
    event.preventDefault();
    found.forEach(add);
  });
  attach.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    [...file.files].forEach(add);
    file.value = "";
  });
  dropping();
  if (!CSS.supports("field-sizing", "content")) text.addEventListener("input", grow);
}

// Browsers that do not size a field by its text.
function grow() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function dropping() {
  let inside = 0;
  const holds = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => holds(event) && (inside++, (drop.hidden = false)));
  addEventListener("dragleave", (event) => holds(event) && --inside <= 0 && ((inside = 0), (drop.hidden = true)));
  addEventListener("dragover", (event) => holds(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    inside = 0;
    drop.hidden = true;
    const found = [...event.dataTransfer.files];
    found.filter((one) => KINDS.test(one.type)).forEach(add);
    if (found.some((one) => !KINDS.test(one.type))) fail("Only PNG, JPEG, WebP and GIF images can be attached.");
    text.focus();
  });
}

function add(chosen) {
  if (!readsImages) return fail(why);
  const name = chosen.name || "image";
  if (!KINDS.test(chosen.type)) return fail(`${name} is not a PNG, JPEG, WebP or GIF image.`);
  if (chosen.size > MOST_BYTES) return fail(`${name} is larger than 20 MB.`);
  const address = URL.createObjectURL(chosen);
  const told = h("span", { class: "cost" }, "Uploading …");
  const one = { id: null, tokens: 0, address };
  one.row = h("li", { class: "loading" }, h("img", { src: address, alt: "" }), h("span", { class: "name", dir: "auto" }, name), told,
    button("close", `Remove ${name}`, { onclick: () => (take(one), text.focus()) }));
  images.push(one);
  pictures.append(one.row);
  wrong.hidden = true;
  one.ready = call("POST", `images?name=${encodeURIComponent(name)}`, chosen).then(
    (image) => {
      Object.assign(one, { id: image.id, tokens: image.tokens ?? 0 });
      one.row.classList.remove("loading");
      told.textContent = cost(image);
      announce(`${name} is attached: ${cost(image)}`);
    },
    (error) => {
      take(one);
      fail(`${name}: ${error.message}`);
    },
  ).finally(changed);
  changed();
}

function take(one) {
  images = images.filter((other) => other !== one);
  URL.revokeObjectURL(one.address);
  one.row.remove();
  changed();
}

export function fail(message) {
  wrong.replaceChildren(icon("warn"), h("span", {}, message));
  wrong.hidden = false;
}

function changed() {
  pictures.hidden = !images.length;
  const used = images.reduce((sum, one) => sum + one.tokens, 0), letters = text.value.length;
  const parts = [];
  if (letters) parts.push(`≈ ${plural(Math.max(1, Math.round(letters / CHARACTERS)), "token")}`);
  if (used) parts.push(`${number.format(used)} for ${plural(images.length, "image")}`);
  count.textContent = parts.join(" + ");
  if (!writing) send.disabled = busy || (!text.value.trim() && !images.length) || images.some((one) => !one.id);
  remember(`draft-${place}`, text.value || null, sessionStorage);
}

async function submit() {
  if (send.disabled) return;
  const letters = [...text.value.trim()].length;
  if (letters > MOST_LETTERS) return fail(`That is ${number.format(letters)} characters; a message has at most ${number.format(MOST_LETTERS)}.`);
  const said = { text: text.value.trim(), images: images.map((one) => one.id) }, sent = images;
  busy = true;
  wrong.hidden = true;
  changed();
  const was = text.value, at = place;
  try {
    await on.send(said);
    remember(`draft-${at}`, null, sessionStorage);
    if (text.value === was) text.value = "";
    sent.forEach(take);
    text.dispatchEvent(new Event("input"));
  } catch (error) {
    fail(error.message);
  } finally {
    busy = false;
    changed();
  }
  if (!touch.matches) text.focus();
}

// Another conversation is opened: its own draft comes back.
export function moveTo(conversation) {
  place = conversation ?? "new";
  images.forEach(take);
  wrong.hidden = true;
  text.value = recall(`draft-${place}`, sessionStorage) ?? "";
  text.dispatchEvent(new Event("input"));
  if (!touch.matches) text.focus();
}

// A conversation that was begun here keeps its box as it is.
export const rename = (conversation) => (place = conversation);

export function forget() {
  text.value = "";
  try {
    sessionStorage.clear();
  } catch {
    // Then no draft was kept either.
  }
}

export function fill(words) {
  text.value = words;
  text.dispatchEvent(new Event("input"));
  text.focus();
}

export function setWriting(now) {
  if (now === writing) return;
  writing = now;
  redraw(send, now ? "stop" : "send", now ? "Stop" : "Send");
  send.classList.toggle("stop", now);
  if (now) send.disabled = false;
  changed();
}

// barred: the model would read them, but the account's tier does not send any.
export function setReads(reads, barred) {
  readsImages = reads;
  attach.disabled = !reads;
  why = barred ? "Your tier sends no images. Whoever runs this server can allow them." : "This model reads no images. Choose another one above.";
  attach.title = reads ? "Attach images" : why;
}
