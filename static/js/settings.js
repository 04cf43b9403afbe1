/* Settings that act at once, wherever they are shown: radios [name=theme] (auto, light, dark) and check boxes or radios
   [name=letter_keys] (on), inside <form data-settings method="post" action="(the settings page)"> or tied to one by form="…".
   They show on <html> as data-theme and data-keys, which the server writes too. Without a script the form has a button. */

const YEAR_SECONDS = 365 * 24 * 60 * 60;
const shown = document.documentElement.dataset;

/* The pages before signing in know nobody; they read the scheme from here. */
function rememberTheme(theme) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `theme=${theme}; Path=/; Max-Age=${YEAR_SECONDS}; SameSite=Lax${secure}`;
}

function store(form) {
  const body = new URLSearchParams({ theme: shown.theme, csrfmiddlewaretoken: form.elements.csrfmiddlewaretoken.value });
  if (shown.keys !== "off") body.set("letter_keys", "on");
  fetch(form.action, { method: "POST", body, redirect: "manual" });
}

function showEverywhere() {
  for (const radio of document.querySelectorAll("input[name=theme]")) radio.checked = radio.value === shown.theme;
  for (const keys of document.querySelectorAll("input[name=letter_keys]")) {
    keys.checked = (keys.value === "on") === (shown.keys !== "off");
  }
}

document.addEventListener("change", (event) => {
  const { form, name, value, checked } = event.target;
  if (!form?.matches("[data-settings]")) return;
  if (name === "theme") shown.theme = value;
  if (name === "letter_keys") shown.keys = checked && value === "on" ? "on" : "off";
  rememberTheme(shown.theme);
  showEverywhere();
  store(form);
});
