/* The ranking sheet: shows the order as a sentence, names ties, says when Submit can act, undoes, and hands keys and drag
   to their own modules (rank-keys.js, rank-drag.js). Load this one: <script type="module" src="js/rank.js">.

   Without a script the same form posts the same values.

   <form id="rank" class="sheet" method="post" data-rank data-places="4">      data-keys="off": one-letter keys stay silent
     <header class="sheet-head">
       <h2>Which reply is best?</h2>
       <p class="order" data-order>Give each reply a place; equal places tie.</p>      rewritten; its letters can be dragged
       <div class="places-head" aria-hidden="true"><span>best</span><span>last</span></div>
       <span class="sr" role="status" data-order-said></span>                          the same, for a screen reader
     </header>
     <div class="candidates">
       <section class="candidate" id="candidate-17" data-candidate="17" data-letter="A" data-state="ready" aria-label="Reply A">
         <span class="letter" aria-hidden="true">A</span>
         <div class="reply">Let the soil tell you …</div>
         <fieldset class="places"><legend class="sr">Place of reply A</legend>
           <label class="place"><input type="radio" name="rank-17" value="1"><span>1</span></label> … up to K
         </fieldset>
         <p class="tie" data-tie></p>
         <div class="tools">
           <label class="tool"><input class="sr" type="checkbox" name="flag-17">{% icon "flag" %}
             <span class="off">Flag</span><span class="on">Flagged</span></label>
           <a class="tool" data-edit href="…">{% icon "pencil" %} Edit</a>                            may be missing
         </div>
         <div class="note">…</div>                                                                    may be missing
       </section>
       … data-state="waiting": radios disabled, no tools, instead of .reply
         <p class="being"><b>Being written</b> · <span data-elapsed="3">3 s</span> · 3 ahead of you</p>
         <div class="lines" aria-hidden="true"><i></i><i></i><i></i></div>
       … data-state="failed": radios disabled, no tools, instead of .reply
         <div class="failure"><p>{% icon "cross" %} The model did not answer in 60 s.</p><div class="row">buttons</div></div>
     </div>
   </form>
   In the bar, or anywhere with form="rank":
     <label class="button bare toggle"><input class="sr" type="checkbox" name="all_bad" value="1"><kbd>0</kbd> None is good</label>
     <fieldset class="scale"><legend>How clear is the best?</legend>a hair <label><input type="radio" name="strength" value="1"
       aria-label="1 of 4, a hair"></label> … by far</fieldset>
     <button class="button bare" data-skip popovertarget="skip"><kbd>s</kbd> <span class="label">Skip</span></button>
     <button class="button main large" data-submit><span class="two"><span class="label">Submit</span><small data-reason></small></span>
       <kbd>{% icon "enter" %}</kbd></button>
   And anywhere: [data-all-keys] is pressed by "?", [data-undo] by "u" when there is nothing left to undo on the sheet.

   A row may be swapped at any time (htmx); ready rows keep their places if only waiting rows are swapped. */

import { groupsOf, listed, placesOf, said } from "./order.js";
import { enableDrag } from "./rank-drag.js";
import { enableKeys } from "./rank-keys.js";

const isOrAre = (letters) => (letters.length > 1 ? "are" : "is");

class Row {
  constructor(element) {
    this.element = element;
    this.id = element.dataset.candidate;
    this.letter = element.dataset.letter;
    this.state = element.dataset.state || "ready";
  }

  get radios() {
    return [...this.element.querySelectorAll(`input[name="rank-${this.id}"]`)];
  }

  get place() {
    return Number(this.radios.find((radio) => radio.checked)?.value || 0);
  }

  set place(place) {
    for (const radio of this.radios) radio.checked = Number(radio.value) === place;
  }

  get flag() {
    return this.element.querySelector(`input[name="flag-${this.id}"]`);
  }
}

export class Sheet {
  constructor(form) {
    this.form = form;
    this.inHand = "";
    this.history = [];
    this.states = new Map();
    this.current = this.snapshot();
    this.refresh();
  }

  /* Reading */

  get rows() {
    return [...this.form.querySelectorAll("[data-candidate]")].map((element) => new Row(element));
  }

  get ready() {
    return this.rows.filter((row) => row.state === "ready");
  }

  get groups() {
    return groupsOf(this.ready);
  }

  get nextPlace() {
    return this.groups.flat().length + 1;
  }

  row(letter) {
    return this.rows.find((row) => row.letter === letter);
  }

  get allBad() {
    return [...this.form.elements].find((field) => field.name === "all_bad" && field.type === "checkbox");
  }

  get submitButton() {
    return [...this.form.elements].find((field) => field.matches("[data-submit]"));
  }

