/** How the frame is looked at: view, mask, zoom, window and level. It persists on this station: an image keeps its settings. */
import { bind } from "./keys";
import { find, need } from "./page";
import { scale, type Colours } from "./heat";
import { data } from "./study";
import { VIEWS, type Stage, type View } from "./stage";

const SETTINGS = "viewer:v1";
const WIDE = 1600; // CSS pixels: below it two panes would shrink the frame too much

type Kept = Partial<{ view: View; opacity: number; window: number; level: number; inverted: boolean; alone: boolean; colours: Colours }>;

export class Look {
  private colours: Colours = "inferno";

  constructor(private readonly stage: Stage, private readonly reload: () => void) {
    this.restore();
    this.controls();
    this.keys();
  }

  show(view: View): void {
    if (data.blinded) return;
    this.stage.view = view;
    need<HTMLSelectElement>("view").value = view;
    this.keep();
    this.reload();
    this.stage.draw();
  }

  adjust(window_: number, level: number): void {
    this.stage.window = Math.min(1020, Math.max(8, this.stage.window + window_));
    this.stage.level = Math.min(400, Math.max(-150, this.stage.level + level));
    this.keep();
    this.stage.draw();
  }

  /** Marks can be seen: what a person draws must show. */
  reveal(): void {
    if (!["mask", "side", "three"].includes(this.stage.view)) this.show("mask");
    if (this.stage.opacity === 0) this.mask(0.3);
  }

  /** The numbers beside the controls follow the stage. */
  tell(): void {
    need<HTMLOutputElement>("zoom-out").value = `${Math.round(this.stage.scale() * 100)} %`;
    for (const name of ["window", "level"] as const) {
      const input = need<HTMLInputElement>(`${name}-at`);
      if (document.activeElement !== input) input.value = String(Math.round(this.stage[name]));
    }
    need("invert").setAttribute("aria-pressed", String(this.stage.inverted));
    need("restored-badge").hidden = this.stage.bare || !this.stage.needs().restoration;
    need("heat-colours").hidden = !this.stage.needs().residual;
    need("swipe").hidden = this.stage.bare || this.stage.view !== "swipe";
  }

  private mask(opacity: number): void {
    const missing = !this.stage.needs().mask;
    this.stage.opacity = opacity;
    need<HTMLInputElement>("opacity").value = String(Math.round(opacity * 100));
    this.keep();
    if (missing) this.reload();
    this.stage.draw();
  }

  private keep(): void {
    const { view, opacity, window, level, inverted } = this.stage;
    const { colours } = this;
    const alone = document.body.classList.contains("alone");
    localStorage.setItem(SETTINGS, JSON.stringify({ view, opacity, window, level, inverted, alone, colours } satisfies Kept));
  }

  private restore(): void {
    const kept = JSON.parse(localStorage.getItem(SETTINGS) ?? "{}") as Kept;
    if (data.blinded) this.stage.view = "original";
    else if (kept.view && VIEWS.includes(kept.view)) this.stage.view = kept.view;
    else if (window.innerWidth >= WIDE) this.stage.view = "side";
    if (kept.opacity !== undefined) this.stage.opacity = kept.opacity;
    if (kept.window && kept.level !== undefined) [this.stage.window, this.stage.level] = [kept.window, kept.level];
    this.stage.inverted = kept.inverted ?? false;
    document.body.classList.toggle("alone", kept.alone ?? false);
    this.paint(kept.colours === "cividis" ? "cividis" : "inferno");
    need<HTMLSelectElement>("view").value = this.stage.view;
    need<HTMLInputElement>("opacity").value = String(Math.round(this.stage.opacity * 100));
  }

  /** The heat map's colours. */
  private paint(colours: Colours): void {
    this.colours = need<HTMLSelectElement>("colours").value = colours;
    scale(data.heat_top, colours);
    this.stage.draw();
  }

  private controls(): void {
    const click = (id: string, act: () => void): void => need(id).addEventListener("click", act);
    const number = (event: Event): number => (event.target as HTMLInputElement).valueAsNumber;
    click("fit", () => this.stage.fitAgain());
    click("one-to-one", () => this.stage.oneToOne());
    click("zoom-in", () => this.stage.zoomBy(1.25));
    click("zoom-less", () => this.stage.zoomBy(0.8));
    click("invert", () => { this.stage.inverted = !this.stage.inverted; this.keep(); this.stage.draw(); });
    click("reset", () => { this.stage.reset(); this.keep(); });
    need("view").addEventListener("change", (event) => this.show((event.target as HTMLSelectElement).value as View));
    need("colours").addEventListener("change", (event) => {
      this.paint((event.target as HTMLSelectElement).value as Colours);
      this.keep();
    });
    need("opacity").addEventListener("input", (event) => this.mask(number(event) / 100));
    for (const name of ["window", "level"] as const)
      need(`${name}-at`).addEventListener("input", (event) => {
        const by = number(event) - this.stage[name];
        if (!Number.isNaN(by)) this.adjust(name === "window" ? by : 0, name === "level" ? by : 0);
      });
    need("swipe").addEventListener("input", (event) => {
      this.stage.swipeAt = number(event) / 1000;
      this.stage.draw();
    });
  }

  private keys(): void {
    const toggle = (view: View) => () => this.show(this.stage.view === view ? "mask" : view);
    bind("m", "Mask on or off", () => this.mask(this.stage.opacity > 0 ? 0 : 0.3));
    bind("h", "Heat map", toggle("heat"));
    bind("s", "Swipe original and restoration", toggle("swipe"));
    for (const [key, x, y] of [["Left", 40, 0], ["Right", -40, 0], ["Up", 0, 40], ["Down", 0, -40]] as const)
      bind(`Shift+Arrow${key}`, `Pan ${key.toLowerCase()}`, () => this.stage.panBy(x, y));
    bind("b", "Brighter", () => this.adjust(0, -8));
    bind("B", "Darker", () => this.adjust(0, 8));
    bind("t", "More contrast", () => this.adjust(-12, 0));
    bind("T", "Less contrast", () => this.adjust(12, 0));
    bind("p", "Panels on or off", () => { document.body.classList.toggle("alone"); this.keep(); });
    bind("z", "Hold: the original, bare", () => this.bare(true));
    document.addEventListener("keyup", (event) => event.key === "z" && this.bare(false));
    window.addEventListener("blur", () => this.bare(false));
  }

  private bare(on: boolean): void {
    if (this.stage.bare === on) return;
    this.stage.bare = on;
    this.stage.draw();
    if (on) find("stage-message")?.setAttribute("hidden", "");
  }
}
