// A list of any length in the window's own scrolling: only the rows in sight exist.

const TALLEST = 8e6; // pixels; browsers cannot draw much taller elements
const SPARE = 8; // rows beyond the edge

/** place: the element the rows go in; its style gives --row, a row's height. render: a row's element by its number. */
export class List {
  constructor(place, render) {
    this.place = place;
    this.render = render;
    this.count = 0;
    this.shown = new Map();
    this.asked = 0;
    this.listen = () => { this.asked ||= requestAnimationFrame(() => this.draw()); };
    addEventListener("scroll", this.listen, { passive: true });
    addEventListener("resize", this.listen);
  }

  close() {
    removeEventListener("scroll", this.listen);
    removeEventListener("resize", this.listen);
    cancelAnimationFrame(this.asked);
  }

  /** Other rows, or other contents of them. */
  reset(count) {
    this.count = count;
    this.shown.forEach((element) => element.remove());
    this.shown.clear();
    this.draw();
  }

  draw() {
    this.asked = 0;
    const row = parseFloat(getComputedStyle(this.place).getPropertyValue("--row")) || 36;
    const full = this.count * row;
    const tall = Math.min(full, TALLEST);
    this.place.style.height = `${tall}px`;
    const seen = innerHeight;
    const top = Math.min(Math.max(-this.place.getBoundingClientRect().top, 0), tall);
    // In a list taller than can be drawn, the whole range is mapped on what can.
    const shift = full > tall ? (top / Math.max(tall - seen, 1)) * (full - seen) - top : 0;
    const first = Math.max(0, Math.floor((top + shift) / row) - SPARE);
    const last = Math.min(this.count, Math.ceil((top + shift + seen) / row) + SPARE);
    for (const [number, element] of this.shown) {
      if (number < first || number >= last) {
        element.remove();
        this.shown.delete(number);
      }
    }
    for (let number = first; number < last; number++) {
      let element = this.shown.get(number);
      if (!element) {
        element = this.render(number);
        this.shown.set(number, element);
        this.place.append(element);
      }
      element.style.transform = `translateY(${number * row - shift}px)`;
    }
  }

  /** Bring a row in sight and give it the focus. */
  focus(number) {
    if (number < 0 || number >= this.count) return;
    const row = parseFloat(getComputedStyle(this.place).getPropertyValue("--row")) || 36;
    const full = this.count * row;
    const tall = Math.min(full, TALLEST);
    const box = this.place.getBoundingClientRect();
    const at = full > tall ? (number / this.count) * tall : number * row;
    const y = box.top + at;
    if (y < 160 || y > innerHeight - 2 * row) scrollTo({ top: scrollY + y - innerHeight / 2, behavior: "instant" });
    this.draw();
    this.shown.get(number)?.focus({ preventScroll: true });
  }
}
