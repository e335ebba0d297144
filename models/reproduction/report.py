"""A reproduction's page: the tables in the paper's layout, what was run, and which claims hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.reproduction import claims, figures
from models.reproduction.crops import Crops
from models.reproduction.licences import ATTRIBUTION
from models.reproduction.pipelines import PIPELINES
from models.reproduction.recipes import BLACK, SCHEMES, UNCHANGED, UNTRAINED, Cell, Recipe
from models.reproduction.results import Interval, Result, interval
from models.reproduction.scales import Scale
from models.whole import write_whole

LABELS = {
    UNCHANGED: "*input unchanged*",
    BLACK: "*black image*",
    "costumed_unet": "Costumed U-Net",
    "costumed_unet_unshared": "Costumed U-Net, unshared",
    "fcn": "FCN_101",
    "deeplabv3": "DeepLabV3",
    "linknet": "LinkNet",
    "manet": "MANet",
    "unetplusplus": "U-Net++",
    "multiresunet": "MultiResUNet",
}

SEGMENTATION = {"dice": "Dice", "iou": "IoU", "pa": "PA"}
RESTORATION = {"ssim": "SSIM", "psnr_hvs_m": "PSNR-HVS-M (dB)", "marked_clean": "clean pixels marked (%)"}
_PER_CENT = ("marked_clean",)

ExamplesOf = Callable[[str, str], Crops]
"""Kind and pipeline → the crops of the pictures."""


@dataclass(frozen=True)
class Report:
    """Everything the document is written from: `wanted` counts the jobs that `results` are all of when nothing is left;
    `answers` finds the restorations of the examples by a finished cell."""

    scale: Scale
    recipes: Sequence[Recipe]
    wanted: int
    results: Sequence[Result]
    examples: ExamplesOf
    answers: Callable[[Result], np.ndarray]

    def write(self, document: Path) -> None:
        """Write the document, and its pictures into a folder of its name beside it."""
        pictures = document.with_suffix("")
        parts = [_INTRODUCTION, self._run(), self._samples(pictures)]
        parts += [self._recipe(recipe, pictures) for recipe in self.recipes]
        document.parent.mkdir(parents=True, exist_ok=True)
        write_whole(document, "\n\n".join(part.strip() for part in parts if part) + "\n")

    def of(self, cells: Sequence[Cell]) -> dict[Cell, list[Result]]:
        """Finished results by cell, one for each seed; a diverged one is not left out."""
        found: dict[Cell, list[Result]] = {cell: [] for cell in cells}
        for result in self.results:
            if result.cell in found:
                found[result.cell].append(result)
        return {cell: some for cell, some in found.items() if some}

    def _run(self) -> str:
        scale, trained = self.scale, [result for result in self.results if result.cell.network not in UNTRAINED]
        diverged = sum(result.diverged is not None for result in trained)
        minutes = sum(result.seconds for result in self.results) / 60
        devices = " and ".join(sorted({result.device for result in trained})) or "none"
        groups = "the patient groups of the test crops"
        over = f"{groups} (there is one seed)"
        if len(scale.seeds) > 1:
            over = f"seeds; where a row has one seed, as what learns nothing has, over {groups}"
        chance = " With one seed, no interval holds the chance of training." if len(scale.seeds) == 1 else ""
        return f"""## What was run

Scale `{scale.name}`: {len(self.results)} of {self.wanted} cells, in {minutes:.0f} minutes of training and scoring on
{devices}. Every network saw {scale.crops_seen} crops of {scale.side}² pixels, taken from {scale.training_crops} stored
ones ({scale.steps(scale.modern_batch)} steps of {scale.modern_batch} under AdamW, {scale.steps(4)} of 4 under RMSprop),
with {len(scale.seeds)} seed{"s" * (len(scale.seeds) > 1)}. Thresholds were chosen on {scale.validation_crops}
validation crops. All figures come from {scale.test_crops} test crops of data sets that neither training nor validation
saw; ± is half of a 95 % confidence interval over {over}.
{len(trained)} networks were trained, {diverged} of them diverged. Unless a row says otherwise, the input is linear, the
loss L1 and the optimiser AdamW under a one-cycle schedule.{chance}"""

    def _samples(self, pictures: Path) -> str:
        kinds = list(dict.fromkeys(recipe.kind for recipe in self.recipes))
        figures.samples({kind: self.examples(kind, "corrected") for kind in kinds}, pictures / "fig1.webp")
        chains = {name: self.examples(kinds[0], name) for name in PIPELINES}
        figures.pipelines(chains, pictures / "fig2.webp")
        named = "; ".join(ATTRIBUTION.get(source, source) for source in self._shown_sources(kinds))
        return f"""## Samples

![One sample of every data set]({pictures.name}/fig1.webp)

*Fig. 1. The three data sets: a frame annotated twice, the frame without marks, and the mask of the first annotations.*

![Inputs and targets of both pipelines]({pictures.name}/fig2.webp)

*Fig. 2. Defect 1: as published, the clean target of Noise2Clean does not go through the resize and JPEG of its input,
so that the network must learn both the marks and the difference on the right.*

