/**
 * Rows chosen in the worklist and decided together. `x` chooses, Shift+X everything from the last chosen row to here; `c`,
 * `o` and `r` decide what is chosen, or else the focused row. Deciding takes the rows away at once, in place; undo stays.
 */
import { bind } from "./keys";
import { Refused, ask, find, say, warn } from "./page";

interface Chosen {
  uid: string;
  version: number;
}

interface Outcome {
  done: Chosen[];
  refused: { uid: string; sentence: string }[];
}

const DEEDS: Record<string, string> = { confirm: "confirmed", override: "overridden", retake: "to be retaken", withdraw: "taken back" };

export function startChoose(): void {
  const bar = find("deeds");
  if (!bar) return;
  const chosen = new Map<string, number>(); // by UID, the version that was on the screen when it was chosen
  let last: string | null = null; // where a range begins
  let done: Chosen[] = [];
  let busy = false;

  const rows = (): HTMLElement[] => [...document.querySelectorAll<HTMLElement>("#rows tr[data-uid]")];
  const uidOf = (row: HTMLElement): string => row.dataset["uid"] ?? "";
  const versionOf = (row: HTMLElement): number => Number(row.dataset["version"]);
  const focused = (): HTMLElement | null => document.activeElement?.closest<HTMLElement>("tr[data-uid]") ?? null;

  const show = (): void => {
    for (const row of rows()) {
      const is = chosen.has(uidOf(row));
      row.classList.toggle("chosen", is);
      const box = row.querySelector<HTMLInputElement>(".pick");
      if (box) box.checked = is;
    }
    bar.hidden = chosen.size === 0;
    find("done-deeds")!.hidden = chosen.size > 0 || done.length === 0;
    find("chosen-count")!.textContent = `${chosen.size} chosen`;
  };

  const choose = (row: HTMLElement, on = !chosen.has(uidOf(row))): void => {
    if (on) chosen.set(uidOf(row), chosen.get(uidOf(row)) ?? versionOf(row));
    else chosen.delete(uidOf(row));
    last = uidOf(row);
    show();
  };

  /** Everything between the row chosen last and this one. */
  const range = (row: HTMLElement): void => {
    const all = rows();
    const from = all.findIndex((each) => uidOf(each) === last);
    const to = all.indexOf(row);
    for (const each of all.slice(Math.min(from < 0 ? to : from, to), Math.max(from, to) + 1)) choose(each, true);
    last = uidOf(row);
  };

  const here = (act: (row: HTMLElement) => void) => (event: KeyboardEvent): void => {
    if (event.repeat) return; // a key held down must not go through the list
    const row = focused();
    if (row) act(row);
    else say("Choose a row first: j and k.");
  };

  /** A key without a choice means the focused row: it is chosen, and the bar's own control goes on from there. */
  const withFocused = (control: string) => here((row) => {
    choose(row, true);
    bar.querySelector<HTMLElement>(control)?.click();
  });

  const decide = async (choice: string, studies: Chosen[]): Promise<void> => {
    if (busy || !studies.length) return;
    busy = true;
    try {
      const answer = await ask("POST", "/worklist/decisions", JSON.stringify({ choice, studies }));
      tell(choice, (await answer.json()) as Outcome);
    } catch (error) {
      warn(error instanceof Refused ? error.message : "The server cannot be reached; nothing was decided. Try again when it is back.");
    }
    busy = false;
  };

  const tell = (choice: string, outcome: Outcome): void => {
    warn(outcome.refused.map((each) => each.sentence).join(" "));
    const deed = choice.split(":")[0]!;
    const undone = deed === "withdraw";
    if (!undone) for (const each of outcome.done) take(each.uid);
    chosen.clear();
    done = outcome.done;
    for (const each of rows()) if (outcome.refused.some((one) => one.uid === uidOf(each))) choose(each, true); // as it is now
    show();
    const words = `${outcome.done.length} ${outcome.done.length === 1 ? "study" : "studies"} ${DEEDS[deed] ?? deed}.`;
    find("done-words")!.textContent = words;
    find("undo-deeds")!.hidden = undone;
    if (outcome.done.length) say(words);
    if (undone) window.setTimeout(() => again(outcome.done), 600);
  };

  /** They stand in the list again, in their place, and the focus on the first of them. */
  const again = (restored: Chosen[]): void => {
    const address = new URL(window.location.href);
    if (restored[0]) address.searchParams.set("at", restored[0].uid);
    window.location.replace(address);
  };

  /** The decided row goes, unless this list shows decided studies; the focus goes to the next. */
  const take = (uid: string): void => {
    if (bar.dataset["keeps"] === "true") return;
    const row = rows().find((each) => uidOf(each) === uid);
    if (!row) return;
    const neighbour = row.nextElementSibling ?? row.previousElementSibling;
    if (row.contains(document.activeElement)) neighbour?.querySelector<HTMLElement>(".patient a")?.focus();
    row.remove();
  };

  bind("x", "Choose the row, or not", here((row) => choose(row)));
  bind("X", "Choose from the last chosen row to here", here(range));
  bind("c", "Confirm the row", withFocused("[data-choice=confirm]"));
  bind("o", "Override the row, then a reason", withFocused("summary[data-keys=o]"));
  bind("r", "Ask for a retake of the row, then a reason", withFocused("summary[data-keys=r]"));
  document.addEventListener("change", (event) => {
    const row = (event.target as HTMLElement).closest<HTMLElement>("tr[data-uid]");
    if (row && (event.target as HTMLElement).matches(".pick")) choose(row, (event.target as HTMLInputElement).checked);
  });
  document.addEventListener("click", (event) => {
    if (event.shiftKey && (event.target as HTMLElement).matches(".pick")) {
      const row = (event.target as HTMLElement).closest<HTMLElement>("tr[data-uid]");
      if (row) range(row);
    }
  });
  for (const button of bar.querySelectorAll<HTMLElement>("[data-choice]"))
    button.addEventListener("click", () => {
      for (const open of bar.querySelectorAll<HTMLDetailsElement>("details[open]")) open.open = false;
      void decide(button.dataset["choice"]!, [...chosen].map(([uid, version]) => ({ uid, version })));
    });
  find("choose-none")?.addEventListener("click", () => {
    chosen.clear();
    show();
  });
  find("undo-deeds")?.addEventListener("click", () => void decide("withdraw", done));
  // Rows that changed were drawn anew, and a refreshed list is another one.
  for (const event of ["htmx:after:swap", "changed"]) document.addEventListener(event, () => window.setTimeout(() => {
    const there = new Set(rows().map(uidOf));
    for (const uid of chosen.keys()) if (!there.has(uid)) chosen.delete(uid);
    show();
  }));
}
