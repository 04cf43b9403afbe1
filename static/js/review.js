/* Where somebody reviews a reply, form[data-review]: the radios' own letters choose (data-key), Enter submits (in text:
   Ctrl+Enter, enter.js), and only what belongs to the choice is shown, [data-for].

   Letters are silent in text, while something lies on top of the page, and with data-keys="off" on <html>. Without a script
   the same form shows everything and posts the same values. */

const TEXT = "textarea, select, input:not([type=radio])";
const PRESSABLE = "button, a[href], summary";

const formNow = () => document.querySelector("form[data-review]");
const chosen = () => formNow()?.querySelector("[name=verdict]:checked")?.value;

/* What is missing before this can be sent, in few words, or nothing. */
function reason() {
  if (!chosen()) return "when you have chosen";
  const needs = { sent_back: ["reason", "with a reason"], edited: ["content", "with a text"] }[chosen()];
  return needs && !formNow().elements[needs[0]].value.trim() ? needs[1] : "";
}

function refresh() {
  for (const part of document.querySelectorAll("form[data-review] [data-for]")) part.hidden = part.dataset.for !== chosen();
  const button = document.querySelector("[data-submit][form=review]");
  if (!button || button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-disabled", String(Boolean(reason())));
  button.querySelector("[data-reason]").textContent = reason();
}

function choose(key) {
  const field = formNow()?.querySelector(`[name=verdict][data-key="${CSS.escape(key)}"]`);
  if (!field) return false;
  field.checked = true;
  field.dispatchEvent(new Event("change", { bubbles: true }));
  (formNow().querySelector("[data-for]:not([hidden]) textarea") || field).focus();
  return true;
}

function onKey(event) {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (document.querySelector("dialog[open], [popover]:popover-open") || event.target.matches?.(TEXT)) return;
  if (event.key === "Enter") {
    if (!formNow() || event.target.closest?.(PRESSABLE)) return;
    event.preventDefault();
    formNow().requestSubmit(document.querySelector("[data-submit][form=review]"));
  } else if (document.documentElement.dataset.keys !== "off" && choose(event.key)) {
    event.preventDefault();
  }
}

/* Holds back a review that cannot be taken yet, and leads to what is missing. */
function guard(event) {
  if (event.target !== formNow() || !reason()) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const form = formNow();
  (form.querySelector("[data-for]:not([hidden]) textarea") || form.querySelector("[name=verdict]"))?.focus();
}

document.addEventListener("keydown", onKey, true);
document.addEventListener("submit", guard, true);
for (const name of ["input", "change", "htmx:afterSettle", "nestbox:restored"]) document.addEventListener(name, refresh);
if (matchMedia("(width < 48em)").matches) {
  for (const details of document.querySelectorAll("details[data-folds]")) details.open = false;
}
refresh();
