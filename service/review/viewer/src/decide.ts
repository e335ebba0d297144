/** The decision panel: one press decides, a second press cannot, and "other" asks for its note first. */
import { guardDecisions } from "./keys";
import { find, say } from "./page";

const SETTLE_MS = 400;

export function startDecide(painted: Promise<void>): void {
  const form = find<HTMLFormElement>("decide");
  if (!form) return;
  let awake = false;
  void painted.then(() => window.setTimeout(() => (awake = true), SETTLE_MS));
  guardDecisions(() => awake);
  let sent = false;
  form.addEventListener("submit", (event) => {
    const button = event.submitter;
    const note = find<HTMLTextAreaElement>("note");
    if (button instanceof HTMLElement && "needsNote" in button.dataset && !note?.value.trim()) {
      event.preventDefault();
      note?.focus();
      say("This reason needs a note: say what it is, then choose it again.");
      return;
    }
    if (sent || !navigator.onLine) {
      event.preventDefault();
      if (!sent) say("The network is gone. Your decision was not sent; try again when it is back.", true);
      return;
    }
    sent = true;
    button?.setAttribute("aria-busy", "true");
  });
  window.addEventListener("pageshow", () => (sent = false));
}
