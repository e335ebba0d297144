"""From a run's weights to an ONNX graph that takes frames as they are displayed, and its card."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tomli_w
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.architectures.unshuffle_unet import Block, UnshuffleUNet, gflop, parameters
from models.calibrate import CALIBRATION, read_calibration
from models.errors import TrainingError
from models.recipe import Recipe
from models.train import CHECKPOINT, SPLIT, build, recipe_of, total_seconds, total_steps
from service.analyse.annotations import Kind

OPSET = 18
MAX_SIDE = 1024
# Restorations of the two runtimes may differ by rounding only.
_PARITY_LEVELS = 2


class Served(nn.Module):
    """The network as it is served: uint8 in, uint8 out, normalisation, residual and softmax inside the graph."""

    def __init__(self, network: UnshuffleUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (N, H, W, 3) to restoration (N, H, W, 3), residual (N, H, W) and kinds (N, K, H, W), all uint8."""
        level = frame.permute(0, 3, 1, 2).float()
        restoration, logits = self.network(level / 255)
        restored = (restoration * 255).clamp(0, 255).round()
        residual = (level - restored).abs().amax(dim=1)
        # Softmax spelt out: ONNX Runtime's own, over a dimension that is not the last, takes a fifth of the frame's
        # time.
        odds = (logits - logits.amax(dim=1, keepdim=True)).exp()
        kinds = (odds[:, 1:] * (255 / odds.sum(dim=1, keepdim=True))).round()
        return restored.permute(0, 2, 3, 1).to(torch.uint8), residual.to(torch.uint8), kinds.to(torch.uint8)


def export(run: Path, weights: Path) -> Path:
    """Write ``model.onnx`` and ``card.toml`` of a run into the folder ``weights``.

    Raises `TrainingError` when the exported graph does not answer as the network does, and leaves nothing half-written.
    """
    network, recipe, state = trained(run)
    served = Served(folded(network))
    weights.mkdir(parents=True, exist_ok=True)
    beside = weights / "model.part"
    try:
        write_graph(served, beside)
        refuse_disparity(served, beside)
        card = described(weights.name, beside, run, recipe, state, network)
        beside.replace(weights / "model.onnx")
    finally:
        beside.unlink(missing_ok=True)
    (weights / "card.toml").write_text(tomli_w.dumps(card))
    return weights


def graph_of(run: Path, path: Path) -> Path:
    """The run's weights as an ONNX graph alone, for calibration."""
    write_graph(Served(folded(trained(run)[0])), path)
    return path


def trained(run: Path) -> tuple[UnshuffleUNet, Recipe, dict[str, Any]]:
    """The averaged weights of a run's last checkpoint, in evaluation mode, with recipe and state."""
    if not (run / CHECKPOINT).exists():
        raise TrainingError(
            f"{run} holds no checkpoint.", cure="Train first: `python -m models train RECIPE --data FOLDER`."
        )
    checkpoint = torch.load(run / CHECKPOINT, weights_only=True)
    recipe = recipe_of(checkpoint)
    network = build(recipe)
    network.load_state_dict(checkpoint["average"])
    return network.eval(), recipe, checkpoint["state"]


def folded(network: UnshuffleUNet) -> UnshuffleUNet:
    """Batch normalisation as part of the convolution before it."""
    for block in [module for module in network.modules() if isinstance(module, Block)]:
        block[0] = fuse_conv_bn_eval(block[0], block[1])
        block[1] = nn.Identity()
    return network


def write_graph(served: Served, path: Path) -> None:
    axes = {0: "frames", 1: "height", 2: "width"}
    torch.onnx.export(
        served,
        (torch.zeros(1, 64, 96, 3, dtype=torch.uint8),),
        str(path),
        opset_version=OPSET,
        input_names=["frame"],
        output_names=["restoration", "residual", "kinds"],
        dynamic_axes={
            "frame": axes,
            "restoration": axes,
            "residual": axes,
            "kinds": {0: "frames", 2: "height", 3: "width"},
        },
        dynamo=False,
    )
    onnx.checker.check_model(onnx.load(str(path)))


def refuse_disparity(served: Served, path: Path) -> None:
    """Compare the exported graph with the network on frames of two sizes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for shape in ((1, 96, 160, 3), (2, 64, 64, 3)):
        frame = np.repeat(
            np.repeat(rng.integers(0, 256, (shape[0], shape[1] // 8, shape[2] // 8, 3)), 8, 1), 8, 2
        ).astype(np.uint8)
        with torch.no_grad():
            expected = [output.numpy() for output in served(torch.from_numpy(frame))]
        for name, got, wanted in zip(
            ("restoration", "residual", "kinds"), session.run(None, {"frame": frame}), expected, strict=True
        ):
            worst = int(np.abs(got.astype(int) - wanted.astype(int)).max())
            if got.shape != wanted.shape or worst > _PARITY_LEVELS:
                raise TrainingError(f"The exported graph's {name} differs from the network's by {worst} levels.")


def described(
    name: str, graph: Path, run: Path, recipe: Recipe, state: dict[str, Any], network: UnshuffleUNet
) -> dict[str, Any]:
    """The card: what the weights are, what they were trained on, how their output is to be read."""
    thresholds, calibration = read_calibration(run / CALIBRATION)
    return {
        "name": name,
        "version": datetime.now(UTC).strftime("%Y.%m.%d"),
        "created": datetime.now(UTC).replace(microsecond=0),
        "sha256": sha256(graph.read_bytes()).hexdigest(),
        "kinds": [kind.value for kind in Kind],
        "max_side": MAX_SIDE,
        "stride": 32,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "steps": total_steps(state),
        "minutes": round(total_seconds(state) / 60, 1),
        "parameters": parameters(network),
        "gflop_608x800": round(gflop(network), 2),
        "architecture": asdict(recipe.network) | {"class": "UnshuffleUNet"},
        "data": trained_on(run),
        "thresholds": {kind.value: asdict(limits) for kind, limits in thresholds.items()},
        "calibration": {kind.value: asdict(weights) for kind, weights in calibration.items()},
    }


def trained_on(run: Path) -> list[dict[str, Any]]:
    """The data sets of the run's manifest: frames for training and for validation, and their licences where the data
    says so."""
    sides = json.loads((run / SPLIT).read_text())
    sources: dict[str, dict[str, Any]] = {}
    for side, frames in sides.items():
        for frame in frames:
            entry = sources.setdefault(frame["source"], {"source": frame["source"], "training": 0, "validation": 0})
            entry[side] += 1
            if frame["licence"]:
                entry["licence"] = frame["licence"]
    return [sources[name] for name in sorted(sources)]
