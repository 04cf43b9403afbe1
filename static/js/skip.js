/* The form that skips asks for a reason before it is sent: one of the radios, unless there are words of one's own. The
   server asks too, but then the popover is gone. */

const form = document.querySelector("#skip form");

function ask() {
  const hasWords = form.elements.words.value.trim() !== "";
  for (const reason of form.elements.reason) reason.required = !hasWords;
}

if (form) {
  form.addEventListener("input", ask);
  ask();
}
