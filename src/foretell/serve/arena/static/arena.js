// Keys for the buttons, and how long the battle was in sight. Without it the page works, too.

const form = document.getElementById("verdict"), seen = document.getElementById("seen");
const keys = { 1: "1", 2: "2", 0: "0", u: "undo", U: "undo" };
let visible = 0, since = document.hidden ? null : performance.now();

function count() {
  if (since !== null) visible += performance.now() - since;
  since = document.hidden ? null : performance.now();
}

document.addEventListener("visibilitychange", count);
addEventListener("pagehide", count);

form?.addEventListener("submit", (event) => {
  count();
  if (seen) seen.value = (visible / 1000).toFixed(2);
  if (form.dataset.sent) event.preventDefault(); // a second press before the next battle is here
  form.dataset.sent = "yes";
});

// A page that comes back from the browser's history is not the battle that is open now.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target instanceof HTMLInputElement) return;
  const button = form?.querySelector(`button[name=verdict][value="${keys[event.key]}"]`);
  if (button && !form.dataset.sent) {
    event.preventDefault();
    button.click();
  }
});

document.documentElement.dataset.ready = "yes";
