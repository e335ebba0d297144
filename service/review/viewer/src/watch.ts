/** What happens to the study while it is read: decided by somebody else, further images, removed; and the line itself. */
import { showBanners } from "./banners";
import { placeOf } from "./drafts";
import { find, need, timeOfDay, warn } from "./page";
import { look } from "./session";
import { data } from "./study";

interface Told {
  version: number;
  sentence: string; // what happened last
  held_by: string; // somebody else; empty: nobody, or who reads it
}

const PATIENCE_MS = 10_000; // a short gap is not worth a word

export function startWatch(): void {
  if (data.blinded) return;
  let source: EventSource | null = null;
  let since: number | undefined;
  let lost = false;

  const connect = (): void => {
    source?.close();
    source = new EventSource(`/studies/${data.study}/events`);
    source.addEventListener("changed", (event) => {
      alive();
      changed(JSON.parse((event as MessageEvent<string>).data) as Told);
    });
    source.addEventListener("banners", (event) => showBanners((event as MessageEvent<string>).data));
    source.addEventListener("removed", (event) => removed((JSON.parse((event as MessageEvent<string>).data) as { sentence: string }).sentence));
    source.addEventListener("error", () => {
      since ??= window.setTimeout(silent, PATIENCE_MS);
      if (source?.readyState === EventSource.CLOSED) void refused();
    });
  };

  const alive = (): void => {
    window.clearTimeout(since);
    since = undefined;
    badge(true, `live ${timeOfDay()}`);
    if (lost) warn("");
    lost = false;
  };

  const silent = (): void => {
    lost = true;
    if (!navigator.onLine) return; // told already, with its time
    badge(false, `not live since ${timeOfDay(new Date(Date.now() - PATIENCE_MS))}`);
    warn("The server does not answer. What you see stays; a note is kept in this browser, a decision is not sent until it is back.");
  };

  /** The stream was refused for good: the session has ended, or the study is gone, or the server is restarting. */
  const refused = async (): Promise<void> => {
    const session = await look().catch(() => undefined);
    if (session === null) return void document.dispatchEvent(new Event("sonomark:signed-out"));
    if (session && (await gone())) return removed("This study was removed.");
    window.setTimeout(connect, 2000 + Math.random() * 2000);
  };

  const gone = async (): Promise<boolean> => {
    const answer = await fetch(`/studies/${data.study}/ahead`, { headers: { "HX-Request": "true" } }).catch(() => null);
    return answer?.status === 404;
  };

  connect();
  document.addEventListener("sonomark:signed-in", connect);
  document.addEventListener("sonomark:removed", () => removed("This study was removed."));
  document.addEventListener("visibilitychange", () => (document.hidden ? source?.close() : connect()));
  window.addEventListener("offline", () => {
    badge(false, `not live since ${timeOfDay()}`);
    warn(`No network since ${timeOfDay()}. What you see stays; a note is kept in this browser, a decision is not sent until it is back.`);
    lost = true;
    connect(); // a cut line may look open for minutes
  });
  window.addEventListener("online", () => { warn(""); connect(); });
  window.addEventListener("pagehide", () => source?.close());
}

function badge(on: boolean, words: string): void {
  const line = need("live");
  line.className = `live ${on ? "on" : "off"}`;
  line.textContent = words;
}

/** Nothing moves under the reader's hands: a line says what happened, and shows it when asked. */
function changed(told: Told): void {
  if (find("removed") || find("problem")) return;
  const version = find<HTMLInputElement>("version")?.value ?? String(data.version);
  const words = String(told.version) === version ? hands(told.held_by) : told.sentence;
  if (find("news")?.dataset["words"] === words) return; // said already: neither announced again nor taken from under the focus
  if (words) notice("news", words, button("Show it", () => window.location.reload()));
  else find("news")?.remove();
}

/** In whose hands the study is, if they are other ones than the page says. */
function hands(holder: string): string {
  const shown = document.querySelector<HTMLElement>(".hold")?.dataset["holder"];
  if (shown === undefined || shown === holder) return "";
  return holder ? `${holder} holds this study now.` : `${shown} holds this study no more.`;
}

function removed(sentence: string): void {
  if (find("removed")) return;
  const note = find<HTMLTextAreaElement>("note");
  const copy = button("Copy", () => {
    note?.select();
    // Without TLS a browser gives no clipboard: the note stands selected, and its own keys copy it.
    void navigator.clipboard?.writeText(note?.value ?? "");
  });
  const kept = note?.value.trim() ? [" Your note is kept here.", copy] : [];
  const back = document.createElement("a");
  back.href = "/worklist";
  back.textContent = "Back to the worklist";
  notice("removed", sentence, ...kept, " ", back);
  for (const each of document.querySelectorAll<HTMLButtonElement>("#decide button, .hold button")) each.disabled = true;
  if (note) localStorage.removeItem(placeOf(note.dataset["draft"] ?? ""));
}

function notice(id: string, words: string, ...more: (Node | string)[]): void {
  const line = document.createElement("p");
  line.id = id;
  line.className = "news";
  line.dataset["words"] = words;
  line.setAttribute("role", "alert");
  line.append(`${words} `, ...more);
  need("outcome").replaceChildren(line);
}

function button(words: string, act: () => void): HTMLButtonElement {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "small secondary";
  made.textContent = words;
  made.addEventListener("click", act);
  return made;
}
