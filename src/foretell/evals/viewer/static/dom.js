// Elements from plain data. Text is only ever text; what could run or load is refused.

const PICTURE = /^(?:data:image\/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}|images\/[0-9a-f]{32}\.(?:png|jpeg|webp|gif))$/;
const LINK = /^(?:#\/|[\w-]+\.html(?:#\/|$))/;
const ATTRIBUTES = /^(?:class|id|title|type|value|min|max|step|placeholder|for|role|tabindex|open|selected|disabled|name|alt|aria-[a-z]+|data-[a-z]+)$/;

/** An element. attributes: by name; a function under "on" + event listens; `href` stays within the viewer. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (ATTRIBUTES.test(name) || (name === "href" && LINK.test(value))) element.setAttribute(name, value === true ? "" : value);
    else throw new TypeError(`${name} is no attribute of a page`);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An embedded picture; of anything else, what it is in words. */
export function picture(url) {
  if (typeof url !== "string" || !PICTURE.test(url)) {
    return h("span", { class: "blank" }, "image not embedded, not loaded: ", h("code", {}, clip(String(url), 200)));
  }
  const image = h("img", { alt: "image of the prompt" });
  image.loading = "lazy";
  image.src = url;
  return image;
}

export function clip(text, most) {
  return text.length > most ? text.slice(0, most) + "…" : text;
}

const FOLD = 20000;

/** Text as it is, with line breaks; a very long one is folded. marked: shows white space at both ends, on which a match may hang. */
export function prose(text, marked = false) {
  const block = h("div", { class: "prose", dir: null });
  block.dir = "auto";
  const fill = (shown) => {
    if (!marked) return block.replaceChildren(shown);
    const [, before, middle, after] = /^(\s*)([^]*?)(\s*)$/.exec(shown);
    block.replaceChildren(space(before), middle, middle ? space(after) : "");
  };
  if (text === "") return h("div", { class: "prose soft" }, "(empty)");
  if (text.length <= FOLD) {
    fill(text);
    return block;
  }
  fill(text.slice(0, FOLD));
  const more = h("button", { type: "button", onclick: () => { fill(text); more.remove(); } }, `Show all ${text.length.toLocaleString("en")} characters`);
  return h("div", {}, block, more);
}

function space(text) {
  const shown = text.replace(/\n/g, "↵\n").replace(/ /g, "␣").replace(/\t/g, "⇥");
  return text ? h("span", { class: "space", title: "white space" }, shown) : "";
}

/** A value as indented JSON. */
export function json(value) {
  return h("pre", { tabindex: "0" }, prose(typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? ""));
}

export function option(value, label, chosen) {
  return h("option", { value, selected: value === chosen }, label);
}
