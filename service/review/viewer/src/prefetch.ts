/**
 * The next study's first frame, made ready by the server while this page stands still, so that it is at hand when the
 * study is opened. The browser itself keeps no patient's picture beyond its page.
 */
import { find } from "./page";

const AFTER_MS = 600;

export function startPrefetch(painted: Promise<void>): void {
  const next = find<HTMLAnchorElement>("next-study")?.dataset["ahead"];
  if (!next) return;
  const ask = (): void => void fetch(next, { credentials: "same-origin", priority: "low" }).catch(() => undefined);
  void painted.then(() => window.setTimeout(ask, AFTER_MS));
}
