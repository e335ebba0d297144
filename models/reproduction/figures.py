"""The pictures of the report: samples, convergence curves, restorations side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from models.reproduction.crops import Crops
from models.reproduction.results import Result

Images = npt.NDArray[np.uint8]

_SHOWN = 3
_INCHES = 1.9


def grid(rows: Sequence[tuple[str, Sequence[Images]]], titles: Sequence[str], path: Path) -> None:
    """Rows of images under common titles, each row with a name on its left."""
    width, height = len(titles), len(rows)
    figure, axes = plt.subplots(height, width, figsize=(_INCHES * width, _INCHES * height), squeeze=False)
    for row, (name, images) in zip(axes, rows, strict=True):
        for place, (axis, image) in enumerate(zip(row, images, strict=True)):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if place == 0:
                axis.set_ylabel(name, fontsize=7)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    _save(figure, path)


def samples(examples: dict[str, Crops], path: Path) -> None:
    """Fig. 1: one sample of every data set."""
    rows = [
        (kind.replace("_", " "), [crops.noisy[0], crops.second[0], crops.clean[0], crops.mask[0] * np.uint8(255)])
        for kind, crops in examples.items()
    ]
    grid(rows, ("noisy", "second noisy", "clean", "mask"), path)


def pipelines(examples: dict[str, Crops], path: Path) -> None:
    """Fig. 2: what each pipeline gives Noise2Clean as input and as target."""
    rows = []
    for pipeline, crops in examples.items():
        difference = cv2.absdiff(np.ascontiguousarray(crops.clean[0]), np.ascontiguousarray(crops.target[0]))
        beside = np.clip(difference.astype(np.int16) * 4, 0, 255).astype(np.uint8)
        rows.append((pipeline, [crops.noisy[0], crops.clean[0], crops.target[0], beside]))
    grid(rows, ("input", "clean, as the input is", "target of N2C", "difference × 4"), path)


def curves(results: Sequence[Result], path: Path) -> None:
    """Fig. 3: training loss, and distance to the clean validation crops, for every loss and both pipelines."""
    pipelines = sorted({result.cell.pipeline for result in results})
    figure, axes = plt.subplots(2, len(pipelines), figsize=(3.6 * len(pipelines), 5), squeeze=False, sharex=True)
    for column, pipeline in zip(axes.T, pipelines, strict=True):
        for result in results:
            if result.cell.pipeline == pipeline and result.curve:
                steps = [point["step"] for point in result.curve]
                for axis, what in zip(column, ("loss", "error"), strict=True):
                    axis.plot(steps, [point[what] for point in result.curve], label=result.cell.loss, linewidth=1)
        column[0].set(yscale="log", title=pipeline)
        column[1].set(yscale="log", xlabel="step")
    axes[0][0].set_ylabel("training loss")
    axes[1][0].set_ylabel("grey levels off clean (validation)")
    # Beside the curves, which cross everywhere.
    axes[0][-1].legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


def restorations(answers: Sequence[tuple[str, Images]], examples: Crops, path: Path) -> None:
    """Figs. 4 to 6: input, clean frame, and the answer of every network."""
    columns = [("input", examples.noisy), ("clean", examples.clean), *answers]
    rows = [("", [images[i] for _, images in columns]) for i in range(min(_SHOWN, len(examples)))]
    grid(rows, [name for name, _ in columns], path)


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout(pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 82} if path.suffix == ".webp" else {})
    plt.close(figure)