The frames in the pictures come from: {named}."""

    def _shown_sources(self, kinds: Sequence[str]) -> list[str]:
        return sorted({source for kind in kinds for name in PIPELINES for source in self.examples(kind, name).sources})

    def _recipe(self, recipe: Recipe, pictures: Path) -> str:
        found = self.of(recipe.cells)
        text = [f"## Tables {recipe.tables[0]} and {recipe.tables[1]}. {recipe.title}"]
        for numeral, metrics in zip(recipe.tables, (SEGMENTATION, RESTORATION), strict=True):
            text += [self._table(recipe, found, numeral, metrics, pipeline) for pipeline in PIPELINES]
        return "\n\n".join([*text, self._figure(recipe, found, pictures), claims.judged(recipe, found)])

    def _table(
        self, recipe: Recipe, found: dict[Cell, list[Result]], numeral: str, metrics: dict[str, str], pipeline: str
    ) -> str:
        cells = [cell for cell in recipe.cells if cell.pipeline == pipeline]
        schemes = [scheme for scheme in SCHEMES if any(cell.scheme == scheme for cell in cells)]
        sizes = {result.cell.network: result.parameters for result in self.results}
        rows: dict[str, dict[str, Cell]] = {}
        for cell in cells:
            rows.setdefault(row_label(recipe, cell, sizes), {})[cell.scheme] = cell
        head = [recipe.rows.capitalize(), *(f"{scheme} {label}" for scheme in schemes for label in metrics.values())]
        lines = [f"**Table {numeral}, {pipeline}**", "", _row(head), _row(["---", *["---:"] * (len(head) - 1)])]
        for label, by_scheme in rows.items():
            values = [
                shown_value(found.get(by_scheme[scheme]) if scheme in by_scheme else None, metric)
                for scheme in schemes
                for metric in metrics
            ]
            lines.append(_row([label, *values]))
        return "\n".join(lines)

    def _figure(self, recipe: Recipe, found: dict[Cell, list[Result]], pictures: Path) -> str:
        path = pictures / f"fig{recipe.figure}.webp"
        results = [some[0] for some in found.values() if some[0].curve]
        if not results:
            return f"Fig. {recipe.figure} needs a trained network."
        if recipe.rows == "loss":
            figures.curves(results, path)
            caption = "Convergence by loss: above what each minimises, on scales of their own; below how far it is off."
        else:
            usual = ("corrected", "N2N", "linear", "AdamW")
            answers = [
                (LABELS[result.cell.network], self.answers(result))
                for result in results
                if (result.cell.pipeline, result.cell.scheme, result.cell.input, result.cell.optimiser) == usual
            ]
            figures.restorations(answers, self.examples(recipe.kind, "corrected"), path)
            caption = "Test frames and their restorations by networks trained with Noise2Noise, corrected pipeline."
        return f"![{caption}]({pictures.name}/{path.name})\n\n*Fig. {recipe.figure}. {caption}*"


def row_label(recipe: Recipe, cell: Cell, sizes: dict[str, int]) -> str:
    """The name of a row; a network's with its parameters and what sets it apart from the table's other rows."""
    if recipe.rows == "loss":
        return cell.loss
    size = f" ({sizes[cell.network] / 1e6:.1f} M)" if sizes.get(cell.network) else ""
    apart = [name for name, usual in ((cell.input, "linear"), (cell.optimiser, "AdamW")) if name != usual]
    return ", ".join([LABELS[cell.network] + size, *apart])


def shown_value(results: list[Result] | None, metric: str) -> str:
    if not results:
        return "not run"
    if any(result.diverged is not None for result in results):
        return "diverged"
    value = interval(results, metric)
    return _number(value, 100 if metric in _PER_CENT else 1, 2 if metric in (*_PER_CENT, "psnr_hvs_m") else 3)


def _number(value: Interval, factor: float, digits: int) -> str:
    half = "" if math.isnan(value.half) else f" ± {value.half * factor:.{digits}f}"
    return f"{value.mean * factor:.{digits}f}{half}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_INTRODUCTION = """
# The paper, done again

Zhang, Jiang, Xie, Cao and Teng: *Ultrasonic Image's Annotation Removal: A Self-supervised Noise2Noise Approach*, AI
Medicine 1(1):4, 2024 (arXiv 2307.04133). This page is written by
`python -m models tables --scale smoke|mini|pilot|cpu|gpu --data FOLDER --out DIR` and lies in DIR, unless `--document`
names another place: the one kept with the code is `docs/reproduction.md`.

The figures in the paper's own tables are not recoverable from any source at hand, so nothing here stands beside them;
what can be checked is whether its claims hold. Its data (a hospital's frames and icons) are not public: the marks are
drawn by the synthesiser in `models/corruption` on clean public frames. Every network starts from random weights.

Two pipelines stand side by side. *As published* has the ten defects that were found in the paper's pipeline,
*corrected* has none. Each is a switch in `models/reproduction/pipelines.py`:

1. the target of Noise2Clean (N2C) skips the resize and JPEG that its input goes through;
2. Otsu's method sets the threshold of every residual, so that clean frames have marks too;
3. nearest-neighbour reduction from 800 to 512 pixels drops thin lines;
4. the cast from float to uint8 wraps round instead of clamping;
5. outputs in standardised units (SMN) are scored without being scaled back;
6. half of the radial lines' masks belong to another icon;
7. Huber is Smooth L1 by another name, and L2 is summed where the other losses are averaged;
8. the residual is one-sided;
9. the loss is averaged over whole frames, of which marks are a few pixels;
10. markers never stand near the centre, and calipers only there.

Both pipelines use one split, disjoint by data set and by patient group, so that their figures belong to the same
frames. Two rows are no networks: *input unchanged* is what a restoration must beat, and *black image*, whose residual
is the input's brightness, is what a mask must beat. *Clean pixels marked* is the share of a frame without any mark that
is taken for one.
"""
