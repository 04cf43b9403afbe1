/* Seconds the page was in view, into <input type="hidden" name="seconds" data-inview value="0">. Counts on from the value it
   finds, so a reload adds up; stands still while another tab or window covers the page. */

let since = document.visibilityState === "visible" ? performance.now() : 0;

function count() {
  if (!since) return;
  const now = performance.now();
  for (const field of document.querySelectorAll("input[data-inview]")) {
    field.value = (Number(field.value || 0) + (now - since) / 1000).toFixed(1);
  }
  since = now;
}

document.addEventListener("visibilitychange", () => {
  count();
  since = document.visibilityState === "visible" ? performance.now() : 0;
});
document.addEventListener("submit", count, true);
setInterval(count, 1000);
