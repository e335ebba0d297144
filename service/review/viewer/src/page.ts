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

/** The server's no, in the words it gave. */
export class Refused extends Error {
  constructor(readonly status: number, words: string) {
    super(words);
  }
}

/** A change sent with the session's token; whatever the answer is. */
export async function send(method: string, path: string, body?: URLSearchParams | FormData | string): Promise<Response> {
  const headers: Record<string, string> = { "X-CSRF-Token": document.body.dataset["csrf"] ?? "", "HX-Request": "true" };
  if (typeof body === "string") headers["Content-Type"] = "application/json";
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (body) init.body = body;
  return noticed(await fetch(path, init));
}

/** The same, but a no is an error. */
export async function ask(method: string, path: string, body?: string): Promise<Response> {
  const answer = await send(method, path, body);
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

export async function refusal(answer: Response): Promise<Refused> {
  return new Refused(answer.status, await words(answer));
}

/** The server's words, whether they come as a problem document or as a piece of page. */
export async function words(answer: Response): Promise<string> {
  if (!answer.headers.get("content-type")?.includes("json")) return spoken(await answer.text(), answer.status);
  const problem = (await answer.json().catch(() => ({}))) as { detail?: string; cure?: string };
  return [problem.detail, problem.cure].filter(Boolean).join(" ") || spoken("", answer.status);
}

export function spoken(page: string, status: number): string {
  const told = new DOMParser().parseFromString(page, "text/html").body;
  // What a proxy says of a server that is away is no sentence for anybody here.
  const text = (told.querySelector("[role=alert]") ?? (status < 500 ? told : null))?.textContent;
  return text?.replace(/\s+/g, " ").trim() || `The server could not answer (${status}). Try again in a moment; if it stays, tell your administrator.`;
}

/** Every answer passes here, so that an ended session is noticed wherever it shows first. */
export function noticed(answer: Response): Response {
  document.dispatchEvent(new Event(answer.status === 401 ? "sonomark:signed-out" : "sonomark:answered"));
  return answer;
}

export function timeOfDay(at = new Date()): string {
  return at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}
