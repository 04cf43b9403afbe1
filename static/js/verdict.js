/* A verdict on whether a rule was broken: form[data-verdict], and the marks on the model's turns, radios turn_position.

   1 to 5  a step      k  this turn broke it: the one that has the focus, else the last; again takes the mark off
   v       end the chat, and say how it went ([data-end])      u  undo      Enter  submit (in text: Ctrl+Enter, enter.js)

   One-letter keys are silent in text, while something lies on top of the page, with data-keys="off" on <html>, and where
   replies are ranked (rank-keys.js has the keys there). [data-show] uncovers what is veiled beside it; details[data-folds]
   start folded on a phone. Without a script the same forms post the same values. */

const TEXT = "textarea, select, input:not([type=radio], [type=checkbox], [type=submit], [type=button])";
const PRESSABLE = "button, a[href], summary";

const formNow = () => document.querySelector("form[data-verdict]");
const marks = () => [...document.querySelectorAll("input[name=turn_position]")];
const choices = () => [...marks(), ...document.querySelectorAll("form[data-verdict] :is([name=verdict], [name=tactics])")];
const snapshot = () => choices().map((field) => field.checked);

let past = [];
let current = snapshot();

function changed(field) {
  field.dispatchEvent(new Event("change", { bubbles: true }));
}

function set(field, isChecked) {
  field.checked = isChecked;
  changed(field);
}

/* What is missing before this can be sent, in few words, or nothing. */
function reason() {
  const verdict = formNow()?.querySelector("[name=verdict]:checked")?.value;
  if (!verdict) return "when a step is chosen";
  const isBroken = Number(verdict) <= 2 && "needsMark" in formNow().dataset;
  return isBroken && !marks().some((mark) => mark.checked) ? "when the turn is marked" : "";
}

function refresh() {
  const button = document.querySelector("[data-submit][form=verdict]");
  if (!button || button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-disabled", String(Boolean(reason())));
  button.querySelector("[data-reason]").textContent = reason();
}

function mark() {
  const turn = document.activeElement?.closest(".turn");
  const field = turn?.querySelector("[name=turn_position]") || marks().at(-1);
  if (!field) return false;
  set(field, !field.checked);
  field.focus();
  return true;
}

function undo() {
  const before = past.pop();
  if (!before) return false;
  const fields = choices();
  fields.forEach((field, at) => (field.checked = before[at]));
  current = snapshot();
  if (fields.length) changed(fields[0]);
  return true;
}

function step(number) {
  const field = formNow()?.querySelector(`[name=verdict][value="${number}"]`);
  if (!field) return false;
  set(field, true);
  field.focus();
  return true;
}

function press(selector) {
  const button = document.querySelector(selector);
  button?.click();
  return Boolean(button);
}

function act(key) {
  if (/^[1-5]$/.test(key)) return step(key);
  return { k: mark, u: undo, v: () => press("[data-end]") }[key]?.() || false;
}

function onKey(event) {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (document.querySelector("form[data-rank], dialog[open], [popover]:popover-open")) return;
  if (event.target.matches?.(TEXT)) return;
  if (event.key === "Enter") {
    if (!formNow() || event.target.closest?.(PRESSABLE)) return;
    event.preventDefault();
    formNow().requestSubmit(document.querySelector("[data-submit][form=verdict]"));
  } else if (document.documentElement.dataset.keys !== "off" && act(event.key)) {
    event.preventDefault();
    event.stopImmediatePropagation(); // chat-keys.js has an undo too
  }
}

/* Holds back a verdict that cannot be taken yet, and leads to what is missing. */
function guard(event) {
  if (event.target !== formNow() || (event.submitter && !event.submitter.matches("[data-submit]")) || !reason()) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const missing = formNow().querySelector("[name=verdict]:checked") ? marks().at(-1) : formNow().querySelector("[name=verdict]");
  missing?.focus();
}

function show(button) {
  const place = button.closest(".turn, .spoken");
  for (const text of place.querySelectorAll(".veiled")) {
    text.classList.remove("veiled");
    text.removeAttribute("aria-hidden");
  }
  const first = place.querySelector(".said");
  first.tabIndex = -1;
  first.focus();
  for (const field of document.querySelectorAll("form[data-draft-url] [name=shown]")) {
    field.value = button.value; // kept with the draft: it need not be uncovered twice
    changed(field);
  }
  button.form.remove();
}

/* A mark that is pressed again comes off, which radios do not do by themselves. */
let pressed = null;
document.addEventListener("pointerdown", ({ target }) => {
  const field = target.closest?.(".turn .pick")?.querySelector("input");
  pressed = field?.checked ? field : null;
});
document.addEventListener("click", (event) => {
  if (event.target === pressed) set(event.target, false);
  if (event.target === pressed) pressed = null;
  const button = event.target.closest?.("[data-show]");
  if (!button) return;
  event.preventDefault();
  show(button);
});
document.addEventListener("change", ({ target }) => {
  if (!choices().includes(target)) return;
  const now = snapshot();
  if (String(now) !== String(current)) past.push(current);
  current = now;
  refresh();
});
document.addEventListener("keydown", onKey, true);
document.addEventListener("submit", guard, true);
for (const name of ["htmx:afterSettle", "nestbox:restored"]) {
  document.addEventListener(name, () => {
    past = [];
    current = snapshot();
    refresh();
  });
}
if (matchMedia("(width < 48em)").matches) {
  for (const details of document.querySelectorAll("details[data-folds]")) details.open = false;
}
refresh();
