// The table of runs: filtered by words, sorted by a column.

import { h } from "./dom.js";

export function start(main) {
  const table = main.querySelector("table.runs");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const status = h("span", { class: "soft", role: "status" });
  const box = h("input", { type: "search", placeholder: "Filter by eval, model, date", "aria-label": "Filter runs" });
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const told = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => told.includes(word));
      if (!row.hidden) shown++;
    }
    status.textContent = words.length ? `${shown} of ${rows.length}` : "";
  });
  table.parentElement.before(h("div", { class: "tools", role: "search" }, box, status));
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = h("button", { type: "button", class: "sort", onclick: () => sort(column) }, head.textContent);
    head.replaceChildren(button);
  }
  const sort = (column) => {
    const head = table.tHead.rows[0].cells[column];
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const order = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? compare(key(a), key(b)) : key(a) - key(b));
    rows.sort((a, b) => (down ? order(b, a) : order(a, b)));
    body.append(...rows);
  };
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest?.("input")) {
      event.preventDefault();
      box.focus();
    }
  });
}
