/**
 * A note is never lost and never lands on another study: saved to the server a second after typing and on leaving the
 * field, and kept in this browser only while the server cannot take it. It may hold patient data, so it is wiped when saved.
 */
import { find, say, send, timeOfDay, warn } from "./page";

const AFTER_MS = 1000;
const FORGET_MS = 24 * 3600 * 1000;

export function startDrafts(): void {
  const note = find<HTMLTextAreaElement>("note");
  const path = note?.dataset["draft"];
  forgetOld();
  if (!note || !path) return;
  const key = `draft:v1:${document.body.dataset["user"]}:${path}`;
  let waiting: number | undefined;
  let saved = note.value;

  const save = async (): Promise<void> => {
    window.clearTimeout(waiting);
    if (note.value === saved) return;
    const text = note.value;
    try {
      const answer = await send("PUT", path, new URLSearchParams({ note: text }));
      if (!answer.ok) throw new Error(String(answer.status));
      saved = text;
      localStorage.removeItem(key);
      const line = find("saved");
      if (line) line.textContent = text ? `saved ${timeOfDay()}` : "";
      warn("");
    } catch {
      localStorage.setItem(key, JSON.stringify({ text, at: Date.now() }));
      warn("Your note could not be saved to the server; it is kept in this browser.");
    }
  };

  const kept = localStorage.getItem(key);
  if (kept) {
    const { text } = JSON.parse(kept) as { text: string };
    if (text && text !== note.value) {
      note.value = note.value ? `${note.value}\n${text}` : text;
      say("Your unsent note was restored.");
      void save();
    }
  }
  note.addEventListener("input", () => {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(() => void save(), AFTER_MS);
  });
  note.addEventListener("blur", () => void save());
  note.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("confirm")?.click();
  });
  window.addEventListener("online", () => void save());
  find("decide")?.addEventListener("submit", () => {
    window.clearTimeout(waiting);
    localStorage.removeItem(key);
  });
}

function forgetOld(): void {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith("draft:v1:")) continue;
    const { at } = JSON.parse(localStorage.getItem(key) ?? "{}") as { at?: number };
    if (!at || Date.now() - at > FORGET_MS) localStorage.removeItem(key);
  }
}
