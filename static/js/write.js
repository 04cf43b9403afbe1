/* Where a reply is written, form[data-write]: how long it is, [data-length]; how it will read, [data-preview-text]; and how
   many characters were pasted or dropped into it, <input type="hidden" name="pasted" data-pasted value="0">, which is kept
   with the draft. An empty field counts from nought again. */

const formNow = () => document.querySelector("form[data-write]");

function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

function refresh() {
  const form = formNow();
  if (!form) return;
  const text = form.elements.content.value;
  const words = text.trim() ? text.trim().split(/\s+/).length : 0;
  form.querySelector("[data-length]").textContent = `${count(words, "word")}, ${count(text.length, "character")}.`;
  form.querySelector("[data-preview-text]").textContent = text;
  if (!text) form.elements.pasted.value = 0;
}

function add(text) {
  const field = formNow().elements.pasted;
  field.value = Number(field.value || 0) + text.length;
}

function isReply(target) {
  return target.form === formNow() && target.name === "content";
}

document.addEventListener("input", (event) => isReply(event.target) && refresh());
document.addEventListener("paste", (event) => isReply(event.target) && add(event.clipboardData?.getData("text/plain") || ""));
document.addEventListener("drop", (event) => isReply(event.target) && add(event.dataTransfer?.getData("text/plain") || ""));
for (const name of ["htmx:afterSettle", "nestbox:restored"]) document.addEventListener(name, refresh);
if (matchMedia("(width < 48em)").matches) {
  for (const details of document.querySelectorAll("details[data-folds]")) details.open = false;
}
refresh();
