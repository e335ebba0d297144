/** A bulk action's button names how many are chosen, and does nothing when none is. */
export function startChosen(): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-counted]")) {
    const boxes = [...(button.form?.querySelectorAll<HTMLInputElement>("input[type=checkbox]") ?? [])];
    const count = (): void => {
      const chosen = boxes.filter((box) => box.checked).length;
      button.textContent = button.dataset["counted"]!.replace("{}", String(chosen));
      button.disabled = chosen === 0;
    };
    boxes.forEach((box) => box.addEventListener("change", count));
    count();
  }
}
