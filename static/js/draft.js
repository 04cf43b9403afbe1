/* Keeps what is typed and chosen in a form on the server, and on this device until the server has said so.

   <form data-draft-url="/…" data-draft-key="slot-12-comparison-40" data-draft-version="3" data-draft-wait="800">
     data-draft-key      names the draft on this device; another for each piece of work and person (the URL, when left out)
     data-draft-version  the version of the server's draft that this page was drawn with, 0 for none
     data-unsent         (send.js) it was sent and did not arrive: then a saved draft is not called "Saved"
     draft_version       a hidden control of this name is told each version: sent along, it says which draft was seen here
     a control with data-draft-skip is left out; csrfmiddlewaretoken, submit_key and seconds always are

   POST, header X-CSRFToken, body: version and body, a JSON object {field name: value, or a list of values}. Answers:
     2xx {"version": n} saved · 401, or a redirect to the sign-in page: signed out
     409 {"message": "…", "version": n} another window saved version n: told to the person, kept here
     other 4xx {"message": "…"} refused: told to the person, kept here, not tried again until something changes
     5xx, 408, 429 or no network: kept here, tried again after 5, 10, 20, 40, 60 s, and as soon as the network is back.
   Fires "nestbox:status" (status.js), and "nestbox:restored" on the form after putting back what only this device had. */

const PREFIX = "nestbox-draft:";
const KEEP_DAYS = 14;
const RETRY_SECONDS = [5, 10, 20, 40, 60];

function tell(kind, text, until) {
  document.dispatchEvent(new CustomEvent("nestbox:status", { detail: { kind, text, until } }));
}

const NEVER_KEPT = ["csrfmiddlewaretoken", "submit_key", "seconds"];

/* {name: value}, or {name: [value, value]} where a name occurs more than once. */
function bodyOf(form) {
  const skipped = new Set(NEVER_KEPT);
  for (const field of form.elements) if (field.matches("[data-draft-skip]")) skipped.add(field.name);
  const body = {};
  for (const [name, value] of new FormData(form)) {
    if (skipped.has(name) || typeof value !== "string") continue;
    body[name] = name in body ? [body[name], value].flat() : value;
  }
  return body;
}

/* On this device */

function keyOf(form) {
  return PREFIX + (form.dataset.draftKey || form.dataset.draftUrl);
}

function keep(form, facts) {
  const entry = { body: bodyOf(form), at: Date.now(), ...facts };
  try {
    localStorage.setItem(keyOf(form), JSON.stringify(entry));
    return true;
  } catch {
    return false; // storage is full or forbidden
  }
}

function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // forbidden, so nothing was kept
  }
}

function namesKept() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

/* Drops what is too old, and what was submitted from a page that the server has since left behind. */
function tidy(current) {
  for (const key of namesKept().filter((name) => name.startsWith(PREFIX) && name !== current)) {
    const entry = kept(key);
    if (!entry || entry.submitted || Date.now() - entry.at > KEEP_DAYS * 86_400_000) forget(key);
  }
}

function putBack(form, body) {
  for (const field of form.elements) {
    if (!field.name || NEVER_KEPT.includes(field.name) || field.matches("button, [data-draft-skip]")) continue;
    const given = [body[field.name] ?? []].flat();
    if (field.type === "radio" || field.type === "checkbox") field.checked = given.includes(field.value);
    else if (given.length && field.type !== "hidden") field.value = given[0];
  }
}

/* One form */

class Draft {
  constructor(form) {
    Object.assign(this, { form, timer: 0, tries: 0, sending: false, dirty: false, gone: false });
    Object.assign(this, { unsure: false, wasLost: false, isKeptHere: false }); // unsure: sent, no answer yet
    this.know(Number(form.dataset.draftVersion || 0));
    tidy(keyOf(form));
    this.restore();
  }

  /* This version of the server's draft is what stands here, or what this replaces. */
  know(version) {
    this.version = version;
    const told = this.form.elements.namedItem("draft_version");
    if (told) told.value = version;
  }

  /* What another window has saved since stands; what we sent and heard nothing of is ours all the same. */
  restore() {
    const entry = kept(keyOf(this.form));
    if (!entry || (entry.version !== this.version && !entry.unsure)) return;
    putBack(this.form, entry.body);
    this.form.dispatchEvent(new CustomEvent("nestbox:restored", { bubbles: true }));
    this.note();
  }

  /* Something changed: keep it here at once, send it soon. */
  note() {
    if (this.gone) return;
    this.dirty = true;
    this.keepHere();
    this.later(Number(this.form.dataset.draftWait || 800));
  }

  keepHere(facts = {}) {
    this.isKeptHere = keep(this.form, { version: this.version, unsure: this.unsure, ...facts });
  }

