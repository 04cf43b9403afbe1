/* Counts on what the server wrote: <span data-elapsed="3">3 s</span> says 4 s a second later. The number is seconds at the
   moment the element arrived, so the reader's own clock may be wrong. */

const started = new WeakMap();

export function inWords(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

function tick() {
  for (const element of document.querySelectorAll("[data-elapsed]")) {
    if (!started.has(element)) started.set(element, performance.now() - 1000 * Number(element.dataset.elapsed));
    element.textContent = inWords(Math.floor((performance.now() - started.get(element)) / 1000));
  }
}

tick();
setInterval(tick, 1000);