  /** Why Submit cannot act yet, in few words, or nothing. */
  get reason() {
    const waiting = this.rows.filter((row) => row.state === "waiting").map((row) => row.letter);
    const failed = this.rows.filter((row) => row.state === "failed").map((row) => row.letter);
    if (failed.length) return failed.length > 2 ? "replies did not come" : `${listed(failed)} did not come`;
    if (waiting.length) return waiting.length > 2 ? "when all are here" : `when ${listed(waiting)} ${isOrAre(waiting)} here`;
    if (!this.ready.length) return "when a reply is here";
    const unplaced = this.ready.filter((row) => !row.place).map((row) => row.letter);
    if (this.allBad?.checked || !unplaced.length) return "";
    return unplaced.length > 1 ? "when all are placed" : `when ${unplaced[0]} is placed`;
  }

  /* Changing. Every change ends in one "change" event on the form, which drafts listen to as well. */

  changed({ amend = false } = {}) {
    this.amending = amend;
    this.form.dispatchEvent(new Event("change", { bubbles: true }));
    this.amending = false;
  }

  put(row, place, options) {
    if (row.state !== "ready" || !row.radios.some((radio) => Number(radio.value) === place)) return;
    row.place = place;
    this.changed(options);
  }

  /** The place after all others; where somebody stands there already, they move up. */
  putLast(row) {
    const isTaken = this.ready.some((other) => other.place >= this.nextPlace);
    if (isTaken) this.arrange([...this.groups, [row.letter]]);
    else this.put(row, this.nextPlace);
  }

  /** Gives every letter in `groups` its place; a ready reply left out loses its own. */
  arrange(groups) {
    const places = placesOf(groups);
    for (const row of this.ready) row.place = places[row.letter] || 0;
    this.changed();
  }

  take(letter, { focus = false } = {}) {
    this.inHand = letter;
    for (const row of this.rows) row.element.classList.toggle("in-hand", row.letter === letter);
    const row = this.row(letter);
    if (!row || !focus) return;
    row.element.scrollIntoView({ block: "nearest" });
    (row.radios.find((radio) => radio.checked) || row.radios[0])?.focus({ preventScroll: true });
  }

  /* Undo: a snapshot before every change */

  snapshot() {
    const rows = this.rows.map((row) => [row.letter, row.place, Boolean(row.flag?.checked)]);
    return JSON.stringify({ rows, allBad: Boolean(this.allBad?.checked) });
  }

  remember() {
    const now = this.snapshot();
    if (now === this.current) return;
    if (!this.amending) this.history.push(this.current);
    this.current = now;
  }

  /** After a draft was put back: that is where undoing ends. */
  restart() {
    this.history = [];
    this.current = this.snapshot();
    this.refresh();
  }

  /** Takes the last change back; false when there is none. */
  undo() {
    const before = this.history.pop();
    if (!before) return false;
    const { rows, allBad } = JSON.parse(before);
    for (const [letter, place, flagged] of rows) {
      const row = this.row(letter);
      if (!row) continue;
      row.place = place;
      if (row.flag) row.flag.checked = flagged;
    }
    if (this.allBad) this.allBad.checked = allBad;
    this.current = this.snapshot();
    this.changed();
    return true;
  }

  /* Showing */

  refresh() {
    if (this.dragging) return;
    this.showArrivals();
    this.take(this.inHand);
    this.showTies();
    this.showOrder();
    this.showSubmit();
  }

  showArrivals() {
    for (const row of this.rows) {
      if (this.states.get(row.letter) === "waiting" && row.state === "ready") row.element.classList.add("arrives");
      this.states.set(row.letter, row.state);
    }
  }

  showTies() {
    for (const row of this.ready) {
      const others = this.ready.filter((other) => row.place && other.place === row.place && other.letter !== row.letter);
      const label = row.element.querySelector("[data-tie]");
      if (label) label.textContent = others.length ? `tie with ${listed(others.map((other) => other.letter))}` : "";
    }
  }

  showOrder() {
    const line = this.form.querySelector("[data-order]");
    if (!line) return;
    const parts = [];
    if (this.allBad?.checked) parts.push(this.words("None is good · "));
    this.groups.forEach((group, at) => {
      if (at) parts.push(this.between("›"));
      group.forEach((letter, within) => parts.push(...(within ? [this.between("=")] : []), this.token(letter)));
    });
    if (this.tying) parts.push(this.between("="), this.words("…"));
    line.replaceChildren(...parts, ...this.unplacedParts());
    line.setAttribute("aria-hidden", "true");
    this.sayOrder();
  }

  unplacedParts() {
    const parts = [];
    const unplaced = this.ready.filter((row) => !row.place);
    if (unplaced.length) {
      parts.push(this.words(this.nextPlace > 1 ? " · no place yet " : "Drag, or give each a place "));
      for (const row of unplaced) parts.push(this.token(row.letter, "unplaced"), " ");
    }
    const said = this.othersSaid();
    if (said) parts.push(this.words((parts.length || this.nextPlace > 1 ? " · " : "") + said));
    return parts;
  }

