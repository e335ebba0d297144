/**
 * A note is never lost and never lands on another study: saved to the server a second after typing and on leaving the
 * field, and kept in this browser only while the server cannot take it. It may hold patient data, so it is wiped when saved.
 */
import { find, say, send, timeOfDay, warn } from "./page";

const KEPT = "draft:v1:"; // how its keys begin in this browser's storage
const AFTER_MS = 1000;
const AGAIN_MS = 10_000;
const FORGET_MS = 24 * 3600 * 1000;

let saving: Promise<void> = Promise.resolve();

/** Settles when no note is on its way: one that arrived after its decision would stand there as a note not sent. */
export function draftAtRest(): Promise<void> {
  return saving;
}

/** Where this browser keeps a note that the server has not: of this person, for this study. */
export function placeOf(path: string): string {
  return `${KEPT}${document.body.dataset["user"]}:${path}`;
}

export function startDrafts(): void {
  const note = find<HTMLTextAreaElement>("note");
  const path = note?.dataset["draft"];
  forgetOld();
  if (!note || !path) return;
  const key = placeOf(path);
  const tabs = new BroadcastChannel(key); // the same study in another tab
  let waiting: number | undefined;
  let saved = note.value;
  let sending = false;
  let decided = false;

  const keepHere = (): void => localStorage.setItem(key, JSON.stringify({ text: note.value, at: Date.now() }));
  const later = (ms: number): void => {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(save, ms);
  };

  const save = (): void => {
    window.clearTimeout(waiting);
    if (note.value !== saved && !sending && !decided) saving = put();
  };

  const put = async (): Promise<void> => {
    const text = note.value;
    sending = true;
    try {
      const answer = await send("PUT", path, new URLSearchParams({ note: text, was: saved }));
      if (answer.status === 409) return join(((await answer.json()) as { note: string }).note);
      if (!answer.ok) throw new Error(String(answer.status));
      saved = text;
      if (note.value === text) localStorage.removeItem(key);
      else later(AFTER_MS);
      const line = find("saved");
      if (line) line.textContent = text ? `saved ${timeOfDay()}` : "";
      tabs.postMessage(text);
      warn("");
    } catch {
      keepHere();
      warn("Your note could not be saved to the server; it is kept in this browser and sent again by itself.");
      later(AGAIN_MS);
    } finally {
      sending = false;
    }
  };

  /** Another tab saved a note meanwhile: both are kept. */
  const join = (other: string): void => {
    saved = other;
    if (!note.value.includes(other)) note.value = `${other}\n${note.value}`;
    say("The note of your other tab was joined to this one.");
    later(0);
  };

  tabs.addEventListener("message", (event: MessageEvent<string>) => {
    if (note.value !== saved || document.activeElement === note) return;
    note.value = saved = event.data;
  });
  const kept = localStorage.getItem(key);
  if (kept) {
    const { text } = JSON.parse(kept) as { text: string };
    if (text && text !== note.value) {
      note.value = note.value && !text.includes(note.value) ? `${note.value}\n${text}` : text;
      say("Your unsent note was restored.");
      save();
    }
  }
  note.addEventListener("input", () => later(AFTER_MS));
  note.addEventListener("blur", save);
  note.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.repeat) return;
    if (find("decide")?.dataset["awake"]) find("confirm")?.click();
  });
  window.addEventListener("pagehide", () => {
    if (note.value !== saved && !decided) keepHere(); // a tab that is closed a moment after typing
  });
  document.addEventListener("sonomark:signed-in", save);
  window.addEventListener("online", save);
  document.addEventListener("sonomark:decided", () => {
    decided = true; // the note went with the decision
    window.clearTimeout(waiting);
    localStorage.removeItem(key);
  });
}

function forgetOld(): void {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(KEPT)) continue;
    const { at } = JSON.parse(localStorage.getItem(key) ?? "{}") as { at?: number };
    if (!at || Date.now() - at > FORGET_MS) localStorage.removeItem(key);
  }
}
