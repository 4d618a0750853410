// Sets the theme before anything is drawn; everything else waits for the page.
(() => {
  let chosen = null;
  try {
    chosen = JSON.parse(localStorage.getItem("tickpipe") ?? "{}").theme;
  } catch {
    // A browser without storage begins afresh each time.
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
