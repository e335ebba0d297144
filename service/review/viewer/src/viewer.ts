/** The study page: which image and frame is shown, its marks in words, and everything that is started once. */
import "./app"; // one bundle for the page, so that there is one table of keys
import { startAnswer } from "./answer";
import { Boxes } from "./boxes";
import { Cine } from "./cine";
import { startDecide } from "./decide";
import { bind } from "./keys";
import { Look } from "./look";
import { LOOKS, isPersons, lookOf, type Mark } from "./marks";
import { Refused, find, need } from "./page";
import { Pictures, type What } from "./pictures";
import { startPointers } from "./pointers";
import { startPrefetch } from "./prefetch";
import { Stage, type Shown } from "./stage";
import { startWatch } from "./watch";
import { data, kindWords, marksOn, type AssessedFrame, type StudyImage } from "./study";

const pictures = new Pictures();
let image = data.start?.[0] ?? 0;
let frame = data.start?.[1] ?? 1;
let asked = 0;

const stage = new Stage(
  need<HTMLCanvasElement>("picture"),
  need<HTMLCanvasElement>("overlay"),
  [...document.querySelectorAll<SVGElement>("#window [slope]")],
  () => look.tell(),
);
const look = new Look(stage, () => void show());
const cine = new Cine((next) => {
  frame = next;
  position();
  return show();
});
const boxes = new Boxes({
  image: here,
  frame: () => frame,
  size: () => stage.size(),
  scale: () => stage.scale() / devicePixelRatio,
  editing: (mark) => {
    if (mark) {
      cine.stop();
      look.reveal();
    }
    stage.editing = mark;
    stage.draw();
  },
  changed: () => void show(),
});

const painted = new Promise<void>((resolve) => {
  const first = find<HTMLImageElement>("first-frame");
  if (!first || first.complete) resolve();
  else for (const event of ["load", "error"]) first.addEventListener(event, () => resolve(), { once: true });
});

function here(): StudyImage | undefined {
  return data.images[image];
}

