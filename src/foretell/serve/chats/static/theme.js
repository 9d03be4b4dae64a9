// Runs before anything is drawn. Without a choice the page follows the system.
try {
  const chosen = localStorage.getItem("foretell-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  if (localStorage.getItem("foretell-side") === "shut") document.documentElement.dataset.side = "shut";
} catch {
  // Storage may be forbidden; then there is nothing to remember.
}
