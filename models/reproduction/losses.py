"""The eight losses of Tables III and IV."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Pixelwise = Callable[[Tensor, Tensor], Tensor]

# Both are thresholds on differences of frames in [0, 1], well below 1, so that the two are two losses and not one.
HUBER_DELTA = 0.1
SMOOTH_L1_BETA = 0.02


def _l1(restoration: Tensor, target: Tensor) -> Tensor:
    return (restoration - target).abs()


def _l2(restoration: Tensor, target: Tensor) -> Tensor:
    return (restoration - target).square()


def _huber(delta: float) -> Pixelwise:
    # Divided by δ, so that the slope far out is that of L1.
    return lambda restoration, target: functional.huber_loss(restoration, target, reduction="none", delta=delta) / delta


def _smooth_l1(beta: float) -> Pixelwise:
    return lambda restoration, target: functional.smooth_l1_loss(restoration, target, reduction="none", beta=beta)


LOSSES: dict[str, tuple[str, ...]] = {
    "L1": ("L1",),
    "Huber": ("Huber",),
    "Smooth L1": ("Smooth L1",),
    "L2": ("L2",),
    "L1+L2": ("L1", "L2"),
    "Huber+L2": ("Huber", "L2"),
    "Smooth L1+L2": ("Smooth L1", "L2"),
    "all": ("L1", "Huber", "Smooth L1", "L2"),
}
"""Name of a loss → the terms it adds up."""


class RestorationLoss:
    """Called with the restoration, its target, both (N, 3, H, W), and the marked pixels (N, 1, H, W); returns a scalar.

    `published_scales` takes δ = β = 1 and sums L2 where the others are means. `whole_frame` averages over all pixels;
    otherwise marked and unmarked pixels are averaged apart and count alike.
    """

    def __init__(self, name: str, *, published_scales: bool, whole_frame: bool) -> None:
        self.whole_frame = whole_frame
        terms: dict[str, Pixelwise] = {
            "L1": _l1,
            "Huber": _huber(1.0 if published_scales else HUBER_DELTA),
            "Smooth L1": _smooth_l1(1.0 if published_scales else SMOOTH_L1_BETA),
            "L2": _l2,
        }
        self.terms = [(terms[term], published_scales and term == "L2") for term in LOSSES[name]]

    def __call__(self, restoration: Tensor, target: Tensor, marked: Tensor) -> Tensor:
        total = restoration.new_zeros(())
        for pixelwise, summed in self.terms:
            error = pixelwise(restoration, target)
            mean = error.mean() if self.whole_frame else _balanced(error, marked)
            total = total + (mean * error.numel() if summed else mean)
        return total


def _balanced(error: Tensor, marked: Tensor) -> Tensor:
    inside = marked.to(error.dtype).expand_as(error)
    outside = 1 - inside
    return (error * inside).sum() / inside.sum().clamp(min=1) + (error * outside).sum() / outside.sum().clamp(min=1)