/** Show the frame; a later call overtakes an earlier one that is still loading. */
async function show(): Promise<void> {
  const current = here();
  if (!current || current.count < 1) return message(current ? unreadable(current) : "");
  const mine = ++asked;
  const at = (what: What): string => pictures.address(current.uid, current.sha256, frame, what);
  const known = current.frames.find((each) => each.number === frame);
  const marks = marksOn(current, frame);
  const shown: Shown = {
    rows: known?.rows ?? current.rows, columns: known?.columns ?? current.columns,
    image: null, restoration: null, residual: null, mask: null, marks, failed: false,
  };
  describe(known, current, marks);
  const begun = performance.now();
  const slow = window.setInterval(() => {
    message(`Frame ${frame} is being decoded (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
  }, 200);
  try {
    shown.image = await pictures.get(at("image"));
  } catch (error) {
    if (mine === asked) broken(current, error);
    return;
  } finally {
    window.clearInterval(slow);
  }
  if (mine !== asked) return;
  message("");
  [shown.rows, shown.columns] = [shown.image.height, shown.image.width];
  stage.show(shown);
  find("first-frame")?.remove();
  const wanted = stage.needs();
  const later: What[] = (["restoration", "residual"] as const).filter((what) => wanted[what]);
  if (wanted.mask && known?.mask) later.push("mask");
  for (const what of later)
    pictures.get(at(what)).then(
      (bitmap) => {
        if (mine !== asked) return;
        Object.assign(shown, { [what]: bitmap });
        stage.show(shown);
      },
      (error: unknown) => {
        if (mine !== asked) return;
        shown.failed = true;
        stage.show(shown);
        message(error instanceof Refused ? error.message : "The picture did not arrive. Is the network there?");
      },
    );
  ahead(current);
}

/** The neighbours, so that the next key finds its frame decoded. */
function ahead(current: StudyImage): void {
  const fetch_ = (of: StudyImage, number: number): void =>
    void pictures.get(pictures.address(of.uid, of.sha256, number, "image")).catch(() => undefined);
  for (const next of [frame + 1, frame + 2, frame - 1]) if (next >= 1 && next <= current.count) fetch_(current, next);
  const following = data.images[image + 1];
  if (frame === current.count && following && following.count > 0) fetch_(following, 1);
}

/** A frame that cannot be shown: what happened, and what the verdict rests on. */
function broken(current: StudyImage, error: unknown): void {
  find("first-frame")?.remove();
  stage.clear();
  if (!(error instanceof Refused)) return message(`Frame ${frame} did not arrive: the server cannot be reached. It is fetched again when the network is back.`);
  const rests = current.frames.length ? ` The verdict used ${current.frames.length} of ${current.count} frames.` : "";
  message(`Frame ${frame} could not be shown: ${error.message}${rests}`);
}

function unreadable(current: StudyImage): string {
  return current.reason ? `This image could not be assessed: ${current.reason} ${current.cure}` : "This image has no pixels.";
}

function message(text: string): void {
  const line = need("stage-message");
  line.textContent = text;
  line.hidden = !text;
}

function position(): void {
  const count = here()?.count ?? 0;
  need<HTMLOutputElement>("counter").value = count ? `${frame} / ${count}` : "–";
  const scrubber = need<HTMLInputElement>("scrubber");
  scrubber.max = String(Math.max(1, count));
  scrubber.value = String(frame);
  scrubber.disabled = count < 2;
  scrubber.setAttribute("aria-valuetext", `frame ${frame} of ${count}`);
  for (const film of document.querySelectorAll<HTMLElement>(".film"))
    film.setAttribute("aria-current", String(film.dataset["image"] === String(image)));
}

/** The frame's marks as a legend that can be pressed, and as a sentence for those who cannot see them. */
function describe(known: AssessedFrame | undefined, current: StudyImage, marks: Mark[]): void {
  const groups = new Map<string, Mark[]>();
  for (const mark of marks) {
    const group = isPersons(mark) ? "person" : mark.kind;
    groups.set(group, [...(groups.get(group) ?? []), mark]);
  }
  const order = [...Object.keys(LOOKS), "person"];
  const items = [...groups].sort(([a], [b]) => order.indexOf(a) - order.indexOf(b)).map(([group, of]) => legend(group, of));
  const nothing = data.blinded ? "Blinded: no marks are shown." : known ? "No annotation found on this frame." : current.reason ? unreadable(current) : "This frame was not assessed.";
  if (!items.length) {
    const item = document.createElement("li");
    item.className = "muted";
    item.textContent = nothing;
    items.push(item);
  }
  need("legend").replaceChildren(...items);
  const told = marks.map((mark) => {
    const by = isPersons(mark) ? `drawn by ${mark.source.slice(7)}` : `score ${mark.score.toFixed(2)}`;
    return `${kindWords(mark.kind)} at ${mark.box[0]}, ${mark.box[1]}, ${by}${mark.rejected ? ", said to be none" : ""}`;
  });
  need("described").textContent = `Image ${image + 1} of ${data.images.length}, frame ${frame} of ${current.count}. ${told.join("; ") || nothing}`;
}

function legend(group: string, of: Mark[]): HTMLElement {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "legend-mark";
  const swatch = document.createElement("span");
  swatch.className = `swatch ${group}`;
  swatch.textContent = group === "person" ? "✎" : lookOf(of[0]!).tag;
  const standing = of.filter((mark) => !mark.rejected);
  const best = Math.max(...of.map((mark) => mark.score));
  const words = group === "person" ? of.map((mark) => kindWords(mark.kind)).join(", ") : kindWords(group);
  const many = standing.length > 1 && group !== "person" ? ` ×${standing.length}` : "";
  button.append(swatch, `${words}${many} ${group === "person" ? "" : standing.length ? best.toFixed(2) : "– said to be none"}`);
  button.disabled = !data.decides;
  button.addEventListener("click", () => boxes.begin(of[0]!));
  item.append(button);
  return item;
}

function go(toImage: number, toFrame: number): void {
  const target = data.images[toImage];
  if (!target) return;
  boxes.close();
  if (toImage !== image) cine.stop();
  image = toImage;
  frame = Math.min(Math.max(1, toFrame), Math.max(1, target.count));
  find("first-frame")?.remove();
  if (target.count < 1) stage.clear();
  cine.offer(target.fps);
  document.querySelector(`.film[data-image="${image}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  position();
  void show();
}

/** One frame on or back, over the images' borders. */
function step(by: number): void {
  const current = here();
  if (!current) return;
  if (frame + by >= 1 && frame + by <= current.count) go(image, frame + by);
  else if (by > 0) go(image + 1, 1);
  else if (image > 0) go(image - 1, data.images[image - 1]!.count);
}

/** Findings: the flagged frames in turn. */
function finding(by: number): void {
  const places = data.images.flatMap((each, index) => each.frames.filter((one) => one.flagged).map((one) => [index, one.number] as const));
  if (!places.length) return;
  const at = places.findIndex(([index, number]) => index === image && number === frame);
  go(...places[(at + by + places.length) % places.length]!);
}

function controls(): void {
  const click = (id: string, act: () => void): void => need(id).addEventListener("click", act);
  click("first", () => go(image, 1));
  click("last", () => go(image, here()?.count ?? 1));
  click("back-one", () => step(-1));
  click("forward-one", () => step(1));
  const play = (): void => {
    const count = here()?.count ?? 0;
    if (count > 1) cine.start(() => frame, count);
  };
  click("cine", () => (cine.playing ? cine.stop() : play()));
  for (const id of ["fps", "loop"]) need(id).addEventListener("change", () => cine.playing && play());
  need("scrubber").addEventListener("input", (event) => {
    cine.stop();
    go(image, (event.target as HTMLInputElement).valueAsNumber);
  });
  for (const film of document.querySelectorAll<HTMLElement>(".film"))
    film.addEventListener("click", () => {
      const to = Number(film.dataset["image"]);
      go(to, data.images[to]?.frames[0]?.number ?? 1);
    });
  for (const place of document.querySelectorAll<HTMLElement>("[data-goto]"))
    place.addEventListener("click", () => {
      const to = data.images.findIndex((each) => each.uid === place.dataset["goto"]);
      if (to >= 0) go(to, Number(place.dataset["frame"]));
    });
  bind("]", "Next finding", () => finding(1));
  bind("[", "Previous finding", () => finding(-1));
  if (data.decides) bind("e", "Choose a mark of the frame", () => boxes.next());
  window.addEventListener("online", () => void show());
  document.addEventListener("sonomark:signed-in", () => void show());
}

controls();
startPointers(stage, boxes, { adjust: (window_, level) => look.adjust(window_, level), step });
const first = find<HTMLImageElement>("first-frame");
const start = here();
if (first && start) pictures.adopt(pictures.address(start.uid, start.sha256, frame, "image"), first);
startDecide(painted);
startAnswer(painted);
startPrefetch(painted);
startWatch();
cine.offer(here()?.fps ?? 20);
position();
void show();
