/* What a page does when its session ended in the meantime. The server leads a request of htmx to the sign-in page, which
   must not be put into the middle of this one. A page without a status line is loaded anew, and so asks to sign in. */

const TEXT = "You were signed out. What you typed is kept on this device; reload the page to sign in.";

function cameFromElsewhere({ xhr, requestConfig }) {
  const asked = new URL(requestConfig.path, location.href).pathname;
  return Boolean(xhr.responseURL) && new URL(xhr.responseURL).pathname !== asked;
}

document.addEventListener("htmx:beforeSwap", (event) => {
  if (!cameFromElsewhere(event.detail)) return;
  event.detail.shouldSwap = false;
  if (!document.querySelector("[data-status]")) return location.reload();
  const { xhr, requestConfig } = event.detail;
  const { elt } = requestConfig; // event.detail.elt is where the answer would have gone
  if (elt.matches("form")) document.dispatchEvent(new CustomEvent("nestbox:signed-out", { detail: { elt, xhr } }));
  else elt.remove(); // it asked every second
  document.dispatchEvent(new CustomEvent("nestbox:status", { detail: { kind: "refused", text: TEXT } }));
});
