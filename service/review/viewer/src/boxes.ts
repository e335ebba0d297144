/**
 * Drawing and correcting a box: drag, click two corners, or type four numbers; arrows move it, with Shift they resize.
 * What is saved is a person's word beside the network's, never instead of it; the last one can be undone.
 */
import { between, contains, cornerAt, dragged, markAt, moved, within, type Point } from "./geometry";
import { layerKeys } from "./keys";
import { KINDS, isPersons, type Box, type Mark } from "./marks";
import { Refused, ask, find, need, say, warn } from "./page";
import { data, kindWords, marksOn, type Correction, type StudyImage } from "./study";

const CLICK = 4; // CSS pixels: less is a click, more is a drag
const REACH = 12; // CSS pixels around a corner, so that its target is 24 wide
const HOW = "Drag a box on the frame, click two of its corners, or type its numbers. Arrows begin in the middle.";

/** What the editor asks of the viewer. */
interface Surface {
  image: () => StudyImage | undefined;
  frame: () => number;
  size: () => Point; // of the frame: columns, rows
  scale: () => number; // CSS pixels per frame pixel
  editing: (mark: Mark | null) => void; // draw it, with handles
  changed: () => void; // the frame's marks are other ones now
}

interface Grip {
  at: Point;
  was: Box | null;
  corner: number | null;
  dragging: boolean;
}

export class Boxes {
  private open = false;
  private of: Mark | null = null; // the mark that is corrected; null: a new one
  private kind = KINDS[0]!;
  private box: Box | null = null;
  private corner: Point | null = null; // the first of two clicked ones
  private grip: Grip | null = null;
  private busy = false;
  private undo: (() => Promise<void>) | null = null;

