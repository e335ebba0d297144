/**
 * The stage: a frame, its restoration or its residual in one to three panes that zoom, pan and window together.
 * Two canvases lie over each other. Window and level are an SVG filter on the lower one alone, so that marks and heat
 * keep their colours and no pixel is touched by script.
 */
import { drawScale, heatOf } from "./heat";
import { drawMark, type Mark } from "./marks";

export type View = "mask" | "original" | "side" | "swipe" | "heat" | "three";
export const VIEWS: View[] = ["mask", "original", "side", "swipe", "heat", "three"];

export interface Shown {
  rows: number;
  columns: number;
  image: ImageBitmap | null;
  restoration: ImageBitmap | null;
  residual: ImageBitmap | null;
  mask: ImageBitmap | null;
  marks: Mark[];
  failed: boolean;
}

interface Pane {
  content: "image" | "restoration" | "residual";
  marks: boolean;
  x: number;
  width: number;
  clipTo?: [number, number];
}

const AWAITED: Record<Pane["content"], string> = { image: "The frame", restoration: "The restoration", residual: "The heat map" };

export class Stage {
  view: View = "mask";
  opacity = 0.3;
  swipeAt = 0.5;
  bare = false;
  zoom = 1; // times the size that fits
  panX = 0; // of the frame's centre, in CSS pixels
  panY = 0;
  window = 255;
  level = 127.5;
  inverted = false;
  editing: Mark | null = null; // drawn with handles, in place of the mark of the same id
  private shown: Shown | null = null;
  private width = 0;
  private height = 0;
  private due = false;

  constructor(
    private readonly picture: HTMLCanvasElement,
    private readonly overlay: HTMLCanvasElement,
    private readonly slopes: SVGElement[],
    private readonly changed: () => void,
  ) {
    new ResizeObserver(() => this.resize()).observe(picture); // reports once at the start too
  }

  /** What the current view needs beside the image. */
  needs(): { restoration: boolean; residual: boolean; mask: boolean } {
    return {
      restoration: this.view === "side" || this.view === "swipe" || this.view === "three",
      residual: this.view === "heat" || this.view === "three",
      mask: this.view !== "original" && !this.bare && this.opacity > 0,
    };
  }

  show(shown: Shown): void {
    this.shown = shown;
    this.draw();
  }

