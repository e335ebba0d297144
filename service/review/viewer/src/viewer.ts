/** The study page's viewer: which frame is shown, and the controls and keys that change how. */
import "./app"; // one bundle for the page, so that there is one table of keys
import { startDecide } from "./decide";
import { bind } from "./keys";
import { LOOKS, lookOf, type Mark } from "./marks";
import { find, need } from "./page";
import { Pictures, Refused } from "./pictures";
import { Stage, VIEWS, type Shown, type View } from "./stage";

interface AssessedFrame {
  number: number;
  rows: number;
  columns: number;
  mask: boolean;
  flagged: boolean;
  marks: Mark[];
}

interface StudyImage {
  uid: string;
  sha256: string;
  rows: number;
  columns: number;
  count: number;
  state: string;
  reason: string;
  cure: string;
  frames: AssessedFrame[];
}

interface StudyData {
  kinds: Record<string, string>;
  start: [number, number] | null;
  images: StudyImage[];
}

const data = JSON.parse(need("study-data").textContent ?? "{}") as StudyData;
const pictures = new Pictures();
const CINE_FPS = 20;
const SETTINGS = "viewer:v1";

let image = data.start?.[0] ?? 0;
let frame = data.start?.[1] ?? 1;
let playing: number | undefined;
let asked = 0;

const stage = new Stage(
  need<HTMLCanvasElement>("picture"),
  need<HTMLCanvasElement>("overlay"),
  [...document.querySelectorAll<SVGElement>("#window [slope]")],
  words,
);

const painted = new Promise<void>((resolve) => {
  const first = find<HTMLImageElement>("first-frame");
  if (!first) resolve();
  else if (first.complete) resolve();
  else for (const event of ["load", "error"]) first.addEventListener(event, () => resolve(), { once: true });
});

function here(): StudyImage | undefined {
  return data.images[image];
}

function assessed(): AssessedFrame | undefined {
  return here()?.frames.find((each) => each.number === frame);
}

/** Show the frame; a later call overtakes an earlier one that is still loading. */
async function show(): Promise<void> {
  const current = here();
  if (!current || current.count < 1) return message(current ? unreadable(current) : "");
  const mine = ++asked;
  const at = (what: "image" | "mask" | "restoration" | "residual"): string =>
    pictures.address(current.uid, current.sha256, frame, what);
  const known = assessed();
  const wanted = stage.needs();
  const shown: Shown = {
    rows: known?.rows ?? current.rows,
    columns: known?.columns ?? current.columns,
    image: null, restoration: null, residual: null, mask: null,
    marks: known?.marks ?? [],
    failed: false,
  };
  listMarks(known, current);
  const slow = window.setTimeout(() => message(`Frame ${frame} is being decoded…`), 200);
  try {
    shown.image = await pictures.get(at("image"));
  } catch (error) {
    if (mine === asked) message(error instanceof Refused ? error.message : "The frame did not arrive. Is the network there?");
    return;
  } finally {
    window.clearTimeout(slow);
  }
  if (mine !== asked) return;
  message("");
  shown.rows = shown.image.height;
  shown.columns = shown.image.width;
  stage.show(shown);
  find("first-frame")?.remove();
  const later: [keyof Shown, Promise<ImageBitmap>][] = [];
  if (wanted.mask && known?.mask) later.push(["mask", pictures.get(at("mask"))]);
  if (wanted.restoration) later.push(["restoration", pictures.get(at("restoration"))]);
  if (wanted.residual) later.push(["residual", pictures.get(at("residual"))]);
  for (const [what, coming] of later)
    coming.then(
      (bitmap) => {
        if (mine !== asked) return;
        Object.assign(shown, { [what]: bitmap });
        stage.show(shown);
      },
      (error: unknown) => {
        if (mine !== asked) return;
        shown.failed = true;
        stage.show(shown);
        message(error instanceof Refused ? error.message : "The picture did not arrive.");
      },
    );
  ahead(current);
}

