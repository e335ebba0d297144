/**
 * The pointer on the stage. Drag pans, drag with the right button or Alt sets window and level, two fingers zoom; the
 * wheel steps through frames, with Ctrl it zooms. While a box is edited, one pointer belongs to the box.
 */
import type { Boxes } from "./boxes";
import { need } from "./page";
import type { Stage } from "./stage";

const CLICK = 4; // CSS pixels

interface Acts {
  adjust: (window: number, level: number) => void;
  step: (by: number) => void;
}

export function startPointers(stage: Stage, boxes: Boxes, acts: Acts): void {
  const surface = need("stage");
  const down = new Map<number, PointerEvent>();
  let travelled = 0;
  let forBox = false;

  const place = (event: PointerEvent | WheelEvent): [number, number] => {
    const box = surface.getBoundingClientRect();
    return [event.clientX - box.x, event.clientY - box.y];
  };
  const pixel = (event: PointerEvent): [number, number] => stage.toFrame(...place(event));

  surface.addEventListener("contextmenu", (event) => event.preventDefault());
  surface.addEventListener("pointerdown", (event) => {
    if (event.target instanceof HTMLInputElement) return;
    surface.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event);
    travelled = 0;
    forBox = down.size === 1 && event.button === 0 && !event.altKey && boxes.down(pixel(event));
  });
  surface.addEventListener("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (forBox || !last) boxes.move(pixel(event));
    if (forBox || !last) return;
    const [x, y] = [event.clientX - last.clientX, event.clientY - last.clientY];
    travelled += Math.hypot(x, y);
    if (down.size === 2) {
      const other = [...down.values()].find((each) => each.pointerId !== event.pointerId)!;
      const spread = (one: PointerEvent): number => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      if (spread(last) > 0) stage.zoomBy(spread(event) / spread(last), ...place(event));
    } else if (event.buttons === 2 || event.altKey) acts.adjust(x, y);
    else if (travelled > CLICK) stage.panBy(x, y);
    down.set(event.pointerId, event);
  });
  surface.addEventListener("pointerup", (event) => {
    const pressed = down.delete(event.pointerId);
    if (forBox) boxes.up(pixel(event));
    else if (pressed && event.button === 0 && travelled <= CLICK) boxes.choose(pixel(event));
    forBox = false;
  });
  surface.addEventListener("pointercancel", (event) => {
    down.delete(event.pointerId);
    forBox = false;
  });
  surface.addEventListener("dblclick", () => need("fit").click());
  surface.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) stage.zoomBy(Math.exp(-event.deltaY / 300), ...place(event));
    else acts.step(event.deltaY > 0 ? 1 : -1);
  }, { passive: false });
}
