// Where the reader is: kept at the end while an answer grows, left alone once they scroll away.

import { find } from "./dom.js";

const scroller = find("scroll"), thread = find("thread"), down = find("down");
const NEAR = 60;
let stuck = true, reach = null;

// early(): called when the beginning of what is shown comes near.
export function start(early) {
  reach = early;
  scroller.addEventListener("scroll", () => {
    stuck = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
    down.hidden = stuck;
    if (scroller.scrollTop < 600) reach();
  }, { passive: true });
  // Scrolling up is meant even where it does not get far before the next words come.
  scroller.addEventListener("wheel", (event) => event.deltaY < 0 && scroller.scrollTop > 0 && (stuck = false), { passive: true });
  down.addEventListener("click", () => {
    toEnd();
    find("text").focus();
  });
  new ResizeObserver(follow).observe(thread);
  new ResizeObserver(follow).observe(scroller);
}

function follow() {
  if (stuck) scroller.scrollTop = scroller.scrollHeight;
  else down.hidden = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
}

export function toEnd() {
  stuck = true;
  down.hidden = true;
  scroller.scrollTop = scroller.scrollHeight;
}

export const isAtEnd = () => stuck;

// Changes what stands above without moving what is being read.
export function holding(element, change) {
  scroller.classList.add("holding");
  const before = element?.getBoundingClientRect().top ?? 0;
  change();
  if (element) scroller.scrollTop += element.getBoundingClientRect().top - before;
  requestAnimationFrame(() => scroller.classList.remove("holding"));
}

export function page(by) {
  scroller.scrollBy({ top: by * scroller.clientHeight * 0.8 });
}
