/** Marks drawn over the frame: a coloured stroke with a black casing on both sides, so that it shows on every grey. */

/** x, y, width, height in pixels of the frame. */
export type Box = [number, number, number, number];

export interface Mark {
  id: number; // of a person's mark: the correction's id, negative
  kind: string;
  score: number;
  box: Box;
  source: string;
  rejected?: boolean; // a person says that it is none
}

interface Look {
  colour: string;
  dash: number[];
  tag: string;
}

export const LOOKS: Record<string, Look> = {
  body_marker: { colour: "#56B4E9", dash: [], tag: "B" },
  caliper: { colour: "#E69F00", dash: [6, 4], tag: "C" },
  color_box: { colour: "#F0E442", dash: [12, 4], tag: "D" },
  text: { colour: "#E7A5CB", dash: [2, 3], tag: "T" },
  arrow: { colour: "#3DDC97", dash: [8, 3, 2, 3], tag: "A" },
};
export const KINDS = Object.keys(LOOKS);
const PERSON: Look = { colour: "#FFFFFF", dash: [], tag: "✎" };

export function isPersons(mark: Pick<Mark, "source">): boolean {
  return mark.source.startsWith("person");
}

export function lookOf(mark: Pick<Mark, "kind" | "source">): Look {
  return isPersons(mark) ? { ...PERSON, tag: `✎${LOOKS[mark.kind]?.tag ?? ""}` } : (LOOKS[mark.kind] ?? PERSON);
}

export function drawMark(
  context: CanvasRenderingContext2D, mark: Mark, x: number, y: number, width: number, height: number, chosen = false,
): void {
  const look = lookOf(mark);
  context.save();
  if (mark.rejected) context.globalAlpha = 0.55;
  context.lineJoin = "round";
  const stroke = (by: number): void => context.strokeRect(x - by, y - by, width + 2 * by, height + 2 * by);
  const double = isPersons(mark);
  context.strokeStyle = "#000";
  context.lineWidth = chosen ? 6 : 4;
  stroke(0);
  if (double) stroke(5);
  context.strokeStyle = look.colour;
  context.lineWidth = chosen ? 3 : 2;
  context.setLineDash(look.dash);
  stroke(0);
  if (double) stroke(5);
  context.setLineDash([]);
  if (mark.rejected) cross(context, look.colour, x, y, width, height);
  context.restore();
  drawTag(context, look, x, double ? y - 5 : y);
  if (chosen) handles(context, x, y, width, height);
}

function cross(context: CanvasRenderingContext2D, colour: string, x: number, y: number, width: number, height: number): void {
  for (const [style, thick] of [["#000", 4], [colour, 2]] as const) {
    context.strokeStyle = style;
    context.lineWidth = thick;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + width, y + height);
    context.moveTo(x + width, y);
    context.lineTo(x, y + height);
    context.stroke();
  }
}

function handles(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number): void {
  for (const [atX, atY] of [[x, y], [x + width, y], [x, y + height], [x + width, y + height]] as const) {
    context.fillStyle = "#000";
    context.fillRect(atX - 6, atY - 6, 12, 12);
    context.fillStyle = "#FFD54A";
    context.fillRect(atX - 4, atY - 4, 8, 8);
  }
}

function drawTag(context: CanvasRenderingContext2D, look: Look, x: number, y: number): void {
  const wide = look.tag.length > 1 ? 26 : 16;
  const left = Math.max(1, x - 1);
  const top = y > 19 ? y - 18 : y + 2;
  context.fillStyle = "#000";
  context.fillRect(left - 1, top - 1, wide + 2, 18);
  context.fillStyle = look.colour;
  context.fillRect(left, top, wide, 16);
  context.fillStyle = "#000";
  context.font = "bold 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(look.tag, left + wide / 2, top + 8.5);
}
