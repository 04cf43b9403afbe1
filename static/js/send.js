/* Sends <form data-sends hx-post="…"> without leaving the page, so that a server that does not answer costs no text.

   Sent and taken: the server names the next page, and the button stays as it is until that page is there.
   Refused (409, 422): the server's part takes the place of <main>; htmx moves the focus to what says why.
   Not answered, or answered with an error: the page stays as it was, and the status line says so. Sending again is safe:
   the form carries a key, and the same key is stored once. */

const REASONS = {
  403: "Not sent: this page is too old. Reload it and send again",
  413: "Not sent: this is too much at once. Shorten it",
  429: "Not sent: too many tries. Wait a moment and send again",
};

function buttonOf(form) {
  return [...form.elements].find((field) => field.matches("[data-send]"));
}

function setBusy(form, isBusy) {
  const button = buttonOf(form);
  if (!button) return;
  button.style.minWidth = isBusy ? `${button.offsetWidth}px` : "";
  button.toggleAttribute("aria-busy", isBusy);
  if (isBusy) button.setAttribute("aria-busy", "true");
  const label = button.querySelector(".label");
  button.dataset.label ||= label.textContent;
  label.textContent = isBusy ? button.dataset.busy || "Sending" : button.dataset.label;
}

function isSent(event) {
  return event.detail.elt.matches?.("form[data-sends]");
}

function notSent(event) {
  if (!isSent(event)) return;
  const status = event.detail.xhr?.status;
  const reason = REASONS[status] || "Not sent: the server did not answer. Send it again in a moment";
  const detail = { kind: status in REASONS ? "refused" : "waiting", text: `${reason}; nothing you typed is lost.` };
  event.detail.elt.dataset.unsent = "";
  document.dispatchEvent(new CustomEvent("nestbox:status", { detail }));
  setBusy(event.detail.elt, false);
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const form = event.detail.elt;
  if (!isSent(event)) return;
  if (buttonOf(form)?.getAttribute("aria-busy") === "true") event.preventDefault();
  else setBusy(form, true);
  delete form.dataset.unsent;
});
for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError", "nestbox:signed-out"]) {
  document.addEventListener(name, notSent);
}
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sends]")) if (buttonOf(form)?.ariaBusy) setBusy(form, false);
});