/** The neighbours, so that the next key finds its frame decoded. */
function ahead(current: StudyImage): void {
  for (const next of [frame + 1, frame + 2, frame - 1])
    if (next >= 1 && next <= current.count)
      void pictures.get(pictures.address(current.uid, current.sha256, next, "image")).catch(() => undefined);
  const following = data.images[image + 1];
  if (frame === current.count && following && following.count > 0)
    void pictures.get(pictures.address(following.uid, following.sha256, 1, "image")).catch(() => undefined);
}

function unreadable(current: StudyImage): string {
  return current.reason ? `This image could not be assessed: ${current.reason} ${current.cure}` : "This image has no pixels.";
}

function message(text: string): void {
  const line = need("stage-message");
  line.textContent = text;
  line.hidden = !text;
}

/** Controls, numbers and the description follow the stage. */
function words(): void {
  const current = here();
  if (!current) return;
  need<HTMLOutputElement>("counter").value = current.count ? `${frame} / ${current.count}` : "–";
  const scrubber = need<HTMLInputElement>("scrubber");
  scrubber.max = String(Math.max(1, current.count));
  scrubber.value = String(frame);
  scrubber.disabled = current.count < 2;
  scrubber.setAttribute("aria-valuetext", `frame ${frame} of ${current.count}`);
  need<HTMLOutputElement>("zoom-out").value = `${Math.round(stage.scale() * 100)} %`;
  need<HTMLOutputElement>("window-out").value = `W ${Math.round(stage.window)} L ${Math.round(stage.level)}${stage.inverted ? " inv" : ""}`;
  need("restored-badge").hidden = stage.bare || !stage.needs().restoration;
  need("swipe").hidden = stage.bare || stage.view !== "swipe";
  for (const film of document.querySelectorAll<HTMLElement>(".film"))
    film.setAttribute("aria-current", String(film.dataset["image"] === String(image)));
}

function listMarks(known: AssessedFrame | undefined, current: StudyImage): void {
  const legend = need("legend");
  const found = known?.marks ?? [];
  legend.replaceChildren(
    ...Object.keys(LOOKS).flatMap((kind) => {
      const of = found.filter((mark) => mark.kind === kind);
      if (!of.length) return [];
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = `swatch ${kind}`;
      swatch.textContent = lookOf(of[0]!).tag;
      const best = Math.max(...of.map((mark) => mark.score));
      item.append(swatch, `${data.kinds[kind] ?? kind}${of.length > 1 ? ` ×${of.length}` : ""} ${best.toFixed(2)}`);
      return [item];
    }),
  );
  const told = found.map((mark) => `${data.kinds[mark.kind] ?? mark.kind} at ${mark.box[0]}, ${mark.box[1]}, score ${mark.score.toFixed(2)}`);
  const nothing = known ? "No annotation found on this frame." : current.reason ? unreadable(current) : "This frame was not assessed.";
  if (!found.length && legend.childElementCount === 0) {
    const item = document.createElement("li");
    item.className = "muted";
    item.textContent = nothing;
    legend.append(item);
  }
  need("described").textContent = `Image ${image + 1} of ${data.images.length}, frame ${frame} of ${current.count}. ${told.join("; ") || nothing}`;
}

