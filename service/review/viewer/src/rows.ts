/** The worklist by keyboard: j and k move the row, Enter opens it; filters follow the address. */
import { bind } from "./keys";
import { Refused, ask, find, say } from "./page";

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

/** Take the focused row's study in hand, or let go of it; the row itself is told by the live list. */
async function hold(): Promise<void> {
  const row = document.activeElement?.closest<HTMLElement>("tr[data-uid]");
  if (!row) return say("Choose a row first: j and k.");
  const mine = row.querySelector<HTMLElement>(".held")?.dataset["holder"] === document.body.dataset["user"];
  try {
    await ask("POST", `/studies/${row.dataset["uid"]}/${mine ? "release" : "hold"}`);
    say(mine ? "Let go." : "You hold this study.");
  } catch (error) {
    say(error instanceof Refused ? error.message : "The server cannot be reached; nothing was changed.");
  }
}

export function startRows(): void {
  if (!find("list")) return;
  bind("j", "Next row", () => move(1));
  bind("k", "Previous row", () => move(-1));
  bind("Enter", "Open the study", () => (document.activeElement as HTMLElement | null)?.click());
  bind("y", "Hold the study, or let go", () => void hold());
  const at = document.querySelector<HTMLAnchorElement>("tr[data-at] .patient a");
  if (at) {
    at.focus({ preventScroll: true });
    at.closest("tr")?.scrollIntoView({ block: "center" });
  }
}
