/**
 * A second reader's answer. It is sent while the page stays, as a decision is, so that an ended session or a lost network
 * never costs the note; and a key that was meant for the last study does not answer the next one.
 */
import { wakeAfter } from "./decide";
import { find, send, warn, words } from "./page";

export function startAnswer(painted: Promise<void>): void {
  const form = find<HTMLFormElement>("answer");
  if (!form) return;
  wakeAfter(painted, form);
  let busy = false;
  let unsent: (() => void) | null = null; // the answer that waits for a session

  const answer = async (choice: string): Promise<void> => {
    if (busy) return;
    busy = true;
    const body = new URLSearchParams(new FormData(form) as unknown as Record<string, string>);
    body.set("answer", choice);
    try {
      const told = await send("POST", form.action, body);
      const target = told.headers.get("HX-Redirect");
      if (told.ok && target) return window.location.assign(target); // busy until the next page is there
      if (told.status === 401) unsent = () => void answer(choice);
      else warn(`${await words(told)} Your note is kept.`);
    } catch {
      warn("The server cannot be reached. Your answer was not sent and your note stays here; try again when it is back.");
    }
    busy = false;
  };

  form.addEventListener("submit", (event) => {
    if (!(event.submitter instanceof HTMLButtonElement)) return;
    event.preventDefault();
    void answer(event.submitter.value);
  });
  document.addEventListener("sonomark:signed-in", () => {
    const again = unsent;
    unsent = null;
    again?.();
  });
}