function go(toImage: number, toFrame: number): void {
  const target = data.images[toImage];
  if (!target) return;
  image = toImage;
  frame = Math.min(Math.max(1, toFrame), Math.max(1, target.count));
  find("first-frame")?.remove();
  if (target.count < 1) stage.show({ rows: 1, columns: 1, image: null, restoration: null, residual: null, mask: null, marks: [], failed: true });
  document.querySelector(`.film[data-image="${image}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  void show();
  words();
}

/** One frame on or back, over the images' borders. */
function step(by: number): void {
  const current = here();
  if (!current) return;
  if (frame + by >= 1 && frame + by <= current.count) go(image, frame + by);
  else if (by > 0) go(image + 1, 1);
  else if (image > 0) go(image - 1, data.images[image - 1]!.count);
}

function stop(): void {
  window.clearInterval(playing);
  playing = undefined;
  cineButton();
}

function cineButton(): void {
  const button = need("cine");
  const word = playing === undefined ? "Play" : "Stop";
  button.querySelector("path")?.setAttribute("d", playing === undefined ? "M4 2.5v11l9-5.5z" : "M3 3h10v10H3z");
  button.setAttribute("aria-label", word);
  button.title = word;
}

function play(): void {
  if (playing !== undefined) return stop();
  const current = here();
  if (!current || current.count < 2) return;
  let busy = false;
  playing = window.setInterval(() => {
    if (busy) return; // a frame that is still coming is waited for, never skipped
    busy = true;
    frame = frame >= current.count ? 1 : frame + 1;
    void show().finally(() => (busy = false));
  }, 1000 / CINE_FPS);
  cineButton();
}

/** Findings: the flagged images in turn. */
function finding(by: number): void {
  const places = data.images.flatMap((each, index) => each.frames.filter((one) => one.flagged).map((one) => [index, one.number] as const));
  if (!places.length) return;
  const at = places.findIndex(([index, number]) => index === image && number === frame);
  const [toImage, toFrame] = places[(at + by + places.length) % places.length]!;
  go(toImage, toFrame);
}

function setView(view: View): void {
  stage.view = view;
  need<HTMLSelectElement>("view").value = view;
  keep();
  void show();
  stage.draw();
}

/** Window, zoom and view persist on this station: an image keeps its settings. */
function keep(): void {
  localStorage.setItem(SETTINGS, JSON.stringify({ view: stage.view, opacity: stage.opacity, window: stage.window, level: stage.level }));
}

function restore(): void {
  const kept = JSON.parse(localStorage.getItem(SETTINGS) ?? "{}") as Partial<{ view: View; opacity: number; window: number; level: number }>;
  if (kept.view && VIEWS.includes(kept.view)) stage.view = kept.view;
  else if (window.innerWidth >= 1600) stage.view = "side";
  if (kept.opacity !== undefined) stage.opacity = kept.opacity;
  if (kept.window && kept.level !== undefined) [stage.window, stage.level] = [kept.window, kept.level];
  need<HTMLSelectElement>("view").value = stage.view;
  need<HTMLInputElement>("opacity").value = String(Math.round(stage.opacity * 100));
}

function adjust(window_: number, level: number): void {
  stage.window = Math.min(1020, Math.max(8, stage.window + window_));
  stage.level = Math.min(400, Math.max(-150, stage.level + level));
  keep();
  stage.draw();
}

function controls(): void {
  const click = (id: string, act: () => void): void => need(id).addEventListener("click", act);
  click("first", () => go(image, 1));
  click("last", () => go(image, here()?.count ?? 1));
  click("back-one", () => step(-1));
  click("forward-one", () => step(1));
  click("cine", play);
  click("fit", () => { Object.assign(stage, { zoom: 1, panX: 0, panY: 0 }); stage.draw(); });
  click("one-to-one", () => stage.oneToOne());
  click("reset", () => { stage.reset(); keep(); });
  need("view").addEventListener("change", (event) => setView((event.target as HTMLSelectElement).value as View));
  need("opacity").addEventListener("input", (event) => {
    const was = stage.needs().mask;
    stage.opacity = Number((event.target as HTMLInputElement).value) / 100;
    keep();
    if (!was && stage.needs().mask) void show();
    stage.draw();
  });
  need("scrubber").addEventListener("input", (event) => go(image, Number((event.target as HTMLInputElement).value)));
  need("swipe").addEventListener("input", (event) => {
    stage.swipeAt = Number((event.target as HTMLInputElement).value) / 1000;
    stage.draw();
  });
  for (const film of document.querySelectorAll<HTMLElement>(".film"))
    film.addEventListener("click", () => { stop(); go(Number(film.dataset["image"]), data.images[Number(film.dataset["image"])]?.frames[0]?.number ?? 1); });
  for (const place of document.querySelectorAll<HTMLElement>("[data-goto]"))
    place.addEventListener("click", () => {
      const to = data.images.findIndex((each) => each.uid === place.dataset["goto"]);
      if (to >= 0) go(to, Number(place.dataset["frame"]));
    });
}

function keys(): void {
  const pan = (x: number, y: number) => () => { stage.panX += x; stage.panY += y; stage.draw(); };
  bind("m", "Mask on or off", () => { stage.opacity = stage.opacity > 0 ? 0 : 0.3; need<HTMLInputElement>("opacity").value = String(stage.opacity * 100); keep(); void show(); });
  bind("h", "Heat map", () => setView(stage.view === "heat" ? "mask" : "heat"));
  bind("s", "Swipe original and restoration", () => setView(stage.view === "swipe" ? "mask" : "swipe"));
  bind("+", "Zoom in", () => stage.zoomBy(1.25));
  bind("-", "Zoom out", () => stage.zoomBy(0.8));
  bind("Shift+ArrowLeft", "Pan left", pan(40, 0));
  bind("Shift+ArrowRight", "Pan right", pan(-40, 0));
  bind("Shift+ArrowUp", "Pan up", pan(0, 40));
  bind("Shift+ArrowDown", "Pan down", pan(0, -40));
  bind("b", "Brighter", () => adjust(0, -8));
  bind("B", "Darker", () => adjust(0, 8));
  bind("t", "More contrast", () => adjust(-12, 0));
  bind("T", "Less contrast", () => adjust(12, 0));
  bind("i", "Invert", () => { stage.inverted = !stage.inverted; stage.draw(); });
  bind("]", "Next finding", () => finding(1));
  bind("[", "Previous finding", () => finding(-1));
  bind("p", "Panels on or off", () => { document.body.classList.toggle("alone"); });
  bind("z", "Hold: the original, bare", () => { if (!stage.bare) { stage.bare = true; stage.draw(); } });
  document.addEventListener("keyup", (event) => {
    if (event.key === "z" && stage.bare) { stage.bare = false; stage.draw(); }
  });
}

/** Drag pans, drag with the right button or Alt sets window and level, two fingers zoom; the wheel steps, with Ctrl it zooms. */
function pointers(): void {
  const surface = need("stage");
  const down = new Map<number, PointerEvent>();
  surface.addEventListener("contextmenu", (event) => event.preventDefault());
  surface.addEventListener("pointerdown", (event) => {
    if (event.target instanceof HTMLInputElement) return;
    surface.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event);
  });
  surface.addEventListener("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (!last) return;
    const [x, y] = [event.clientX - last.clientX, event.clientY - last.clientY];
    if (down.size === 2) {
      const other = [...down.values()].find((each) => each.pointerId !== event.pointerId)!;
      const spread = (one: PointerEvent): number => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const box = surface.getBoundingClientRect();
      if (spread(last) > 0) stage.zoomBy(spread(event) / spread(last), event.clientX - box.x, event.clientY - box.y);
    } else if (event.buttons === 2 || event.altKey) adjust(x, y);
    else {
      stage.panX += x;
      stage.panY += y;
      stage.draw();
    }
    down.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) surface.addEventListener(end, (event) => down.delete((event as PointerEvent).pointerId));
  surface.addEventListener("dblclick", () => need("fit").click());
  surface.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) {
      const box = surface.getBoundingClientRect();
      stage.zoomBy(Math.exp(-event.deltaY / 300), event.clientX - box.x, event.clientY - box.y);
    } else step(event.deltaY > 0 ? 1 : -1);
  }, { passive: false });
}

restore();
controls();
keys();
pointers();
startDecide(painted);
words();
void show();
