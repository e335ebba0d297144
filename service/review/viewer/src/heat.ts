/**
 * The residual as a heat map: black where nothing was removed, on the site's own fixed scale so that frames compare.
 * Inferno keeps zero invisible; cividis is the evenest for eyes that tell red from green badly.
 */

export type Colours = "inferno" | "cividis";

const STOPS: Record<Colours, string[]> = {
  inferno: ["000004", "1B0C42", "4B0C6B", "781C6D", "A52C60", "CF4446", "ED6925", "FB9A06", "F7D03C", "FCFFA4"],
  cividis: ["00224E", "123570", "3B496C", "575D6D", "707173", "8A8678", "A59C74", "C3B369", "E1CC55", "FEE838"],
};

let brightest = 128; // grey levels at the top of the scale; above it everything is as bright
let table = tableOf("inferno");

/** Choose the scale's end and its colours; pictures made before are made anew. */
export function scale(top: number, colours: Colours): void {
  brightest = top;
  table = tableOf(colours);
  made = new WeakMap();
}

function channels(stop: string): [number, number, number] {
  const value = parseInt(stop, 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** 256 colours, four bytes each. */
function tableOf(colours: Colours): Uint8ClampedArray {
  const stops = STOPS[colours];
  const filled = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; level++) {
    const place = (Math.min(level, brightest) / brightest) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(place));
    const from = channels(stops[low]!);
    const to = channels(stops[low + 1]!);
    for (let c = 0; c < 3; c++) filled[level * 4 + c] = from[c]! + (to[c]! - from[c]!) * (place - low);
    filled[level * 4 + 3] = 255;
  }
  return filled;
}

let made = new WeakMap<ImageBitmap, OffscreenCanvas>();

export function heatOf(residual: ImageBitmap): OffscreenCanvas {
  const known = made.get(residual);
  if (known) return known;
  const canvas = new OffscreenCanvas(residual.width, residual.height);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(residual, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4)
    pixels.data.set(table.subarray(pixels.data[at]! * 4, pixels.data[at]! * 4 + 4), at);
  context.putImageData(pixels, 0, 0);
  made.set(residual, canvas);
  return canvas;
}

/** A bar with numbers, so that a colour can be read. */
export function drawScale(context: CanvasRenderingContext2D, x: number, y: number, height: number): void {
  for (let row = 0; row < height; row++) {
    const level = Math.round((1 - row / (height - 1)) * brightest) * 4;
    context.fillStyle = `rgb(${table[level]} ${table[level + 1]} ${table[level + 2]})`;
    context.fillRect(x, y + row, 12, 1);
  }
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  for (const level of [0, brightest / 2, brightest]) {
    const at = y + (1 - level / brightest) * (height - 1);
    plate(context, level === brightest ? `≥ ${level}` : String(Math.round(level)), x + 18, at);
  }
  plate(context, "brighter = more was removed here", x, y + height + 16);
  plate(context, "grey levels", x + 18 + 40, y);
}

function plate(context: CanvasRenderingContext2D, words: string, x: number, y: number): void {
  context.fillStyle = "rgb(0 0 0 / 70%)";
  context.fillRect(x - 3, y - 9, context.measureText(words).width + 6, 18);
  context.fillStyle = "#dde3e9";
  context.fillText(words, x, y);
}
