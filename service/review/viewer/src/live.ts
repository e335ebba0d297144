/** The live worklist: rows change in place, new ones wait behind a counted button, and the badge never claims too much. */
import { showBanners } from "./banners";
import { find, say, timeOfDay, warn } from "./page";
import { type Asked, isStream } from "./pieces";

const PATIENCE_MS = 10_000; // a line that opens slowly is not worth a word
const REOPEN_MS = 2000;

/** What htmx keeps of the list's stream. */
interface Connection {
  cancelled: boolean;
  reader: ReadableStreamDefaultReader | null;
  delayCanceller: (() => void) | null;
}

export function startLive(): void {
  const badge = find("live");
  if (!badge || !find("list")) return;
  let fresh = new Set<number>();
  let tooMany = false; // more has changed than the rows here were told of
  let stream: Connection | undefined;
  let lost = ""; // what was said when the network went

  const live = (on: boolean, words: string): void => {
    badge.className = `live ${on ? "on" : "off"}`;
    badge.textContent = words;
  };
  window.setTimeout(() => {
    if (!badge.textContent) live(false, `not live since ${timeOfDay(new Date(Date.now() - PATIENCE_MS))}`);
  }, PATIENCE_MS);
  // A line that stood once comes back by itself; one that never opened is opened again from here.
  for (const failure of ["htmx:response:error", "htmx:error"])
    document.addEventListener(failure, (event) => {
      if (!isStream(event)) return;
      if (!badge.classList.contains("off")) live(false, `not live since ${timeOfDay()}`);
      if ((event as CustomEvent<Asked>).detail.ctx.response?.status === 401) return;
      window.setTimeout(() => find("feed")?.dispatchEvent(new Event("reopen")), REOPEN_MS * (1 + Math.random()));
    });
  document.addEventListener("htmx:sse:after:connection", (event) => {
    stream = (event as CustomEvent<{ connection: Connection }>).detail.connection;
    live(true, `live ${timeOfDay()}`);
    if (!lost) return;
    if (find("alert")?.textContent === lost) warn("");
    lost = "";
    say("The network is back, and the list is live again.");
  });
  document.addEventListener("htmx:sse:after:message", () => live(true, `live ${timeOfDay()}`));
  document.addEventListener("htmx:sse:error", (event) => {
    const { status, connection } = (event as CustomEvent<{ status?: number; connection?: Connection }>).detail;
    if (!badge.classList.contains("off")) live(false, `not live since ${timeOfDay()}`);
    if (status === 401 && connection) {
      connection.cancelled = true;
      document.dispatchEvent(new Event("sonomark:signed-out"));
    }
  });
  // A cut line may look open for minutes, and after many tries the next one is far away: neither is waited for.
  window.addEventListener("offline", () => {
    live(false, `not live since ${timeOfDay()}`);
    lost = `No network since ${timeOfDay()}. What you see stays as it was; nothing can be decided until it is back.`;
    warn(lost);
    void stream?.reader?.cancel();
  });
  window.addEventListener("online", () => stream?.delayCanceller?.());
  // The list's stream was given up when the session ended; nothing is typed here, so a fresh page is the plainest cure.
  document.addEventListener("sonomark:signed-in", () => window.location.reload());
  document.addEventListener("banners", (event) => showBanners((event as CustomEvent<{ data: string }>).detail.data));
  document.addEventListener("changed", (event) => {
    const { data } = (event as CustomEvent<{ data: string }>).detail;
    const { fitting, many } = JSON.parse(data) as { fitting: number[]; many: boolean };
    for (const id of fitting) if (!find(`s-${id}`)) fresh.add(id);
    tooMany ||= many;
    entitle();
    const button = find<HTMLAnchorElement>("new-studies");
    if (!button || !(fresh.size || tooMany)) return;
    const words = tooMany ? "Much has changed" : `${fresh.size} new ${fresh.size === 1 ? "study" : "studies"}`;
    button.textContent = `${words} – show`;
    button.hidden = false;
    say(words);
  });
  document.addEventListener("htmx:after:swap", (event) => {
    const { target, response } = (event as CustomEvent<Asked>).detail.ctx;
    if (target?.id !== "list" || (response?.status ?? 0) >= 400) return;
    fresh = new Set();
    tooMany = false;
    follow();
  });
}

/** The list was narrowed anew: whatever leads on from it keeps the filter that it now has. */
function follow(): void {
  const queue = find("list")?.dataset["queue"] ?? "";
  for (const tab of document.querySelectorAll<HTMLAnchorElement>(".tabs a[id^=tab-]")) {
    const asked = new URLSearchParams(queue);
    asked.set("tab", tab.id.slice("tab-".length));
    tab.search = asked.toString();
  }
  const more = find<HTMLAnchorElement>("new-studies");
  if (more) [more.search, more.hidden] = [queue, true];
  for (const input of document.querySelectorAll<HTMLInputElement>("input[name=query]")) input.value = queue;
  for (const input of document.querySelectorAll<HTMLInputElement>("form[action='/preferences'] input[name=next]")) input.value = `/worklist?${queue}`;
  entitle();
}

/** The tab of the browser counts too; the counts are drawn a moment after they are told. */
function entitle(): void {
  window.setTimeout(() => {
    const count = find("count-flagged")?.textContent;
    if (count) document.title = document.title.replace(/^\S+/, count);
  });
}
