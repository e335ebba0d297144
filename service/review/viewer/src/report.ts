/** The reports' charts, drawn by uPlot: a p-chart over time and a funnel by size. The table below says the same. */
import uPlot from "uplot";
import { find, say } from "./page";

interface Chart {
  kind: "p" | "funnel";
  centre: number | null;
  x: number[];
  n: number[];
  rate: number[];
  limit_low: (number | null)[];
  limit_high: (number | null)[];
  signal: ("above" | "below" | null)[];
  small: boolean[];
  names: string[];
  pages: string[];
  curve: { n: number[]; limit_low: number[]; limit_high: number[] } | null;
}

type Column = (number | null)[];

const HEIGHT = 230;
const WEEK = 7 * 86_400; // seconds
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000];
const day = (second: number): string => new Date(second * 1000).toISOString().slice(0, 10); // 11/12 is two days in the world
const percent = (rate: number | null | undefined): string => (rate == null ? "–" : `${(100 * rate).toFixed(1)} %`);

for (const figure of document.querySelectorAll<HTMLElement>("figure[data-chart]")) {
  const told = find(`${figure.id}-data`)?.textContent;
  if (told) draw(figure, JSON.parse(told) as Chart);
}

function draw(figure: HTMLElement, chart: Chart): void {
  const stage = figure.querySelector<HTMLElement>(".stage-of-chart")!;
  const words = figure.querySelector<HTMLElement>("output")!;
  const [data, places] = columns(chart);
  const plot = new uPlot(options(chart, stage.clientWidth, places), data as uPlot.AlignedData, stage);
  // A picture keeps the ink that it was drawn with: paper has to know.
  if (getComputedStyle(document.documentElement).colorScheme === "dark") figure.classList.add("drawn-dark");
  new ResizeObserver(() => plot.setSize({ width: stage.clientWidth, height: HEIGHT })).observe(stage);

  let at = -1;
  const show = (index: number): void => {
    at = index;
    words.textContent = sentence(chart, index);
  };
  const step = (by: number): void => {
    show(Math.min(chart.x.length - 1, Math.max(0, at + by)));
    const row = places.indexOf(at);
    plot.setCursor({ left: plot.valToPos(data[0]![row]!, "x"), top: plot.valToPos(chart.rate[at]!, "y") });
    say(words.textContent ?? "");
  };
  stage.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "Enter" && at >= 0) location.assign(chart.pages[at]!);
    else return;
    event.preventDefault();
  });
  plot.over.addEventListener("mousemove", () => {
    const row = plot.cursor.idx;
    const index = row == null ? undefined : nearest(places, row);
    if (index !== undefined) show(index);
  });
  plot.over.addEventListener("click", () => at >= 0 && location.assign(chart.pages[at]!));
}

/** uPlot's columns x, rate, centre, lower and upper limit; and which of the chart's points stands in each row. */
function columns(chart: Chart): [Column[], number[]] {
  if (!chart.curve) {
    const centre = chart.x.map(() => chart.centre);
    return [[chart.x, chart.rate, centre, chart.limit_low, chart.limit_high], chart.x.map((_, index) => index)];
  }
  // A funnel's limits are smooth lines over all sizes; its points stand between theirs, in the order of size.
  const rows = [
    ...chart.curve.n.map((n, index) => ({ n, point: -1, low: chart.curve!.limit_low[index], high: chart.curve!.limit_high[index] })),
    ...chart.x.map((n, point) => ({ n, point, low: chart.limit_low[point], high: chart.limit_high[point] })),
  ].sort((one, other) => one.n - other.n);
  return [
    [
      rows.map((row) => row.n),
      rows.map((row) => (row.point < 0 ? null : chart.rate[row.point]!)),
      rows.map(() => chart.centre),
      rows.map((row) => row.low ?? null),
      rows.map((row) => row.high ?? null),
    ],
    rows.map((row) => row.point),
  ];
}

