/** The cine: at its own frame rate where the header tells it, round and round, to and fro, or once. */
import { need } from "./page";

type Loop = "round" | "swing" | "once";

const PLAY = "M4 2.5v11l9-5.5z";
const STOP = "M3 3h10v10H3z";

export class Cine {
  private timer: number | undefined;
  private forward = true;
  private busy = false;

  /** `step` shows the frame and settles when it is painted: a frame that is still coming is waited for, never skipped. */
  constructor(private readonly step: (frame: number) => Promise<void>) {}

  get playing(): boolean {
    return this.timer !== undefined;
  }

  get fps(): number {
    return Number(need<HTMLSelectElement>("fps").value);
  }

  get loop(): Loop {
    return need<HTMLSelectElement>("loop").value as Loop;
  }

  /** The rate that the header tells, among those that can be chosen. */
  offer(own: number): void {
    const select = need<HTMLSelectElement>("fps");
    const first = select.options[0]!;
    first.value = String(own);
    first.textContent = `${own} fps`;
    if (select.selectedIndex === 0) select.value = first.value;
  }

  start(current: () => number, count: number): void {
    this.stop();
    this.forward = true;
    if (this.loop === "once" && current() >= count) void this.step(1);
    this.timer = window.setInterval(() => {
      if (this.busy) return;
      const next = this.next(current(), count);
      if (next === null) return this.stop();
      this.busy = true;
      void this.step(next).finally(() => (this.busy = false));
    }, 1000 / this.fps);
    this.button();
  }

  stop(): void {
    window.clearInterval(this.timer);
    this.timer = undefined;
    this.button();
  }

  private next(frame: number, count: number): number | null {
    if (this.loop === "swing") {
      if (frame >= count) this.forward = false;
      if (frame <= 1) this.forward = true;
      return frame + (this.forward ? 1 : -1);
    }
    if (frame < count) return frame + 1;
    return this.loop === "once" ? null : 1;
  }

  private button(): void {
    const button = need("cine");
    const word = this.playing ? "Stop" : "Play";
    button.querySelector("path")?.setAttribute("d", this.playing ? STOP : PLAY);
    button.setAttribute("aria-label", word);
    button.title = word;
  }
}
