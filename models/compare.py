"""The product's network beside the paper's, in one run: the same unseen styles on the same unseen frames.

The costumed U-Net restores and knows no kinds. So each sample carries marks of one kind only, which favours it: every
pixel it takes away counts as that kind, while the product's network must also name it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn

from models.architectures.costumed_unet import CostumedUNet
from models.architectures.unshuffle_unet import gflop
from models.corruption import KINDS, mark, screens
from models.corruption.degradation import Degradation
from models.dataset import CleanFrame, read_frame
from models.export import MAX_SIDE
from models.loss import restoration_loss
from models.machine import bf16_is_fast, placed
from models.metrics import dice, iou, pixel_accuracy, psnr_hvs_m, ssim
from models.pool import CropPool
from models.recipe import Recipe
from models.served import Weights, reduced
from models.statistics import mean_interval
from models.train import one_cycle
from models.variation import varied
from models.whole import write_whole
from service.analyse.close_ups import ENLARGED
from service.analyse.padding import padded
from service.analyse.residual import grown, inpainted, residual

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

METRICS = ("Dice", "Dice, 1 px", "IoU", "pixel accuracy", "SSIM", "PSNR-HVS-M")
_SIDE, _BATCH, _RATE = 128, 8, 2e-3
_BEST_PSNR = 100.0  # dB; an image equal to its reference has no finite one


@dataclass(frozen=True)
class Marked:
    """A frame with marks of one kind: uint8 (H, W, 3) twice; ``truth`` where they are, ``counted`` where scores look,
    which leaves out what was drawn beside them of another kind."""

    noisy: Frame
    clean: Frame
    truth: Mask
    counted: Mask


def one_kind(frame: Frame, kind: int, rng: np.random.Generator, *, held_out: bool) -> Marked:
    """Marks of one kind (1 + its index in `KINDS`) on a bare frame."""
    clean, layout = screens.compose(frame, rng, False, held_out)
    canvas = mark(clean, rng, layout, (kind,), held_out)
    degradation = Degradation.drawn(rng)
    labels = degradation.labels(canvas, clean)
    others = grown(((labels > 0) & (labels != kind)).astype(np.uint8), 3) > 0
    return Marked(degradation.image(canvas.image), degradation.image(clean), labels == kind, ~others)


def samples(frames: Sequence[CleanFrame], kind: int, count: int, seed: int, *, held_out: bool) -> Iterator[Marked]:
    """``count`` frames that really carry the kind, the same ones for the same seed."""
    rng = np.random.default_rng([seed, kind])
    found = 0
    while found < count:
        frame = reduced(read_frame(frames[int(rng.integers(len(frames)))].path), MAX_SIDE)
        drawn = one_kind(frame, kind, rng, held_out=held_out)
        if drawn.truth.any() and max(drawn.truth.shape) <= MAX_SIDE:
            found += 1
            yield drawn


def rival(frames: Sequence[CleanFrame], recipe: Recipe, minutes: float) -> CostumedUNet:
    """A costumed U-Net trained Noise2Noise on the crops the product's network learns from, for so many minutes.

    It gets the corrected pipeline: loss balanced between marked and other pixels, a modern optimiser.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = placed(CostumedUNet(), torch.device("cpu"))
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE)
    settings = replace(recipe.crops, side=_SIDE)
    with CropPool(frames, settings, recipe.pool, recipe.workers, recipe.seed) as pool:
        pool.wait()
        started = time.monotonic()
        while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
            for group in optimiser.param_groups:
                group["lr"] = _RATE * one_cycle(done, 0.1)
            noisy, second, kinds = (torch.from_numpy(part) for part in pool.batch(rng, _BATCH))
            noisy, second, kinds = varied(noisy, second, kinds, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast(torch.device("cpu"))):
                restoration = network(noisy)
            loss = restoration_loss(restoration.float(), second, kinds > 0, 1.0)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
    return network.eval()


@torch.no_grad()
def restored(network: nn.Module, frame: Frame) -> Frame:
    """The rival's restoration of a frame of any size, uint8."""
    height, width = frame.shape[:2]
    whole = padded(frame, -height % 32, -width % 32)
    level: Tensor = torch.from_numpy(whole).permute(2, 0, 1)[None].float() / 255
    answer = (network(level)[0] * 255).clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(answer[:height, :width])


def chosen_threshold(network: nn.Module, frames: Sequence[CleanFrame], kind: int, count: int, seed: int) -> int:
    """The residual, in grey levels, above which the rival's masks overlap best with training's styles."""
    planes = [
        (residual(each.noisy, restored(network, each.noisy)), each)
        for each in samples(frames, kind, count, seed, held_out=False)
    ]
    levels = range(4, 160, 4)
    overlap = [
        np.mean([dice((plane > level) & each.counted, each.truth & each.counted) for plane, each in planes])
        for level in levels
    ]
    return levels[int(np.argmax(overlap))]


def scores(mask: Mask, restoration: Frame, sample: Marked) -> list[float]:
    """One value for each of `METRICS`."""
    mask, truth = mask & sample.counted, sample.truth & sample.counted
    near_truth, near_mask = (grown(each.astype(np.uint8), 1) > 0 for each in (truth, mask))
    tolerant = ((mask & near_truth).sum() + (truth & near_mask).sum()) / max(1, mask.sum() + truth.sum())
    shown = np.ascontiguousarray(np.where(sample.counted[..., None], restoration, sample.clean))
    return [
        dice(mask, truth),
        float(tolerant),
        iou(mask, truth),
        pixel_accuracy(mask, truth),
        ssim(shown, sample.clean),
        min(_BEST_PSNR, psnr_hvs_m(shown, sample.clean)),
    ]


def compare(
    weights: Weights,
    training: Sequence[CleanFrame],
    validation: Sequence[CleanFrame],
    recipe: Recipe,
    *,
    minutes: float,
    count: int,
    seed: int = 29,
) -> str:
    """Train the rival, measure both on ``count`` frames per kind, and write the table (Markdown).

    The rival's thresholds come from training's styles, the product's from its card; the styles measured are held out.
    """
    weights.card.require("gflop_608x800")
    peer = rival(training, recipe, minutes)
    lines = [
        f"| kind | network | {' | '.join(METRICS)} |",
        "|---|---|" + "---:|" * len(METRICS),
    ]
    for number, kind in enumerate(KINDS, start=1):
        threshold = chosen_threshold(peer, validation, number, max(8, count // 2), seed + 1)
        ours, theirs = [], []
        for sample in track(samples(validation, number, count, seed, held_out=True), kind, total=count, transient=True):
            output = weights.graph(sample.noisy)
            mask = weights.read(output).mask
            ours.append(scores(mask == number, inpainted(sample.noisy, grown(mask, 1)), sample))
            answer = restored(peer, sample.noisy)
            theirs.append(scores(residual(sample.noisy, answer) > threshold, answer, sample))
        for name, values in (("product", ours), ("costumed U-Net, N2N", theirs)):
            cells = [str(mean_interval(column)) for column in np.array(values).T]
            lines.append(f"| {kind} | {name} | {' | '.join(cells)} |")
    once = weights.card["gflop_608x800"]
    at_most = once * (1 + weights.graph.most_close_ups * ENLARGED**2 / (608 * 800))
    cost = f"{once:.1f} GFLOP a frame of 608×800, {at_most:.1f} with every close-up, against {gflop(peer):.0f}"
    return "\n".join([*lines, "", f"{count} frames a kind; {cost}; the costumed U-Net trained {minutes:g} minutes."])


def write(table: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write_whole(folder / "comparison.md", f"# The product's network and the paper's\n\n{table}\n")
