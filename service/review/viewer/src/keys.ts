/**
 * One table of keys. A visible control names its keys in `data-keys` ("c", "u Control+z", "g+w" for two in a row) and is
 * clicked or focused; keys without a control are bound by script. The sheet is made from this table, so it never lies.
 */
import { find, isTyping, say } from "./page";

interface Bound {
  label: string;
  run: (event: KeyboardEvent) => void;
}

const bound = new Map<string, Bound>();
const SEQUENCE_MS = 1500;
let prefix = "";
let forgetting: number | undefined;
let guard: () => boolean = () => true;
let layer: Record<string, [label: string, run: () => void]> | null = null;

/** Bind a key that has no control of its own. */
export function bind(keys: string, label: string, run: (event: KeyboardEvent) => void): void {
  for (const key of keys.split(" ")) bound.set(key, { label, run });
}

/** Keys of something that is open for a while, a box say: they go before all others, and decisions wait. */
export function layerKeys(keys: typeof layer): void {
  layer = keys;
}

/** Decisions are dead until this says yes: a key meant for the last study must not decide the next one. */
export function guardDecisions(allowed: () => boolean): void {
  guard = allowed;
}

export function listen(): void {
  document.addEventListener("keydown", onKey);
  find("open-keys")?.addEventListener("click", openSheet);
  for (const button of document.querySelectorAll<HTMLElement>("[data-close]"))
    button.addEventListener("click", () => button.closest("dialog")?.close());
}

function name(event: KeyboardEvent): string {
  const key = event.key === " " ? "Space" : event.key;
  const control = event.ctrlKey || event.metaKey ? "Control+" : "";
  const shift = event.shiftKey && key.length > 1 ? "Shift+" : "";
  return control + shift + key;
}

function onKey(event: KeyboardEvent): void {
  if (event.isComposing || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  const key = name(event);
  if (isTyping(event.target)) {
    if (key === "Escape") (event.target as HTMLElement).blur();
    return;
  }
  const single = !key.startsWith("Control+") && key.length === 1;
  if (single && document.body.dataset["singleKeys"] === "off") return;
  // A focused button or link keeps Space and Enter, a slider its arrows.
  if (event.target instanceof HTMLElement && keepsItsOwn(event.target, key)) return;
  const layered = layer?.[key];
  if (layered) {
    event.preventDefault();
    layered[1]();
    return;
  }
  // An open list of reasons keeps its digits however long it is read; otherwise the second key follows soon.
  const begun = document.querySelector<HTMLElement>("details.choose[open] > summary")?.dataset["keys"] ?? prefix;
  const inRow = begun ? `${begun}+${key}` : "";
  if (inRow && fire(inRow, event)) {
    prefix = "";
    return;
  }
  prefix = "";
  if (startsSequence(key)) {
    prefix = key;
    window.clearTimeout(forgetting);
    forgetting = window.setTimeout(() => (prefix = ""), SEQUENCE_MS);
  }
  fire(key, event);
}

function keepsItsOwn(target: HTMLElement, key: string): boolean {
  if (target instanceof HTMLInputElement && target.type === "range") return /Arrow|Home|End|Page/.test(key);
  const presses = key === "Space" || key === "Enter";
  return presses && (target.matches("button, a[href], summary, [role=button]"));
}

function controls(): HTMLElement[] {
  return [...document.querySelectorAll<HTMLElement>("[data-keys]")].filter(
    (element) => !element.hidden && !element.closest("[hidden]"),
  );
}

function keysOf(element: HTMLElement): string[] {
  return (element.dataset["keys"] ?? "").split(" ");
}

function startsSequence(key: string): boolean {
  const begins = (keys: string): boolean => keys.length > 2 && keys.startsWith(`${key}+`) && !keys.startsWith("Control+");
  return controls().some((element) => keysOf(element).some(begins)) || [...bound.keys()].some(begins);
}

function fire(key: string, event: KeyboardEvent): boolean {
  const control = controls().find((element) => keysOf(element).includes(key));
  const script = bound.get(key);
  if (!control && !script) return false;
  event.preventDefault();
  if (!control) {
    script?.run(event);
    return true;
  }
  if ("decides" in control.dataset && layer) {
    say("Save or leave the box first.");
    return true;
  }
  if ("decides" in control.dataset && (event.repeat || !guard())) return true;
  if (control.matches("input, textarea")) control.focus();
  else if (control instanceof HTMLSelectElement) next(control);
  else control.click();
  return true;
}

function next(select: HTMLSelectElement): void {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change", { bubbles: true }));
}

const SHOWN: Record<string, string> = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Control: "Ctrl",
};

function openSheet(): void {
  const sheet = find<HTMLDialogElement>("keys");
  const list = find("keys-list");
  if (!sheet || !list) return;
  const rows = new Map<string, string>();
  for (const element of controls())
    rows.set(element.dataset["keys"] ?? "", element.dataset["keyLabel"] ?? element.textContent?.trim() ?? "");
  for (const [key, { label }] of bound) rows.set(key, label);
  for (const [key, [label]] of Object.entries(layer ?? {})) rows.set(key, label);
  list.replaceChildren(...[...rows].map(([keys, label]) => sheetRow(keys, label)));
  sheet.showModal();
}

function sheetRow(keys: string, label: string): HTMLElement {
  const row = document.createElement("div");
  const words = document.createElement("span");
  words.textContent = label;
  const shown = document.createElement("span");
  keys.split(" ").forEach((alternative, place) => {
    if (place) shown.append(" or ");
    const parts = alternative.length > 1 ? alternative.split("+") : [alternative];
    parts.forEach((part, index) => {
      if (index) shown.append(" ");
      const kbd = document.createElement("kbd");
      kbd.textContent = SHOWN[part] ?? part;
      shown.append(kbd);
    });
  });
  row.append(words, shown);
  return row;
}
