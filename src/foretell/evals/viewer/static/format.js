// Numbers as people read them.

export const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en").replace("-", "−");
  return value.toLocaleString("en", { maximumSignificantDigits: digits }).replace("-", "−");
}

/** A share, or a mean, to three places. */
export const score = (value) => (value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(3).replace("-", "−"));

export const signed = (value) => (value > 0 ? "+" : "") + score(value);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

/** A time in UTC, to the minute. */
export const date = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : "–");