  draw(): void {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.paint();
    });
  }

  /** Nothing to show. */
  clear(): void {
    this.shown = null;
    this.draw();
  }

  /** Columns and rows of the frame that is shown. */
  size(): [number, number] {
    return [this.shown?.columns ?? 1, this.shown?.rows ?? 1];
  }

  panBy(x: number, y: number): void {
    this.panX += x;
    this.panY += y;
    this.draw();
  }

  fitAgain(): void {
    Object.assign(this, { zoom: 1, panX: 0, panY: 0 });
    this.draw();
  }

  reset(): void {
    Object.assign(this, { zoom: 1, panX: 0, panY: 0, window: 255, level: 127.5, inverted: false });
    this.draw();
  }

  /** Zoom so that what lies under (x, y) of the stage stays there. */
  zoomBy(factor: number, x = this.width / 2, y = this.height / 2): void {
    const pane = this.panes().find((each) => x >= each.x && x < each.x + each.width) ?? this.panes()[0]!;
    const to = Math.min(32, Math.max(0.25, this.zoom * factor));
    const by = to / this.zoom;
    const fromX = x - (pane.x + pane.width / 2);
    const fromY = y - this.height / 2;
    this.panX = fromX - (fromX - this.panX) * by;
    this.panY = fromY - (fromY - this.panY) * by;
    this.zoom = to;
    this.draw();
  }

  oneToOne(): void {
    this.zoom = 1 / (this.fit(this.panes()[0]!) * devicePixelRatio);
    this.panX = this.panY = 0;
    this.draw();
  }

  /** Screen pixels per frame pixel. */
  scale(): number {
    return this.fit(this.panes()[0]!) * this.zoom * devicePixelRatio;
  }

  /** The frame's pixel under a point of the stage. */
  toFrame(x: number, y: number): [number, number] {
    const pane = this.panes().find((each) => x >= each.x && x < each.x + each.width) ?? this.panes()[0]!;
    const [left, top, scale] = this.origin(pane);
    return [(x - left) / scale, (y - top) / scale];
  }

  private panes(): Pane[] {
    const full = this.width;
    const marks = !this.bare && this.opacity > 0;
    const image = (x: number, width: number): Pane => ({ content: "image", marks, x, width });
    if (this.bare || this.view === "original") return [{ content: "image", marks: false, x: 0, width: full }];
    switch (this.view) {
      case "side":
        return [image(0, full / 2), { content: "restoration", marks: false, x: full / 2, width: full / 2 }];
      case "three":
        return [
          image(0, full / 3),
          { content: "restoration", marks: false, x: full / 3, width: full / 3 },
          { content: "residual", marks: false, x: (2 * full) / 3, width: full / 3 },
        ];
      case "heat":
        return [{ content: "residual", marks: false, x: 0, width: full }];
      case "swipe": {
        const edge = this.swipeAt * full;
        return [
          { content: "image", marks: false, x: 0, width: full, clipTo: [0, edge] },
          { content: "restoration", marks: false, x: 0, width: full, clipTo: [edge, full] },
        ];
      }
      default:
        return [image(0, full)];
    }
  }

  private fit(pane: Pane): number {
    if (!this.shown || !this.width) return 1;
    return Math.min((pane.width - 4) / this.shown.columns, this.height / this.shown.rows);
  }

  private origin(pane: Pane): [number, number, number] {
    const scale = this.fit(pane) * this.zoom;
    const columns = this.shown?.columns ?? 1;
    const rows = this.shown?.rows ?? 1;
    const left = pane.x + pane.width / 2 + this.panX - (columns * scale) / 2;
    const top = this.height / 2 + this.panY - (rows * scale) / 2;
    return [left, top, scale];
  }

  private resize(): void {
    const box = this.picture.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.width = box.width;
    this.height = box.height;
    for (const canvas of [this.picture, this.overlay]) {
      canvas.width = Math.round(box.width * devicePixelRatio);
      canvas.height = Math.round(box.height * devicePixelRatio);
    }
    this.paint();
  }

  private paint(): void {
    const below = this.picture.getContext("2d")!;
    const above = this.overlay.getContext("2d")!;
    for (const context of [below, above]) {
      context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      context.clearRect(0, 0, this.width, this.height);
    }
    this.filter();
    if (this.shown) for (const pane of this.panes()) this.paintPane(below, above, this.shown, pane);
    if (this.view === "swipe" && !this.bare) this.paintEdge(above);
    this.changed();
  }

  private paintPane(below: CanvasRenderingContext2D, above: CanvasRenderingContext2D, shown: Shown, pane: Pane): void {
    const bitmap = pane.content === "residual" ? shown.residual && heatOf(shown.residual) : shown[pane.content];
    const [left, top, scale] = this.origin(pane);
    const [from, to] = pane.clipTo ?? [pane.x, pane.x + pane.width];
    const context = pane.content === "residual" ? above : below;
    for (const each of [below, above]) {
      each.save();
      each.beginPath();
      each.rect(from, 0, to - from, this.height);
      each.clip();
    }
    context.imageSmoothingEnabled = scale * devicePixelRatio < 2;
    context.imageSmoothingQuality = "high";
    if (bitmap) context.drawImage(bitmap, left, top, shown.columns * scale, shown.rows * scale);
    else if (!shown.failed) waiting(above, pane, this.height);
    if (pane.content === "residual" && bitmap) drawScale(above, pane.x + 14, 14, 140);
    if (pane.marks && bitmap) this.paintMarks(above, shown, left, top, scale);
    for (const each of [below, above]) each.restore();
    if (pane.x > 0) {
      above.fillStyle = "#2f3943";
      above.fillRect(pane.x, 0, 1, this.height);
    }
  }

  private paintMarks(above: CanvasRenderingContext2D, shown: Shown, left: number, top: number, scale: number): void {
    if (shown.mask) {
      above.globalAlpha = this.opacity;
      above.imageSmoothingEnabled = false;
      above.drawImage(shown.mask, left, top, shown.columns * scale, shown.rows * scale);
      above.globalAlpha = 1;
    }
    const editing = this.editing;
    const marks = editing ? [...shown.marks.filter((mark) => mark.id !== editing.id), editing] : shown.marks;
    for (const mark of marks) {
      const [x, y, width, height] = mark.box;
      const air = mark === editing ? 0 : 3; // the stroke lies around the mark, not on it
      drawMark(
        above, mark, left + x * scale - air, top + y * scale - air, width * scale + 2 * air, height * scale + 2 * air,
        mark === editing,
      );
    }
  }

  private paintEdge(above: CanvasRenderingContext2D): void {
    const edge = this.swipeAt * this.width;
    above.fillStyle = "#000";
    above.fillRect(edge - 2, 0, 4, this.height);
    above.fillStyle = "#ffd54a";
    above.fillRect(edge - 1, 0, 2, this.height);
  }

  /** out = (in − (level − window / 2)) / window, for each channel. */
  private filter(): void {
    const plain = this.window === 255 && this.level === 127.5 && !this.inverted;
    this.picture.style.filter = plain ? "none" : "url(#window)";
    let slope = 255 / this.window;
    let intercept = -(this.level - this.window / 2) / this.window;
    if (this.inverted) [slope, intercept] = [-slope, 1 - intercept];
    for (const each of this.slopes) {
      each.setAttribute("slope", String(slope));
      each.setAttribute("intercept", String(intercept));
    }
  }
}

function waiting(context: CanvasRenderingContext2D, pane: Pane, height: number): void {
  context.fillStyle = "#a4b0bc";
  context.font = "14px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText(`${AWAITED[pane.content]} is being computed …`, pane.x + pane.width / 2, height / 2);
}
