/* Ctrl+Enter (or Command+Enter) in a text area submits its form. Enter on a page where nothing has the focus presses the one
   element marked [data-enter] (home's "Continue"). */

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.defaultPrevented || event.repeat) return;
  if ((event.ctrlKey || event.metaKey) && event.target.matches("textarea")) {
    event.preventDefault();
    event.target.form?.requestSubmit();
  } else if (event.target === document.body && !document.querySelector("[popover]:popover-open")) {
    document.querySelector("[data-enter]")?.click();
  }
});
