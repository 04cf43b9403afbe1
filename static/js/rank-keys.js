/* Keys of the ranking sheet.

   a to i   take a reply in hand; one that has no place gets the next one, so letters alone give the order: c a d b
   1 to 9   the place of the reply in hand
   =        between two letters both get the same place (d a = c b); otherwise the reply in hand ties with the one before it
   0        none is good      x  flag      w  edit the one in hand, or the best      u  undo      s  skip      ?  all keys
   Enter    submit (in text: Ctrl+Enter, see enter.js)

   One-letter keys are silent in text fields, while something lies on top of the page, and with data-keys="off" on the form
   or on <html> (a setting of the person, see settings.js). */

const TEXT = "textarea, select, [contenteditable], input:not([type=radio], [type=checkbox], [type=submit], [type=button])";
const PRESSABLE = "button, a[href], summary, [role=button]";

export function keysAreOn(form) {
  return form.dataset.keys !== "off" && document.documentElement.dataset.keys !== "off";
}

function somethingLiesOnTop() {
  return Boolean(document.querySelector("dialog[open], [popover]:popover-open"));
}

function press(selector, root = document) {
  root?.querySelector(selector)?.click();
}

/* What the letter just pressed did, so that a number may correct it and a flag may take it back. */
let fresh = null;

function takeLetter(sheet, letter) {
  const row = sheet.row(letter);
  if (row.state === "ready" && !row.place) {
    const tied = sheet.tying && sheet.row(sheet.tying)?.place;
    sheet.tying = "";
    if (tied) sheet.put(row, tied);
    else sheet.putLast(row);
    fresh = letter;
  } else {
    sheet.tying = "";
    fresh = null;
  }
  sheet.take(letter, { focus: true });
  sheet.refresh();
}

function placeAt(sheet, place) {
  const row = sheet.row(sheet.inHand);
  if (!row) return;
  sheet.put(row, place, { amend: fresh === row.letter });
  fresh = null;
  sheet.take(row.letter, { focus: true });
}

function tie(sheet) {
  const row = sheet.row(sheet.inHand);
  if (!row?.place) return;
  const more = sheet.ready.some((other) => !other.place);
  if (fresh === row.letter && more) {
    sheet.tying = row.letter;
    return sheet.refresh();
  }
  const flat = sheet.groups.flat();
  const better = sheet.ready.filter((other) => other.place < row.place && other.place > 0);
  const before = better.sort((a, b) => b.place - a.place)[0];
  if (before && flat.length > 1) sheet.put(row, before.place);
  fresh = null;
}

/* The first letter of all, pressed only to point at a reply, should not have placed it. */
function pointOnly(sheet) {
  if (fresh && fresh === sheet.inHand && sheet.groups.flat().length === 1) sheet.undo();
  fresh = null;
}

function flag(sheet) {
  pointOnly(sheet);
  sheet.row(sheet.inHand)?.flag?.click();
}

function edit(sheet) {
  pointOnly(sheet);
  const letter = sheet.inHand || sheet.groups[0]?.[0];
  press("[data-edit]", sheet.row(letter)?.element);
}

function undo(sheet) {
  fresh = null;
  sheet.tying = "";
  if (!sheet.undo()) press("[data-undo]");
  sheet.refresh();
}

const ACTIONS = {
  0: (sheet) => sheet.allBad?.click(),
  "=": tie,
  x: flag,
  w: edit,
  u: undo,
  s: () => press("[data-skip]"),
  "?": () => press("[data-all-keys]"),
};

/* True when the key meant something here. */
function act(sheet, key) {
  const letter = key.toUpperCase();
  if (/^[A-I]$/.test(letter) && sheet.row(letter)) takeLetter(sheet, letter);
  else if (/^[1-9]$/.test(key)) placeAt(sheet, Number(key));
  else if (ACTIONS[key.toLowerCase()]) {
    if (key !== "=") sheet.tying = "";
    ACTIONS[key.toLowerCase()](sheet);
  } else return false;
  return true;
}

function onKey(sheet, event) {
  if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches?.(TEXT) || somethingLiesOnTop()) return;
  if (event.key === "Enter") {
    if (event.target.closest?.(PRESSABLE)) return;
    event.preventDefault();
    sheet.form.requestSubmit(sheet.submitButton);
  } else if (!event.repeat && keysAreOn(sheet.form) && act(sheet, event.key)) event.preventDefault();
}

export function enableKeys(currentSheet) {
  document.addEventListener("keydown", (event) => {
    const sheet = currentSheet();
    if (sheet) onKey(sheet, event);
  });
  document.addEventListener("change", (event) => {
    if (event.isTrusted) fresh = null;
  });
}
