/* Signing out takes what was kept on this device along: the next person at it finds nothing. */

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-sign-out]")) return;
  try {
    for (const key of Object.keys(localStorage)) if (key.startsWith("nestbox-draft:")) localStorage.removeItem(key);
  } catch {
    // storage is forbidden, so nothing was kept
  }
});
