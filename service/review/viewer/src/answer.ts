/**
 * A second reader's answer. It is sent while the page stays, as a decision is, so that an ended session or a lost network
 * never costs the note; and a key that was meant for the last study does not answer the next one.
 */
import { wakeAfter } from "./decide";
import { find, send, warn, words } from "./page";
import { sentOnce } from "./sending";

export function startAnswer(painted: Promise<void>): void {
  const form = find<HTMLFormElement>("answer");
  if (!form) return;
  wakeAfter(painted, form);
  const answer = sentOnce(async (choice: string) => {
    const body = new URLSearchParams(new FormData(form) as unknown as Record<string, string>);
    body.set("answer", choice);
    try {
      const told = await send("POST", form.action, body);
      const target = told.headers.get("HX-Redirect");
      if (told.ok && target) {
        window.location.assign(target);
        return "leaving";
      }
      if (told.status === 401) return "signed out";
      warn(`${await words(told)} Your note is kept.`);
    } catch {
      warn("The server cannot be reached. Your answer was not sent and your note stays here; try again when it is back.");
    }
    return "stays";
  });

  form.addEventListener("submit", (event) => {
    if (!(event.submitter instanceof HTMLButtonElement)) return;
    event.preventDefault();
    void answer(event.submitter.value);
  });
}
