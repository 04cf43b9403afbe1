/* The status line (templates/parts/_status.html). Anybody may set it:
     document.dispatchEvent(new CustomEvent("nestbox:status", {detail: {kind, text, until}}))
   kind  saved | saving | waiting (amber) | refused (red)      text  what to say; "Saved" and "Saving" by themselves
   until milliseconds of Date.now() to count down to ("trying again in 5 s")
   The clock beside "Saved" ticks for the eye alone; a screen reader hears the change once. */

const ICONS = { saved: "#i-check", saving: "#egg-now", waiting: "#i-alert", refused: "#i-cross" };
const WORDS = { saved: "Saved", saving: "Saving" };
let state = null;

function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

function clock() {
  if (state.kind === "saved") return ` ${ago(Date.now() - state.at)}`;
  if (state.until) return `; trying again in ${Math.max(0, Math.ceil((state.until - Date.now()) / 1000))} s`;
  return "";
}

function show() {
  const line = document.querySelector("[data-status]");
  if (!line || !state) return;
  line.hidden = false;
  line.className = `status ${state.kind}`;
  line.querySelector("use").setAttribute("href", ICONS[state.kind]);
  line.querySelector("[data-status-text]").textContent = state.text + clock();
}

/* "Saving" is never announced, and "Saved" only when it is news. */
function say(before) {
  const voice = document.querySelector("[data-status-said]");
  if (!voice || state.kind === "saving") return;
  const isNews = state.kind !== "saved" || !voice.textContent.startsWith("Saved") || before?.kind === "refused";
  if (isNews) voice.textContent = state.text;
}

document.addEventListener("nestbox:status", (event) => {
  const { kind, text = WORDS[kind], until = 0 } = event.detail;
  const before = state;
  state = { kind, text, until, at: Date.now() };
  show();
  say(before);
});

/* The server may have said something of what was sent before: data-told. A screen reader hears it once the page is read. */
const told = document.querySelector("[data-status][data-told] [data-status-text]");
if (told) setTimeout(() => state || (document.querySelector("[data-status-said]").textContent = told.textContent), 600);

/* Or when the draft was last saved: data-saved-ago="12" (seconds). */
const first = document.querySelector("[data-status][data-saved-ago]");
if (first) state = { kind: "saved", text: WORDS.saved, until: 0, at: Date.now() - 1000 * Number(first.dataset.savedAgo) };
setInterval(show, 1000);
