/** Marks drawn over the frame: a coloured stroke with a black casing on both sides, so that it shows on every grey. */

export interface Mark {
  id: number;
  kind: string;
  score: number;
  box: [number, number, number, number];
  source: string;
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
const PERSON: Look = { colour: "#FFFFFF", dash: [], tag: "✎" };

export function lookOf(mark: Pick<Mark, "kind" | "source">): Look {
  return mark.source.startsWith("person") ? PERSON : (LOOKS[mark.kind] ?? PERSON);
}

export function drawMark(
  context: CanvasRenderingContext2D, mark: Mark, x: number, y: number, width: number, height: number, chosen = false,
): void {
  const look = lookOf(mark);
  context.save();
  context.lineJoin = "round";
  context.setLineDash([]);
  context.strokeStyle = "#000";
  context.lineWidth = chosen ? 6 : 4;
  context.strokeRect(x, y, width, height);
  context.strokeStyle = look.colour;
  context.lineWidth = chosen ? 3 : 2;
  context.setLineDash(look.dash);
  context.strokeRect(x, y, width, height);
  if (look === PERSON) context.strokeRect(x - 4, y - 4, width + 8, height + 8);
  context.restore();
  drawTag(context, look, x, y);
}

function drawTag(context: CanvasRenderingContext2D, look: Look, x: number, y: number): void {
  const left = Math.max(1, x - 1);
  const top = y > 19 ? y - 18 : y + 2;
  context.fillStyle = "#000";
  context.fillRect(left - 1, top - 1, 18, 18);
  context.fillStyle = look.colour;
  context.fillRect(left, top, 16, 16);
  context.fillStyle = "#000";
  context.font = "bold 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(look.tag, left + 8, top + 8.5);
}