  constructor(private readonly surface: Surface) {
    if (!data.decides) return;
    need("box-add").addEventListener("click", () => this.begin(null));
    need("box-cancel").addEventListener("click", () => this.close());
    need("box-delete").addEventListener("click", () => void this.remove());
    need("box-undo").addEventListener("click", () => void this.takeBack());
    need("box-bar").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.save();
    });
    need("box-bar").addEventListener("input", () => this.typed());
  }

  /** Edit a mark, or with null draw a new one. */
  begin(mark: Mark | null): void {
    if (!this.surface.image() || !data.decides) return;
    this.open = true;
    this.of = mark;
    this.kind = mark?.kind ?? this.kind;
    this.box = mark ? [...mark.box] : null;
    this.corner = null;
    need("view-bar").hidden = true;
    need("box-bar").hidden = false;
    need("box-delete").textContent = !mark ? "Discard" : isPersons(mark) ? "Delete" : mark.rejected ? "It is one" : "Not a mark";
    layerKeys(this.keys());
    this.show();
    say(mark ? `${kindWords(mark.kind)} chosen.` : HOW);
  }

  /** The next mark of the frame, for those who do not point. */
  next(): void {
    const marks = this.marks();
    if (!marks.length) return say("No mark on this frame. Press a to draw one.");
    const at = marks.findIndex((mark) => mark.id === this.of?.id);
    this.begin(marks[(at + 1) % marks.length]!);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.box = this.of = this.grip = this.corner = null;
    need("view-bar").hidden = false;
    need("box-bar").hidden = true;
    layerKeys(null);
    this.surface.editing(null);
    need("stage").focus({ preventScroll: true });
  }

  /** A press on the stage, at a pixel of the frame. Returns whether it was for the editor. */
  down(at: Point): boolean {
    if (!this.open) return false;
    const reach = REACH / this.surface.scale();
    const corner = this.box && !this.corner ? cornerAt(this.box, at, reach) : null;
    const inside = corner !== null || (this.box !== null && contains(this.box, at, reach));
    this.grip = { at, was: inside && !this.corner ? this.box : null, corner, dragging: false };
    return true;
  }

  move(at: Point): void {
    const grip = this.grip;
    if (!grip) {
      if (this.corner) this.place(between(this.corner, at)); // after the first click the box follows the pointer
      return;
    }
    const far = Math.hypot(at[0] - grip.at[0], at[1] - grip.at[1]) * this.surface.scale() > CLICK;
    if (!far && !grip.dragging) return;
    grip.dragging = true;
    this.corner = null;
    if (!grip.was) this.place(between(grip.at, at));
    else if (grip.corner !== null) this.place(dragged(grip.was, grip.corner, at));
    else this.place(moved(grip.was, [at[0] - grip.at[0], at[1] - grip.at[1]], ...this.surface.size()));
  }

  up(at: Point): void {
    const grip = this.grip;
    this.grip = null;
    if (!grip || grip.dragging || grip.was) return;
    if (this.corner) {
      this.place(between(this.corner, at));
      this.corner = null;
    } else {
      this.corner = at;
      say("First corner set; click the opposite one.");
    }
  }

  /** A click while nothing is edited: the mark under it is chosen. */
  choose(at: Point): void {
    const mark = data.decides ? markAt(this.marks(), at, REACH / this.surface.scale()) : null;
    if (mark) this.begin(mark);
  }

  private marks(): Mark[] {
    const image = this.surface.image();
    return image ? marksOn(image, this.surface.frame()) : [];
  }

  private keys(): Record<string, [string, () => void]> {
    const keys: Record<string, [string, () => void]> = {
      Enter: ["Save the box", () => void this.save()],
      Escape: ["Leave the box", () => this.close()],
      Delete: ["Delete the box, or say that it is none", () => void this.remove()],
      e: ["Next mark of the frame", () => this.next()],
    };
    KINDS.forEach((kind, place) => (keys[String(place + 1)] = [kindWords(kind), () => { this.kind = kind; this.show(); }]));
    const steps: Record<string, [string, Point]> = {
      ArrowLeft: ["left", [-1, 0]], ArrowRight: ["right", [1, 0]], ArrowUp: ["up", [0, -1]], ArrowDown: ["down", [0, 1]],
    };
    for (const [key, [word, by]] of Object.entries(steps)) {
      keys[key] = [`Move the box ${word}`, () => this.nudge(by, false)];
      keys[`Shift+${key}`] = [`Move its lower right corner ${word}`, () => this.nudge(by, true)];
    }
    return keys;
  }

  private nudge([x, y]: Point, size: boolean): void {
    const [columns, rows] = this.surface.size();
    if (!this.box) this.place([columns * 0.4, rows * 0.4, columns * 0.2, rows * 0.2].map(Math.round) as Box);
    else if (size) this.place([this.box[0], this.box[1], this.box[2] + x, this.box[3] + y]);
    else this.place(moved(this.box, [x, y], columns, rows));
  }

  private place(box: Box): void {
    this.box = within(box, ...this.surface.size());
    this.show();
  }

  private typed(): void {
    this.kind = need<HTMLSelectElement>("box-kind").value;
    const typed = ["x", "y", "width", "height"].map((name) => need<HTMLInputElement>(`box-${name}`).valueAsNumber);
    if (!typed.some(Number.isNaN)) this.box = typed as Box;
    this.draw();
  }

  private show(): void {
    need<HTMLSelectElement>("box-kind").value = this.kind;
    ["x", "y", "width", "height"].forEach((name, place) => {
      need<HTMLInputElement>(`box-${name}`).value = this.box ? String(this.box[place]) : "";
    });
    this.draw();
  }

  private draw(): void {
    const nowhere: Box = [-9999, -9999, 0, 0];
    this.surface.editing({ id: this.of?.id ?? 0, kind: this.kind, score: 1, box: this.box ?? nowhere, source: "person" });
  }

  private async save(): Promise<void> {
    if (!this.box) return say(HOW);
    const same = this.of && this.of.kind === this.kind && this.of.box.every((side, place) => side === this.box![place]);
    if (same) return this.close();
    const body: Record<string, unknown> = { kind: this.kind, box: within(this.box, ...this.surface.size()) };
    if (this.of && isPersons(this.of)) body["replaces"] = -this.of.id;
    else if (this.of && !this.of.rejected) body["annotation"] = this.of.id;
    await this.send(body, this.of, "Box saved.");
  }

  private async remove(): Promise<void> {
    const mark = this.of;
    if (!mark) return this.close();
    if (!isPersons(mark) && !mark.rejected) return this.send({ annotation: mark.id }, null, "Said: this is not a mark.");
    const image = this.surface.image()!;
    const said = image.corrections.find((each) => (isPersons(mark) ? each.id === -mark.id : each.annotation === mark.id));
    if (!said) return this.close();
    const frame = this.surface.frame();
    await this.safely(async () => {
      await this.withdraw(image, said.id);
      const again = said.annotation === null ? { kind: said.kind, box: said.box } : { annotation: said.annotation };
      this.done(said.annotation === null ? "Box deleted." : "Taken back: it is a mark.", async () => {
        await this.post(image, frame, again);
      });
    });
  }

  private async send(body: Record<string, unknown>, before: Mark | null, words: string): Promise<void> {
    const [image, frame] = [this.surface.image()!, this.surface.frame()];
    await this.safely(async () => {
      const made = await this.post(image, frame, body);
      this.done(words, async () => {
        for (const each of made) await this.withdraw(image, each.id);
        if (before && isPersons(before)) await this.post(image, frame, { kind: before.kind, box: before.box });
      });
    });
  }

  private done(words: string, undo: () => Promise<void>): void {
    this.undo = undo;
    need("box-undo").hidden = false;
    this.close();
    this.surface.changed();
    say(words);
  }

  private async takeBack(): Promise<void> {
    const undo = this.undo;
    if (!undo) return;
    await this.safely(async () => {
      await undo();
      this.undo = null;
      need("box-undo").hidden = true;
      this.surface.changed();
      say("Taken back.");
    });
  }

  /** One change at a time; one that fails leaves everything as it is and says why. */
  private async safely(change: () => Promise<void>): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    find("box-save")?.setAttribute("aria-busy", "true");
    try {
      await change();
      warn("");
    } catch (error) {
      warn(error instanceof Refused ? error.message : "The server cannot be reached. The box is not saved; it stays here, try again.");
    } finally {
      this.busy = false;
      find("box-save")?.removeAttribute("aria-busy");
    }
  }

  private async post(image: StudyImage, frame: number, body: Record<string, unknown>): Promise<Correction[]> {
    const path = `/api/instances/${image.uid}/frames/${frame}/corrections?sha256=${image.sha256}`;
    const answer = (await (await ask("POST", path, JSON.stringify(body))).json()) as { corrections: Correction[] };
    if (body["replaces"]) image.corrections = image.corrections.filter((each) => each.id !== body["replaces"]);
    image.corrections.push(...answer.corrections);
    return answer.corrections;
  }

  private async withdraw(image: StudyImage, id: number): Promise<void> {
    await ask("DELETE", `/api/corrections/${id}`);
    image.corrections = image.corrections.filter((each) => each.id !== id);
  }
}
