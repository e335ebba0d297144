/** What an administrator sets while a page is open: work paused, the door draining. The streams tell of it. */
import { find } from "./page";

/** `data`: title and sentence of each, as JSON. Untouched where nothing changed, so that nothing is announced twice. */
export function showBanners(data: string): void {
  const place = find("banners");
  if (!place) return;
  const lines = (JSON.parse(data) as [string, string][]).map(([title, sentence]) => banner(title, sentence));
  if (lines.map((line) => line.textContent).join("\n") === [...place.children].map((line) => line.textContent).join("\n")) return;
  place.replaceChildren(...lines);
}

function banner(title: string, sentence: string): HTMLElement {
  const line = document.createElement("p");
  line.className = "banner";
  const strong = document.createElement("strong");
  strong.textContent = title;
  const flow = document.createElement("a");
  flow.href = "/flow";
  flow.textContent = "Flow";
  line.append(strong, ` ${sentence} `, flow);
  return line;
}
