/* A page that the back button brings out of the browser's memory tells what was true when it was left. One that has
   [data-fresh] and nothing to type on is fetched anew. */

window.addEventListener("pageshow", (event) => {
  if (event.persisted && document.querySelector("[data-fresh]")) location.reload();
});
