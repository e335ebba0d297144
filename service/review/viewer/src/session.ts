/**
 * The session's end. Two minutes before, a dialog offers to stay; when it has ended, the page stays under a veil, one signs
 * in on it, and what was under way goes on. Somebody else who signs in here gets a page of their own.
 */
import { find, say, timeOfDay } from "./page";

const WARN_S = 120;
const LOOK_EVERY_MS = 3000; // is there a session again, made in another tab perhaps?

interface Session {
  user: string;
  csrf: string;
  idle_s: number;
  ends_in_s: number;
}

let idleEnd = Infinity;
let hardEnd = Infinity;
let warning: number | undefined;
let looking: number | undefined;
let understood = false; // that the session ends whatever one does

export function startSession(): void {
  const { idleS, endsInS } = document.body.dataset;
  if (!idleS || !endsInS) return;
  reckon(Number(idleS), Number(endsInS));
  document.addEventListener("sonomark:signed-out", ended);
  document.addEventListener("sonomark:answered", () => reckon(Number(document.body.dataset["idleS"])));
  find("again-form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    void signIn(event.target as HTMLFormElement);
  });
  find("stay")?.addEventListener("click", () => void stay());
  // A dialog that stands for an ended session is left by signing in, not by Escape.
  find("again")?.addEventListener("cancel", (event) => event.preventDefault());
}

/** Is somebody signed in? Asked without a word to the key table or the server's redirects; only who stays is at work. */
export async function look(stay = false): Promise<Session | null> {
  const answer = await fetch(stay ? "/session?stay=true" : "/session", { headers: { "HX-Request": "true" }, credentials: "same-origin" });
  return answer.ok ? ((await answer.json()) as Session) : null;
}

function reckon(idleS: number, endsInS?: number): void {
  const now = Date.now();
  idleEnd = now + idleS * 1000;
  if (endsInS !== undefined) hardEnd = now + endsInS * 1000;
  window.clearTimeout(warning);
  const wait = Math.min(idleEnd, hardEnd) - now - WARN_S * 1000;
  if (wait > 0) find<HTMLDialogElement>("ending")?.close(); // somebody went on, here or in another tab
  warning = window.setTimeout(warn, Math.min(Math.max(0, wait), 2 ** 31 - 1));
}

function warn(): void {
  const dialog = find<HTMLDialogElement>("ending");
  if (!dialog || find<HTMLDialogElement>("again")?.open) return;
  const end = Math.min(idleEnd, hardEnd);
  warning = window.setTimeout(() => void check(), Math.max(1000, end - Date.now() + 1000));
  const hard = hardEnd <= idleEnd;
  if (hard && understood) return;
  const at = timeOfDay(new Date(end));
  find("ending-words")!.textContent = hard
    ? `Your session ends at ${at}. Your work is kept; sign in again then to go on.`
    : `Your session ends at ${at}, as nothing was done for a while. Your work is kept.`;
  find("stay")!.textContent = hard ? "Understood" : "Stay signed in";
  if (!dialog.open) dialog.showModal();
}

async function stay(): Promise<void> {
  find<HTMLDialogElement>("ending")?.close();
  if (hardEnd > idleEnd) return check(true);
  understood = true; // nothing puts that end off: it is said once
}

async function check(staying = false): Promise<void> {
  const session = await look(staying).catch(() => undefined);
  if (session === null) return ended();
  if (!session) return;
  reckon(session.idle_s, session.ends_in_s);
}

function ended(): void {
  const dialog = find<HTMLDialogElement>("again");
  if (!dialog || dialog.open) return;
  find<HTMLDialogElement>("ending")?.close();
  dialog.showModal();
  find<HTMLInputElement>("again-password")?.focus();
  window.clearInterval(looking);
  looking = window.setInterval(() => {
    if (!document.hidden) void look().then((session) => session && resume(session)).catch(() => undefined);
  }, LOOK_EVERY_MS);
}

async function signIn(form: HTMLFormElement): Promise<void> {
  const problem = find("again-problem")!;
  problem.textContent = "";
  try {
    const body = new URLSearchParams(new FormData(form) as unknown as Record<string, string>);
    await fetch("/sign-in", { method: "POST", body, credentials: "same-origin", headers: { "HX-Request": "true" } });
    const session = await look();
    if (session) return resume(session);
    problem.textContent = "That did not sign you in: the name or password is not right, or a second step is needed. Try again, or sign in in a new tab.";
  } catch {
    problem.textContent = "The server cannot be reached. Your work is kept; try again.";
  }
}

function resume(session: Session): void {
  window.clearInterval(looking);
  if (session.user !== document.body.dataset["user"]) {
    // Another person: what was typed stays under the first one's name, and this page is not theirs.
    window.location.assign("/worklist");
    return;
  }
  document.body.dataset["csrf"] = session.csrf;
  document.body.setAttribute("hx-headers:inherited", JSON.stringify({ "X-CSRF-Token": session.csrf }));
  for (const input of document.querySelectorAll<HTMLInputElement>("input[name=csrf]")) input.value = session.csrf;
  const password = find<HTMLInputElement>("again-password");
  if (password) password.value = "";
  find<HTMLDialogElement>("again")?.close();
  understood = false;
  reckon(session.idle_s, session.ends_in_s);
  say("Signed in again. Nothing was lost.");
  document.dispatchEvent(new Event("sonomark:signed-in"));
}

