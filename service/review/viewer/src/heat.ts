/** The residual as a heat map: inferno, black where nothing was removed, on a fixed scale so that frames compare. */

export const SCALE_MAX = 128; // grey levels at the top of the scale; above it everything is as bright

const STOPS = ["000004", "1B0C42", "4B0C6B", "781C6D", "A52C60", "CF4446", "ED6925", "FB9A06", "F7D03C", "FCFFA4"];

function channels(stop: string): [number, number, number] {
  const value = parseInt(stop, 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** 256 colours, four bytes each. */
const TABLE = (() => {
  const table = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; level++) {
    const place = (Math.min(level, SCALE_MAX) / SCALE_MAX) * (STOPS.length - 1);
    const low = Math.min(STOPS.length - 2, Math.floor(place));
    const from = channels(STOPS[low]!);
    const to = channels(STOPS[low + 1]!);
    for (let c = 0; c < 3; c++) table[level * 4 + c] = from[c]! + (to[c]! - from[c]!) * (place - low);
    table[level * 4 + 3] = 255;
  }
  return table;
})();

const made = new WeakMap<ImageBitmap, OffscreenCanvas>();

export function heatOf(residual: ImageBitmap): OffscreenCanvas {
  const known = made.get(residual);
  if (known) return known;
  const canvas = new OffscreenCanvas(residual.width, residual.height);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(residual, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4)
    pixels.data.set(TABLE.subarray(pixels.data[at]! * 4, pixels.data[at]! * 4 + 4), at);
  context.putImageData(pixels, 0, 0);
  made.set(residual, canvas);
  return canvas;
}

/** A bar with numbers, so that a colour can be read. */
export function drawScale(context: CanvasRenderingContext2D, x: number, y: number, height: number): void {
  for (let row = 0; row < height; row++) {
    const level = Math.round((1 - row / (height - 1)) * SCALE_MAX) * 4;
    context.fillStyle = `rgb(${TABLE[level]} ${TABLE[level + 1]} ${TABLE[level + 2]})`;
    context.fillRect(x, y + row, 12, 1);
  }
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  for (const level of [0, SCALE_MAX / 2, SCALE_MAX]) {
    const at = y + (1 - level / SCALE_MAX) * (height - 1);
    plate(context, level === SCALE_MAX ? `≥ ${level}` : String(level), x + 18, at);
  }
  plate(context, "brighter = more was removed here", x, y + height + 16);
}

function plate(context: CanvasRenderingContext2D, words: string, x: number, y: number): void {
  context.fillStyle = "rgb(0 0 0 / 70%)";
  context.fillRect(x - 3, y - 9, context.measureText(words).width + 6, 18);
  context.fillStyle = "#dde3e9";
  context.fillText(words, x, y);
}
