/* One question at a time about one reply: form[data-rate], whose fieldsets [data-question] hold radios or, for flags,
   checkboxes, each with the number key it answers to (data-key).

   1 to 9   choose, and go on to the next question; of flags, mark or unmark      0  of flags: none of these
   Enter    go on, and after the last question submit      u, Backspace  back to the question before

   A question with data-after is asked only where that one got one of data-values; else its value follows and is shown as
   such (data-implied, data-implied-words). What is answered stands in [data-answered], each a way back to its question.
   Numbers and letters are silent in text fields, while something lies on top of the page, and with data-keys="off" on
   <html>. A radio that is changed by its own arrow keys stays in view: only a number key or a pointer goes on. Without a
   script all questions are shown, and the same values are posted. */

const TEXT = "textarea, select, input:not([type=radio], [type=checkbox])";
const PRESSABLE = "button, a[href], summary";
const NONE = "none";
const SUBMIT = "[data-submit][form=rate]";

const formNow = () => document.querySelector("form[data-rate]");
const all = () => [...formNow().querySelectorAll("[data-question]")];
const questionOf = (key) => formNow().querySelector(`[data-question="${CSS.escape(key)}"]`);
const fieldsOf = (question) => [...question.querySelectorAll("input[name^='q-']")];
const chosenIn = (question) => fieldsOf(question).filter((field) => field.checked);
const valueOf = (question) => chosenIn(question)[0]?.value;

let current = ""; // key of the question in view; nothing once all are answered

/* {key: {question, isSettled, value}} of every question in order: what was chosen, or what follows where it is not asked. */
function answers() {
  const found = new Map();
  for (const question of all()) {
    const before = found.get(question.dataset.after);
    const isSettled = Boolean(before?.value) && !question.dataset.values.split(" ").includes(before.value);
    const value = isSettled ? question.dataset.implied : valueOf(question);
    found.set(question.dataset.question, { question, isSettled, value });
  }
  return found;
}

const asked = () => [...answers().values()].filter((answer) => !answer.isSettled);
const open = () => asked().filter((answer) => !answer.value);
const keyOf = (answer) => answer?.question.dataset.question || "";

function wordsOf({ question, isSettled }) {
  if (isSettled) return question.dataset.impliedWords;
  const words = chosenIn(question).map((field) => field.nextElementSibling.cloneNode(true));
  for (const one of words) for (const extra of one.querySelectorAll("kbd, .sr")) extra.remove();
  return words.map((one) => one.textContent.trim()).join(", ");
}

function part(answer) {
  const made = document.createElement(answer.isSettled ? "span" : "button");
  made.className = answer.isSettled ? "chip" : "button small";
  if (!answer.isSettled) Object.assign(made, { type: "button" }).dataset.to = keyOf(answer);
  const [line, value] = [document.createElement("span"), document.createElement("b")];
  value.textContent = wordsOf(answer);
  line.append(`${answer.question.dataset.name}: `, value);
  made.append(line);
  return made;
}

/* What is answered so far, in the order asked. */
function tell() {
  const box = formNow().querySelector("[data-answered]");
  const told = [...answers().values()].filter((answer) => answer.value && keyOf(answer) !== current);
  box.hidden = !told.length;
  box.querySelector(".row").replaceChildren(...told.map(part));
  box.querySelector("h3").textContent = current ? "So far" : "Your answers";
}

function progress() {
  const eggs = document.querySelector("[data-of-questions] .eggs");
  if (!eggs) return;
  const found = [...answers().values()];
  const left = open().length;
  eggs.setAttribute("aria-label", `${found.length - left} of ${found.length} questions answered`);
  found.forEach((answer, at) => {
    const state = keyOf(answer) === current ? "now" : answer.value ? "done" : "todo";
    eggs.children[at]?.setAttribute("class", `egg ${state}`);
    eggs.children[at]?.firstElementChild.setAttribute("href", `#egg-${state}`);
  });
}

