/**
 * Pieces of a page that htmx fetches: the list, the flow, a self-test that runs. A refusal never takes the place of what
 * is shown (`noSwap` in the page's head): it is said, what stands stays, and what refreshes itself goes on asking.
 */
import { find, spoken, timeOfDay, warn } from "./page";

/** What htmx tells of a piece that it asked for. */
export interface Asked {
  ctx: { sourceElement?: Element; target?: Element; text?: string; response?: { status: number } };
}

/** Whether it was the list's stream that was asked for: whoever listens to it says what has become of it. */
export function isStream(event: Event): boolean {
  return (event as CustomEvent<Partial<Asked>>).detail.ctx?.sourceElement?.id === "feed";
}

export function startPieces(): void {
  let said = false;
  let owed = false; // the controls say what the list does not show yet
  const fail = (event: Event, words: string): void => {
    said = true;
    owed ||= (event as CustomEvent<Partial<Asked>>).detail.ctx?.sourceElement?.id === "filters";
    const list = `The list could not be refreshed (${timeOfDay()}). What you see stays; it is asked again when it is live again, and when you change the filter.`;
    warn(find("list") ? list : `${words} What you see is as it was at ${timeOfDay()}.`);
  };
  document.addEventListener("htmx:response:error", (event) => {
    const { response, text } = (event as CustomEvent<Asked>).detail.ctx;
    if (response?.status === 401) return void document.dispatchEvent(new Event("sonomark:signed-out"));
    if (!isStream(event)) fail(event, spoken(text ?? "", response?.status ?? 0));
  });
  document.addEventListener("htmx:error", (event) => {
    if (!isStream(event)) fail(event, "The server cannot be reached.");
  });
  // Asked twice for the same, by Enter after a pause, it is one step of the history all the same.
  document.addEventListener("htmx:before:history:update", (event) => {
    const { path } = (event as CustomEvent<{ history: { path: string } }>).detail.history;
    if (path === window.location.pathname + window.location.search) event.preventDefault();
  });
  document.addEventListener("htmx:after:swap", (event) => {
    const status = (event as CustomEvent<Asked>).detail.ctx.response?.status ?? 0;
    if (!said || status < 200 || status >= 400) return; // of a refusal htmx says the same
    said = owed = false;
    warn("");
  });
  document.addEventListener("htmx:sse:after:connection", () => {
    if (owed) find<HTMLFormElement>("filters")?.requestSubmit();
  });
}