  othersSaid() {
    const lettersIn = (state) => this.rows.filter((row) => row.state === state).map((row) => row.letter);
    const waiting = lettersIn("waiting");
    const failed = lettersIn("failed");
    const says = [];
    if (waiting.length) says.push(`${listed(waiting)} ${isOrAre(waiting)} being written`);
    if (failed.length) says.push(`${listed(failed)} did not come`);
    return says.join(" · ");
  }

  words(text) {
    const span = document.createElement("span");
    span.textContent = text;
    return span;
  }

  between(sign) {
    const span = this.words(sign);
    span.className = sign === "=" ? "between equal" : "between";
    return span;
  }

  token(letter, extra = "") {
    const span = this.words(letter);
    span.className = `token ${extra}`;
    span.dataset.token = letter;
    return span;
  }

  sayOrder() {
    const voice = this.form.querySelector("[data-order-said]");
    if (!voice) return;
    const unplaced = this.ready.filter((row) => !row.place).map((row) => row.letter);
    const sentences = [this.allBad?.checked ? "None is good" : "", said(this.groups), this.othersSaid()];
    if (unplaced.length) sentences.push(`${listed(unplaced)} ${unplaced.length > 1 ? "have" : "has"} no place yet`);
    const text = sentences.filter(Boolean).join(". ");
    clearTimeout(this.saying);
    this.saying = setTimeout(() => {
      if (voice.textContent !== text) voice.textContent = text;
    }, 400);
  }

  showSubmit() {
    const button = this.submitButton;
    if (!button || button.getAttribute("aria-busy") === "true") return;
    const reason = this.reason;
    button.setAttribute("aria-disabled", String(Boolean(reason)));
    const line = button.querySelector("[data-reason]");
    if (line && line.textContent !== reason) line.textContent = reason;
  }

  /** Holds back a submit that cannot be taken yet, and a second press while the first is under way. */
  guard(event) {
    const button = this.submitButton;
    if (event.submitter && event.submitter !== button) return;
    const busy = button?.getAttribute("aria-busy") === "true";
    if (!this.reason && !busy) return this.showSaving(button);
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!busy) this.pointToWhatIsMissing();
  }

  pointToWhatIsMissing() {
    this.form.querySelector(".failure button")?.focus();
    const missing = this.ready.find((row) => !row.place);
    if (missing) this.take(missing.letter, { focus: true });
    const voice = this.form.querySelector("[data-order-said]");
    if (voice) voice.textContent = `Submit ${this.reason}`;
  }

  showSaving(button) {
    if (!button) return;
    button.style.minWidth = `${button.offsetWidth}px`;
    button.setAttribute("aria-busy", "true");
    const label = button.querySelector(".label");
    this.label ||= label?.textContent;
    if (label) label.textContent = "Saving";
  }

  showNotSaving() {
    const button = this.submitButton;
    if (button?.getAttribute("aria-busy") !== "true") return;
    button.removeAttribute("aria-busy");
    button.style.minWidth = "";
    const label = button.querySelector(".label");
    if (label) label.textContent = this.label;
    this.showSubmit();
  }
}

/* One sheet object for each form that is on the page; the form may be swapped for another. */
const sheets = new WeakMap();

export function currentSheet() {
  const form = document.querySelector("form[data-rank]");
  if (!form) return null;
  if (!sheets.has(form)) sheets.set(form, new Sheet(form));
  return sheets.get(form);
}

function onChange(event) {
  const sheet = currentSheet();
  const form = event.target.form || event.target;
  if (!sheet || form !== sheet.form) return;
  sheet.remember();
  const row = event.target.closest?.("[data-candidate]");
  if (row) sheet.inHand = row.dataset.letter;
  sheet.refresh();
}

function onTouch(event) {
  const row = event.target.closest?.("form[data-rank] [data-candidate]");
  if (row) currentSheet().take(row.dataset.letter);
}

document.addEventListener("change", onChange);
document.addEventListener("focusin", onTouch);
document.addEventListener("pointerdown", onTouch);
document.addEventListener("htmx:afterSettle", () => currentSheet()?.refresh());
for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError", "nestbox:signed-out"]) {
  document.addEventListener(name, (event) => {
    if (event.detail.elt.matches?.("form[data-rank]")) currentSheet()?.showNotSaving();
  });
}
document.addEventListener("nestbox:restored", () => currentSheet()?.restart());
window.addEventListener("pageshow", () => currentSheet()?.showNotSaving());
document.addEventListener(
  "submit",
  (event) => {
    const sheet = currentSheet();
    if (sheet && event.target === sheet.form) sheet.guard(event);
  },
  true,
);
enableKeys(currentSheet);
enableDrag(currentSheet);
currentSheet();
