/* Drags the letters of the order sentence, with mouse, pen or finger: onto a letter to tie with it, beside one to stand
   there, onto a letter without a place to lose one's own. Far above or below, or Escape, gives up. A tap takes the reply in hand.
   Rows never move: only the sentence does. Whoever does not drag has the places and the keys. */

import { moved } from "./order.js";

const FAR_PX = 90;
const START_PX = 4;

/* Where the pointer is among the other letters: {tie}, {before}, {after}, {unplace: true}, or {} for the end; null: nowhere. */
function whereAt(line, dragged, x, y) {
  const box = line.getBoundingClientRect();
  if (y < box.top - FAR_PX || y > box.bottom + FAR_PX) return null;
  const others = [...line.querySelectorAll(".token")].filter((token) => token !== dragged);
  const over = others.find((token) => token.matches(".unplaced") && isInside(token.getBoundingClientRect(), x, y));
  if (over && !dragged.matches(".unplaced")) return { unplace: true };
  const placed = others.filter((token) => !token.matches(".unplaced"));
  return placed.length ? besideNearest(placed, x, y) : {};
}

function isInside(box, x, y) {
  return x >= box.left && x <= box.right && y >= box.top - 8 && y <= box.bottom + 8;
}

function besideNearest(tokens, x, y) {
  const middles = tokens.map((token) => {
    const box = token.getBoundingClientRect();
    return { letter: token.dataset.token, x: box.left + box.width / 2, y: box.top + box.height / 2, half: box.width / 2 };
  });
  const lineY = middles.reduce((a, b) => (Math.abs(b.y - y) < Math.abs(a.y - y) ? b : a)).y;
  const onLine = middles.filter((middle) => Math.abs(middle.y - lineY) < 4);
  const nearest = onLine.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
  if (Math.abs(nearest.x - x) <= nearest.half) return { tie: nearest.letter };
  return x < nearest.x ? { before: nearest.letter } : { after: nearest.letter };
}

function mark(line, where) {
  for (const token of line.querySelectorAll(".token")) {
    const letter = token.dataset.token;
    token.classList.toggle("ties", where?.tie === letter);
    token.classList.toggle("drop-before", where?.before === letter);
    token.classList.toggle("drop-after", where?.after === letter);
  }
}

/* Between two that tie already there is nothing but the tie. */
function settled(groups, where) {
  const beside = where?.before || where?.after;
  const group = groups.find((letters) => letters.includes(beside));
  if (!group || group.length < 2) return where;
  const edge = where.before ? group[0] : group.at(-1);
  return beside === edge ? where : { tie: beside };
}

class Drag {
  constructor(sheet, token, event) {
    Object.assign(this, { sheet, token, id: event.pointerId, x: event.clientX, y: event.clientY, where: null, began: false });
    this.line = token.closest("[data-order]");
    token.setPointerCapture(event.pointerId);
  }

  get others() {
    const letter = this.token.dataset.token;
    return this.sheet.groups.map((group) => group.filter((other) => other !== letter)).filter((group) => group.length);
  }

  move(event) {
    const dx = event.clientX - this.x;
    const dy = event.clientY - this.y;
    if (!this.began && Math.hypot(dx, dy) < START_PX) return;
    this.began = this.sheet.dragging = true;
    this.token.classList.add("dragged");
    this.token.style.transform = `translate(${dx}px, ${dy}px)`;
    this.where = settled(this.others, whereAt(this.line, this.token, event.clientX, event.clientY));
    mark(this.line, this.where);
  }

  end({ drop }) {
    const letter = this.token.dataset.token;
    this.sheet.dragging = false;
    if (!this.began) this.sheet.take(letter, { focus: true });
    else if (drop && this.where?.unplace) this.sheet.arrange(this.others);
    else if (drop && this.where) this.sheet.arrange(moved(this.sheet.groups, letter, this.where));
    if (this.began && drop && this.where) this.sheet.take(letter);
    this.sheet.refresh();
  }
}

export function enableDrag(currentSheet) {
  let drag = null;
  const finish = (drop) => {
    const ended = drag;
    drag = null;
    ended?.end({ drop });
  };
  document.addEventListener("pointerdown", (event) => {
    const token = event.target.closest?.("form[data-rank] [data-token]");
    if (!token || drag || event.button !== 0) return;
    event.preventDefault();
    drag = new Drag(currentSheet(), token, event);
  });
  document.addEventListener("pointermove", (event) => {
    if (event.pointerId === drag?.id) drag.move(event);
  });
  document.addEventListener("pointerup", (event) => {
    if (event.pointerId === drag?.id) finish(true);
  });
  document.addEventListener("pointercancel", (event) => {
    if (event.pointerId === drag?.id) finish(false);
  });
  /* Or else a quick drag leaves a fling behind, which takes the next tap for its own end. */
  document.addEventListener("touchmove", (event) => drag && event.preventDefault(), { passive: false });
  document.addEventListener("keydown", (event) => {
    if (drag && event.key === "Escape") finish(false);
  });
}