  later(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), milliseconds);
  }

  async send({ leaving = false } = {}) {
    if (this.sending || !this.dirty || this.gone || !this.form.isConnected) return;
    clearTimeout(this.timer);
    this.sending = this.unsure = true;
    this.dirty = false;
    this.keepHere();
    tell("saving");
    try {
      await this.take(await this.post(leaving));
    } catch {
      this.failed();
    }
    this.sending = false;
    if (this.dirty && !this.tries) this.later(0);
  }

  post(leaving) {
    const token = this.form.elements.namedItem("csrfmiddlewaretoken")?.value || "";
    return fetch(this.form.dataset.draftUrl, {
      method: "POST",
      body: new URLSearchParams({ version: this.version, body: JSON.stringify(bodyOf(this.form)) }),
      headers: { "X-CSRFToken": token, Accept: "application/json" },
      keepalive: leaving,
      redirect: "manual",
      signal: leaving ? undefined : AbortSignal.timeout(15_000),
    });
  }

  async take(response) {
    if (response.ok) return this.saved(await response.json());
    if (response.type === "opaqueredirect" || response.status === 401) return this.signedOut();
    if (response.status >= 500 || response.status === 408 || response.status === 429) return this.failed();
    return this.refused(response);
  }

  saved({ version }) {
    this.tries = 0;
    this.wasLost = false;
    this.know(version);
    this.unsure = false;
    if (this.gone) return; // under way to being sent: "Saved" is for the server's next page to say
    if (!this.dirty) forget(keyOf(this.form));
    if ("unsent" in this.form.dataset) tell("waiting", "Not sent yet. Your draft is saved; send it again");
    else tell("saved");
  }

  failed() {
    this.dirty = this.wasLost = true;
    const seconds = RETRY_SECONDS[Math.min(this.tries, RETRY_SECONDS.length - 1)];
    this.tries += 1;
    this.later(seconds * 1000);
    const where = this.isKeptHere ? "Not saved yet. Kept on this device" : "Not saved yet. Keep this page open";
    tell("waiting", where, Date.now() + seconds * 1000);
  }

  signedOut() {
    const where = this.isKeptHere ? "Your draft is kept on this device" : "Keep this page open";
    tell("refused", `You were signed out. ${where}; sign in to go on.`);
  }

  async refused(response) {
    const { message, version } = await response.json().catch(() => ({}));
    if (this.isOwn(response, version)) {
      this.know(version);
      Object.assign(this, { dirty: true, tries: 0, wasLost: false });
      return;
    }
    this.unsure = false;
    this.keepHere();
    tell("refused", `Not saved: ${message || "the server refused it. Reload the page; your text is kept on this device."}`);
  }

  /* A 409 that names the next version, after an answer of ours was lost on the way: that version is what we sent. */
  isOwn(response, version) {
    return response.status === 409 && this.wasLost && version === this.version + 1;
  }

  /* The page is being submitted: what is on this device stays until the next piece of work is seen. */
  submitted() {
    clearTimeout(this.timer);
    this.gone = true;
    if (this.dirty || this.sending) this.keepHere({ submitted: true });
  }

  /* It could not be submitted: the person is on this page still. */
  back() {
    if (!this.gone) return;
    this.gone = false;
    this.keepHere();
    if (this.dirty) this.later(RETRY_SECONDS[0] * 1000);
  }
}

const drafts = new Map();

function draftOf(form) {
  if (!form?.dataset?.draftUrl) return null;
  if (!drafts.has(form)) drafts.set(form, new Draft(form));
  return drafts.get(form);
}

function scan() {
  for (const form of drafts.keys()) if (!form.isConnected) drafts.delete(form);
  for (const form of document.querySelectorAll("form[data-draft-url]")) draftOf(form);
}

function onEdit(event) {
  if (event.target.matches?.("[data-inview], [data-draft-skip]")) return;
  draftOf(event.target.form || event.target)?.note();
}

document.addEventListener("input", onEdit);
document.addEventListener("change", onEdit);
document.addEventListener("submit", (event) => {
  if (!event.defaultPrevented) draftOf(event.target)?.submitted();
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (!event.defaultPrevented) draftOf(event.detail.elt)?.submitted();
});
for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError", "nestbox:signed-out"]) {
  document.addEventListener(name, (event) => drafts.get(event.detail.elt)?.back());
}
document.addEventListener("htmx:afterSettle", scan);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") drafts.forEach((draft) => draft.send({ leaving: true }));
});
window.addEventListener("online", () => drafts.forEach((draft) => draft.send()));
window.addEventListener("pageshow", (event) => {
  if (event.persisted) drafts.forEach((draft) => draft.back());
});
scan();
