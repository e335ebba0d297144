/** Boxes as numbers: whole pixels of the frame, origin at the upper left. */
import type { Box, Mark } from "./marks";

export type Point = [number, number];

const LEAST = 2; // pixels a side, as the server asks

/** The box between two corners, whichever they are. */
export function between([ax, ay]: Point, [bx, by]: Point): Box {
  const [left, top] = [Math.round(Math.min(ax, bx)), Math.round(Math.min(ay, by))];
  return [left, top, Math.round(Math.max(ax, bx)) - left, Math.round(Math.max(ay, by)) - top];
}

/** Moved and cut so that it lies in the frame. */
export function within([x, y, width, height]: Box, columns: number, rows: number): Box {
  const left = Math.min(Math.max(0, x), Math.max(0, columns - LEAST));
  const top = Math.min(Math.max(0, y), Math.max(0, rows - LEAST));
  return [left, top, Math.max(LEAST, Math.min(width, columns - left)), Math.max(LEAST, Math.min(height, rows - top))];
}

/** Moved as a whole: at the frame's edge it stops rather than shrinks. */
export function moved([x, y, width, height]: Box, by: Point, columns: number, rows: number): Box {
  return [
    Math.round(Math.min(Math.max(0, x + by[0]), columns - width)),
    Math.round(Math.min(Math.max(0, y + by[1]), rows - height)),
    width, height,
  ];
}

export function corners([x, y, width, height]: Box): Point[] {
  return [[x, y], [x + width, y], [x, y + height], [x + width, y + height]];
}

/** Which corner lies within reach of the point; null: none. */
export function cornerAt(box: Box, point: Point, reach: number): number | null {
  const found = corners(box).findIndex(([x, y]) => Math.hypot(x - point[0], y - point[1]) <= reach);
  return found < 0 ? null : found;
}

/** The box with one corner dragged to a point; the opposite one stays. */
export function dragged(box: Box, corner: number, to: Point): Box {
  return between(corners(box)[3 - corner]!, to);
}

export function contains([x, y, width, height]: Box, [atX, atY]: Point, air = 0): boolean {
  return atX >= x - air && atX <= x + width + air && atY >= y - air && atY <= y + height + air;
}

/** The smallest mark under the point. */
export function markAt(marks: Mark[], point: Point, air: number): Mark | null {
  const under = marks.filter((mark) => contains(mark.box, point, air));
  return under.sort((a, b) => a.box[2] * a.box[3] - b.box[2] * b.box[3])[0] ?? null;
}
