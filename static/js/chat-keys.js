/* Keys where a message is written: u presses [data-undo], s presses [data-skip], ? presses [data-all-keys]; Escape leaves
   the text, so that they act. The letters are silent in text fields, while something lies on top of the page, and with
   data-keys="off" on <html>. Where replies are ranked, the ranking sheet has the keys (rank-keys.js). */

const KEYS = { u: "[data-undo]", s: "[data-skip]", "?": "[data-all-keys]" };

function somethingLiesOnTop() {
  return Boolean(document.querySelector("[popover]:popover-open"));
}

function onLetter(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (document.documentElement.dataset.keys === "off" || document.querySelector("form[data-rank]")) return;
  if (event.target.matches("textarea, input, select")) return;
  const button = KEYS[event.key] && document.querySelector(KEYS[event.key]);
  if (!button) return;
  event.preventDefault();
  button.click();
}

document.addEventListener("keydown", (event) => {
  if (somethingLiesOnTop()) return;
  if (event.key === "Escape" && event.target.matches("textarea")) event.target.blur();
  else onLetter(event);
});
