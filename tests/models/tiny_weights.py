"""A weights folder of a small network without training, and frames of speckle to use it on."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import tomli_w
import torch

from models.architectures.unshuffle_unet import UnshuffleUNet
from models.graph import Served, folded, write_graph
from service.analyse.annotations import Kind

SHAPE = {"channels": [8, 8, 8, 8, 8], "top_blocks": 1, "dilations": [1]}


def write_tiny_weights(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = {**SHAPE, "channels": tuple(SHAPE["channels"]), "dilations": tuple(SHAPE["dilations"])}
    folder.mkdir(parents=True)
    network = UnshuffleUNet(**shape).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # As after training: biases that are all zero would be written as one.
            torch.nn.init.normal_(module.bias, std=0.1)
    write_graph(Served(folded(network)), folder / "model.onnx")
    weight = dict.fromkeys(("mass", "support", "peak", "core", "rows", "columns", "total"), 0.5)
    limits = {"pixel": 0.5, "min_pixels": 4, "absent": 0.4, "present": 0.6}
    card = {
        "name": "tiny",
        "version": "1",
        "sha256": sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        "kinds": [kind.value for kind in Kind],
        "max_side": 1024,
        "stride": 32,
        "recipe": "smoke",
        "seed": 1,
        "steps": 10,
        "minutes": 0.1,
        "architecture": SHAPE,
        "data": [{"source": "speckle", "training": 5, "validation": 1}],
        "thresholds": {k.value: {**limits, "outline": 0.5, "beside": 0.0, "far": 0.0} for k in Kind},
        "calibration": {k.value: {"intercept": -4.0, **weight} for k in Kind},
    }
    (folder / "card.toml").write_text(tomli_w.dumps(card))
    return folder


def write_speckle(folder: Path, count: int = 10, side: int = 96) -> Path:
    """Frames no two of which are alike, and a labels.csv that lists the first two as without marks."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    for number in range(count):
        noise = cv2.GaussianBlur(rng.normal(0, 1, (side, side + 8 * number)).astype(np.float32), (0, 0), 3)
        cv2.imwrite(
            str(folder / f"tissue_{number}a.png"), cv2.normalize(noise, None, 0, 180, cv2.NORM_MINMAX, cv2.CV_8U)
        )
    return folder


def write_labels(folder: Path, files: list[str]) -> None:
    kinds = [kind.value for kind in Kind]
    lines = [",".join(["file", "source", *kinds])] + [",".join([file, "speckle", *"0" * len(kinds)]) for file in files]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