function options(chart: Chart, width: number, places: number[]): uPlot.Options {
  const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const [text, hairline, link, muted] = ["--muted", "--hairline", "--link", "--control"].map(colour) as [string, string, string, string];
  const inTime = chart.kind === "p";
  const axis = { stroke: text, grid: { stroke: hairline, width: 1 }, ticks: { stroke: hairline } };
  const limit: uPlot.Series = {
    stroke: muted,
    dash: [2, 3],
    points: { show: false },
    spanGaps: true,
    ...(inTime ? { paths: uPlot.paths.stepped!({ align: 1 }) } : {}),
  };
  const single = chart.x.length === 1; // uPlot would show a thousand days around it
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { points: { show: false }, drag: { setScale: false } },
    tzDate: (second) => uPlot.tzDate(new Date(second * 1000), "Etc/UTC"),
    scales: { x: { time: inTime, range: (_, low, high) => padded(low, single && inTime ? low : high, inTime ? WEEK : 1) }, y: { range: (_, low) => [Math.max(0, low - 0.05), 1.02] } },
    axes: [inTime ? { ...axis, space: 90, values: (_, ticks) => ticks.map(day) } : { ...axis, incrs: WHOLE }, { ...axis, values: (_, ticks) => ticks.map((tick) => `${Math.round(100 * tick)} %`), size: 56 }],
    series: [
      {},
      {
        stroke: link,
        width: inTime ? 2 : 0,
        spanGaps: inTime,
        points: { show: (plot) => (marks(plot, chart, places, colour), false) },
      },
      { stroke: text, dash: [6, 4], points: { show: false } },
      limit,
      { ...limit },
    ],
  };
}

/** Points by hand: hollow where too few studies stand behind them; outside the limits the table's signs, up for more missing. */
function marks(plot: uPlot, chart: Chart, places: number[], colour: (name: string) => string): void {
  const { ctx } = plot;
  const size = 5 * devicePixelRatio;
  ctx.save();
  ctx.lineWidth = 2 * devicePixelRatio;
  places.forEach((index, row) => {
    if (index < 0) return;
    const x = plot.valToPos(plot.data[0][row]!, "x", true);
    const y = plot.valToPos(chart.rate[index]!, "y", true);
    const signal = chart.signal[index];
    ctx.strokeStyle = colour(signal === "below" ? "--flagged" : signal === "above" ? "--info" : "--link");
    ctx.fillStyle = chart.small[index] ? colour("--surface") : ctx.strokeStyle;
    ctx.beginPath();
    if (signal) {
      const tip = (signal === "below" ? -1.4 : 1.4) * size; // fewer complete, more missing
      ctx.moveTo(x, y + tip);
      ctx.lineTo(x + 1.4 * size, y - tip);
      ctx.lineTo(x - 1.4 * size, y - tip);
      ctx.closePath();
    } else {
      ctx.arc(x, y, size, 0, 2 * Math.PI);
    }
    ctx.fill();
    ctx.stroke();
  });
  ctx.restore();
}

/** A little room on both sides, and at least so much that a single point does not stand alone on its axis. */
function padded(low: number, high: number, least: number): [number, number] {
  const margin = Math.max((high - low) * 0.03, low === high ? least : 0);
  return [low - margin, high + margin];
}

function nearest(places: number[], row: number): number | undefined {
  for (let distance = 0; distance < places.length; distance++) {
    for (const place of [places[row - distance], places[row + distance]]) if (place !== undefined && place >= 0) return place;
  }
  return undefined;
}

function sentence(chart: Chart, index: number): string {
  const limits = `limits ${percent(chart.limit_low[index])} to ${percent(chart.limit_high[index])}`;
  const side = chart.signal[index] ? `, ${chart.signal[index]} its limits` : chart.small[index] ? ", few studies" : "";
  return `${chart.names[index]}: ${percent(chart.rate[index])} of ${chart.n[index]}, ${limits}${side}`;
}
