/** What every page has: its elements by id, its two lines of words, and changes sent to the server. */

export function find<T extends HTMLElement = HTMLElement>(id: string): T | null {
  return document.getElementById(id) as T | null;
}

export function need<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = find<T>(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

let clearing: number | undefined;

/** Say something in the status line: announced politely, gone after a while unless it is to stay. */
export function say(words: string, stay = false): void {
  const line = need("status");
  if (line.textContent !== words) line.textContent = words;
  window.clearTimeout(clearing);
  if (!stay) clearing = window.setTimeout(() => (line.textContent = ""), 6000);
}

/** Say that something is wrong; it stays until it is right again. */
export function warn(words: string): void {
  const line = need("alert");
  if (line.textContent !== words) line.textContent = words;
}

export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  return target instanceof HTMLInputElement && !["range", "checkbox", "radio", "button", "submit"].includes(target.type);
}

/** A change sent with the session's token. */
export async function send(method: string, path: string, body?: URLSearchParams | string): Promise<Response> {
  const headers: Record<string, string> = { "X-CSRF-Token": document.body.dataset["csrf"] ?? "" };
  if (typeof body === "string") headers["Content-Type"] = "application/json";
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (body) init.body = body;
  return fetch(path, init);
}

export function timeOfDay(at = new Date()): string {
  return at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}
