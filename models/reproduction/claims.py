"""Which of the paper's claims the finished cells bear out, said in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from models.reproduction.pipelines import PIPELINES
from models.reproduction.recipes import BLACK, UNCHANGED, UNTRAINED, Cell, Recipe
from models.reproduction.results import Result, difference, interval

Found = Mapping[Cell, list[Result]]

_SCHEME_CLAIM = (
    "The paper claims that most networks do better when trained Noise2Noise (N2N) than Noise2Clean (N2C), and that the"
    " costumed U-Net is the best of them on body markers."
)
_LOSS_CLAIM = "Which loss the paper found best is not recoverable; the question is whether the losses differ at all."
_METRICS = {"dice": "Dice", "ssim": "SSIM"}


def judged(recipe: Recipe, found: Found) -> str:
    """A paragraph on the claims of one recipe's two tables, pipeline by pipeline.

    Differences are taken crop by crop and called clear where their 95 % interval leaves out zero.
    """
    claim, judge = (_LOSS_CLAIM, _losses) if recipe.rows == "loss" else (_SCHEME_CLAIM, _schemes)
    sentences = [f"*{pipeline.capitalize()}:* {judge(_sound(found, pipeline))}" for pipeline in PIPELINES]
    end = [] if recipe.rows == "loss" else [_together(found)]
    return " ".join(["**What holds.**", claim, *sentences, *end])


def _sound(found: Found, pipeline: str) -> Found:
    """Cells of one pipeline that did not diverge."""
    return {
        cell: results
        for cell, results in found.items()
        if cell.pipeline == pipeline and all(result.diverged is None for result in results)
    }


def _schemes(found: Found) -> str:
    said = []
    for metric, name in _METRICS.items():
        signs = _leads(found, metric)
        ahead, behind = signs.count(1), signs.count(-1)
        said.append(f"by {name}, N2N is clearly ahead in {ahead} of {len(signs)} trained rows, N2C in {behind}")
    return f"{'; '.join(said)}. {_best(found)} {_learnt(found)}"


def _leads(found: Found, metric: str) -> list[int]:
    """For every network run under both schemes: 1 where N2N is clearly ahead, -1 where N2C is, else 0."""
    return [
        difference(found[cell], found[twin], metric).sign
        for cell in found
        if cell.scheme == "N2N" and cell.network not in UNTRAINED and (twin := replace(cell, scheme="N2C")) in found
    ]


def _together(found: Found) -> str:
    """Where N2N is clearly ahead in most rows: under both pipelines, one, or neither."""
    said = []
    for metric, name in _METRICS.items():
        signs = {pipeline: _leads(_sound(found, pipeline), metric) for pipeline in PIPELINES}
        held = [pipeline for pipeline, some in signs.items() if 2 * some.count(1) > len(some)]
        extremes = {0: "under neither pipeline", len(signs): "under both pipelines"}
        where = extremes.get(len(held), f"{', '.join(held)} only")
        said.append(f"by {name} {where}")
    return f"*Together:* the claim that N2N is ahead in most rows holds {' and '.join(said)}, as far as was run."


def _best(found: Found) -> str:
    """Who leads by Dice among the networks trained Noise2Noise in the usual way."""
    rivals = {
        cell.network: results
        for cell, results in found.items()
        if cell.network not in UNTRAINED and (cell.scheme, cell.input, cell.optimiser) == ("N2N", "linear", "AdamW")
    }
    if len(rivals) < 2:
        return "Which network is best stays open: only one was run."
    first, second, *_ = sorted(rivals, key=lambda network: -interval(rivals[network], "dice").mean)
    gap = difference(rivals[first], rivals[second], "dice")
    how = "clearly" if gap.sign else "not clearly"
    return f"The best Dice under N2N is that of `{first}`, {how} before `{second}`."


def _learnt(found: Found) -> str:
    """Whether the networks do what they are for: only then does a comparison of them say anything."""
    masks, masked = _ahead_of(BLACK, "dice", found)
    restores, restored = _ahead_of(UNCHANGED, "ssim", found)
    said = (
        f"{masks} of {masked} trained rows mask clearly better than a threshold on brightness (Dice), and {restores} of"
        f" {restored} restore clearly better than leaving the input unchanged (SSIM)."
    )
    if not masks or not restores:
        untaught = " and ".join(name for name, count in (("masking", masks), ("restoring", restores)) if not count)
        said += f" At this scale {untaught} is not learnt, and differences in it say nothing about the claims."
    return said


def _ahead_of(stand_in: str, metric: str, found: Found) -> tuple[int, int]:
    """How many trained rows are clearly ahead of one that learns nothing, and how many were compared."""
    references = {cell.scheme: results for cell, results in found.items() if cell.network == stand_in}
    signs = [
        difference(results, references[cell.scheme], metric).sign
        for cell, results in found.items()
        if cell.network not in UNTRAINED and cell.scheme in references
    ]
    return signs.count(1), len(signs)


def _losses(found: Found) -> str:
    by_loss = {cell.loss: results for cell, results in found.items()}
    if len(by_loss) < 2:
        return "fewer than two losses were run."
    best, *_, worst = sorted(by_loss, key=lambda loss: -interval(by_loss[loss], "dice").mean)
    gap = difference(by_loss[best], by_loss[worst], "dice")
    said = f"{best} is {'clearly' if gap.sign else 'not clearly'} ahead of {worst}, the last by Dice."
    huber, smooth = by_loss.get("Huber"), by_loss.get("Smooth L1")
    if huber and smooth and huber[0].values == smooth[0].values:
        said += " Huber and Smooth L1 give the same figures to the last digit, as one function under two names must."
    return said
