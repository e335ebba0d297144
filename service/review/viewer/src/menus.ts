/** Menus close when one looks elsewhere. */

export function startMenus(): void {
  const menus = (): NodeListOf<HTMLDetailsElement> => document.querySelectorAll("details.menu[open], details.choose[open]");
  document.addEventListener("click", (event) => {
    for (const menu of menus()) if (!menu.contains(event.target as Node)) menu.open = false;
  });
  // Before the key table sees it: Escape closes what is open rather than leaving the page.
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape") return;
      for (const menu of menus()) {
        menu.open = false;
        menu.querySelector("summary")?.focus();
        event.stopImmediatePropagation();
      }
    },
    { capture: true },
  );
}
