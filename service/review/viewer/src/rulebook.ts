/** The rule book's editor: problems appear half a second after typing, in their list, and never move the focus. */
import { find, send } from "./page";

interface Issue {
  line: number;
  message: string;
  cure: string;
  is_error: boolean;
}

export function startRulebook(): void {
  const text = find<HTMLTextAreaElement>("toml");
  const list = find("problems");
  const path = text?.dataset["check"];
  if (!text || !list || !path) return;
  list.addEventListener("click", (event) => {
    const line = (event.target as HTMLElement).dataset["line"];
    if (line) goTo(text, Number(line));
  });
  const gutter = numbered(text, [...list.querySelectorAll<HTMLElement>("[data-line]")].map((each) => Number(each.dataset["line"])));
  guarded(text);
  let waiting: number | undefined;
  let asked = 0;
  text.addEventListener("input", () => {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(() => void check(), 500);
    gutter();
  });

  async function check(): Promise<void> {
    const mine = ++asked;
    const answer = await send("POST", path!, JSON.stringify({ toml: text!.value })).catch(() => null);
    if (!answer?.ok) return;
    const issues = (await answer.json()) as Issue[];
    if (mine !== asked) return; // of an older text
    text!.setAttribute("aria-invalid", String(issues.some((issue) => issue.is_error)));
    gutter(issues.filter((issue) => issue.is_error).map((issue) => issue.line));
    list!.replaceChildren(...(issues.length ? issues.map(item) : [nothing()]));
  }
}

function item(issue: Issue): HTMLElement {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "link";
  button.dataset["line"] = String(issue.line);
  button.textContent = `Line ${issue.line}`;
  row.append(button, " ");
  if (!issue.is_error) {
    const advice = document.createElement("span");
    advice.className = "tag";
    advice.textContent = "advice";
    row.append(advice, " ");
  }
  row.append(`${issue.message} ${issue.cure}`);
  return row;
}

function nothing(): HTMLElement {
  const row = document.createElement("li");
  row.className = "muted";
  row.textContent = "None.";
  return row;
}

function goTo(text: HTMLTextAreaElement, line: number): void {
  const lines = text.value.split("\n");
  const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  text.focus();
  text.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
  text.scrollTop = Math.max(0, (line - 5) * (text.scrollHeight / Math.max(1, lines.length)));
}

/** Line numbers beside the text, those with an error marked; the returned function draws them again. */
function numbered(text: HTMLTextAreaElement, wrong: number[]): (wrong?: number[]) => void {
  const gutter = find("gutter");
  let marked = wrong;
  const draw = (now?: number[]): void => {
    marked = now ?? marked;
    const lines = text.value.split("\n").length;
    gutter?.replaceChildren(
      ...Array.from({ length: lines }, (_, index) => {
        const number = document.createElement(marked.includes(index + 1) ? "b" : "span");
        number.textContent = `${index + 1}\n`;
        return number;
      }),
    );
    gutter?.style.setProperty("--lined", `${text.clientHeight}px`);
    if (gutter) gutter.scrollTop = text.scrollTop;
  };
  text.addEventListener("scroll", () => gutter && (gutter.scrollTop = text.scrollTop));
  new ResizeObserver(() => draw()).observe(text);
  draw();
  return draw;
}

/** A text that is not saved is not left without a word. */
function guarded(text: HTMLTextAreaElement): void {
  let leaving = false;
  text.form?.addEventListener("submit", () => (leaving = true));
  window.addEventListener("beforeunload", (event) => {
    if (!leaving && text.value !== text.defaultValue) event.preventDefault();
  });
}
