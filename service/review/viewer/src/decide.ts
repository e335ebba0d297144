/**
 * The decision panel: one press decides, a second press cannot, and what needs a note asks for it first. It is sent while the
 * page stays, so that a refusal, an ended session or a lost network never costs what was typed.
 */
import { draftAtRest } from "./drafts";
import { guardDecisions } from "./keys";
import { find, need, say, send, warn, words } from "./page";
import { sentOnce, type Fate } from "./sending";

const SETTLE_MS = 400;

export function startDecide(painted: Promise<void>): void {
  const form = find<HTMLFormElement>("decide");
  if (!form) return;
  wakeAfter(painted, form);
  const decide = sentOnce(async (button: HTMLElement, choice: string) => {
    button.setAttribute("aria-busy", "true");
    const fate = await carried(choice);
    if (fate !== "leaving") button.removeAttribute("aria-busy");
    return fate;
  });

  const carried = async (choice: string): Promise<Fate> => {
    await draftAtRest();
    const body = new URLSearchParams(new FormData(form) as unknown as Record<string, string>);
    body.set("choice", choice);
    try {
      const answer = await send("POST", form.action, body);
      const target = answer.headers.get("HX-Redirect");
      if (answer.ok && target) {
        document.dispatchEvent(new Event("sonomark:decided"));
        window.location.assign(target);
        return "leaving";
      }
      if (answer.status === 401) return "signed out";
      await refused(answer, choice);
    } catch {
      warn("The server cannot be reached. Your decision was not sent and your note is kept in this browser; try again when it is back.");
    }
    return "stays";
  };

  form.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (!(button instanceof HTMLButtonElement)) return;
    event.preventDefault();
    const note = find<HTMLTextAreaElement>("note");
    const needs = button.dataset["needsNote"];
    if (needs && !note?.value.trim()) {
      for (const open of form.querySelectorAll<HTMLDetailsElement>("details[open]")) open.open = false; // it hides the note
      note?.focus();
      return say(needs);
    }
    void decide(button, button.value);
  });

  const refused = async (answer: Response, choice: string): Promise<void> => {
    if (answer.status === 404) return void document.dispatchEvent(new Event("sonomark:removed"));
    if (answer.status !== 409) return warn(`${await words(answer)} Your note is kept.`);
    const told = new DOMParser().parseFromString(await answer.text(), "text/html");
    need("outcome").replaceChildren(...told.body.children);
    const problem = need("problem");
    problem.focus();
    problem.querySelector("[data-again]")?.addEventListener("click", (event) => {
      need<HTMLInputElement>("version").value = problem.dataset["version"] ?? "";
      void decide(event.currentTarget as HTMLElement, choice);
    });
    problem.querySelector("[data-see]")?.addEventListener("click", (event) => {
      event.preventDefault();
      window.location.reload();
    });
    problem.querySelector("[data-discard]")?.addEventListener("click", () => {
      const note = need<HTMLTextAreaElement>("note");
      const body = new URLSearchParams({ note: "", was: note.value });
      note.value = "";
      void send("PUT", note.dataset["draft"] ?? "", body).finally(() => window.location.reload());
    });
  };
}

/** Decisions sleep until the first frame is painted and the hand has had time to leave the key. */
export function wakeAfter(painted: Promise<void>, form: HTMLElement): void {
  let awake = false;
  void painted.then(() => window.setTimeout(() => {
    awake = true;
    form.dataset["awake"] = "true";
  }, SETTLE_MS));
  guardDecisions(() => awake);
}
