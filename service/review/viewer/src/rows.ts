/** The worklist by keyboard: j and k move the row, Enter opens it; filters follow the address. */
import { bind } from "./keys";
import { find } from "./page";

function links(): HTMLAnchorElement[] {
  return [...document.querySelectorAll<HTMLAnchorElement>("#rows .patient a")];
}

function move(by: number): void {
  const all = links();
  const here = all.indexOf(document.activeElement as HTMLAnchorElement);
  const target = all[here < 0 ? 0 : Math.min(all.length - 1, Math.max(0, here + by))];
  target?.focus();
  target?.closest("tr")?.scrollIntoView({ block: "nearest" });
}

export function startRows(): void {
  if (!find("list")) return;
  bind("j", "Next row", () => move(1));
  bind("k", "Previous row", () => move(-1));
  bind("Enter", "Open the study", () => (document.activeElement as HTMLElement | null)?.click());
  const at = document.querySelector<HTMLAnchorElement>("tr[data-at] .patient a");
  if (at) {
    at.focus({ preventScroll: true });
    at.closest("tr")?.scrollIntoView({ block: "center" });
  }
}