function refresh() {
  for (const question of all()) question.hidden = question.dataset.question !== current;
  tell();
  progress();
  const back = document.querySelector("[data-back]");
  if (back) back.disabled = !before();
  const button = document.querySelector(SUBMIT);
  if (!button || button.getAttribute("aria-busy") === "true") return;
  const left = open().length;
  button.setAttribute("aria-disabled", String(left > 0));
  button.querySelector("[data-reason]").textContent = left ? `when ${left} more ${left === 1 ? "is" : "are"} answered` : "";
}

function show(key, { focus = true } = {}) {
  current = key;
  refresh();
  const target = key ? questionOf(key) : formNow().querySelector("[data-answered]");
  if (focus) target.querySelector("[tabindex='-1']").focus({ preventScroll: true });
  target.scrollIntoView({ block: "nearest" });
}

/* The next question without an answer after the one in view, else any, else none: all are answered. */
function goOn() {
  const order = [...answers().keys()];
  const left = open();
  show(keyOf(left.find((answer) => order.indexOf(keyOf(answer)) > order.indexOf(current)) || left[0]));
}

function before() {
  const questions = asked();
  const at = current ? questions.findIndex((answer) => keyOf(answer) === current) : questions.length;
  return questions[at - 1];
}

function back() {
  if (before()) show(keyOf(before()));
  return true;
}

/* None of these, and any of these, rule each other out. */
function settleFlags(field) {
  if (field.type !== "checkbox" || !field.checked) return;
  for (const other of fieldsOf(field.closest("[data-question]"))) {
    if (other !== field && (field.value === NONE || other.value === NONE)) other.checked = false;
  }
}

function choose(key) {
  const field = current && questionOf(current).querySelector(`input[data-key="${key}"]`);
  if (!field) return false;
  field.checked = field.type === "radio" || !field.checked;
  field.dispatchEvent(new Event("change", { bubbles: true }));
  if (field.type === "radio" || (field.value === NONE && field.checked)) goOn();
  return true;
}

function enter() {
  if (!current) formNow().requestSubmit(document.querySelector(SUBMIT));
  else if (valueOf(questionOf(current))) goOn();
}

function onKey(event) {
  if (!formNow() || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (document.querySelector("dialog[open], [popover]:popover-open") || event.target.matches?.(TEXT)) return;
  if (event.key === "Enter") {
    if (event.target.closest?.(PRESSABLE)) return;
    event.preventDefault();
    return enter();
  }
  if (document.documentElement.dataset.keys === "off") return;
  const did = /^[0-9]$/.test(event.key) ? choose(event.key) : event.key === "u" || event.key === "Backspace" ? back() : false;
  if (!did) return;
  event.preventDefault();
  event.stopImmediatePropagation(); // chat-keys.js has an undo too
}

/* Holds back answers that are not complete, and leads to what is missing. */
function guard(event) {
  if (event.target !== formNow() || !open().length) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  show(keyOf(open()[0]));
}

let byPointer = false;
document.addEventListener("pointerdown", () => (byPointer = true));
document.addEventListener("keydown", () => (byPointer = false), true);
document.addEventListener("keydown", onKey, true);
document.addEventListener("submit", guard, true);
document.addEventListener("change", ({ target }) => {
  if (!formNow()?.contains(target) || !target.name?.startsWith("q-")) return;
  settleFlags(target);
  if (byPointer && target.type === "radio" && target.checked) goOn();
  else refresh();
});
document.addEventListener("click", (event) => {
  const to = event.target.closest?.("[data-to]");
  if (to && formNow()?.contains(to)) show(to.dataset.to);
  if (event.target.closest?.("[data-back]")) back();
});

function start() {
  if (formNow()) show(keyOf(open()[0]), { focus: false });
}

for (const name of ["htmx:afterSettle", "nestbox:restored"]) document.addEventListener(name, start);
start();
