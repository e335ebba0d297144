"""From a run's weights to an ONNX graph that takes frames as they are displayed, and its card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomli_w

from models.architectures.unshuffle_unet import UnshuffleUNet, gflop, parameters
from models.calibrate import CALIBRATION, read_calibration
from models.checkpoint import digest_of, total_seconds, total_steps
from models.dataset import say
from models.errors import DataError
from models.graph import Served, folded, refuse_disparity, write_graph
from models.recipe import Recipe
from models.runs import SPLIT, trained
from models.served import card_of
from models.whole import beside, made
from service.analyse.annotations import Kind

MAX_SIDE = 1024


def export(run: Path, weights: Path, tell: Callable[[str], None] = say) -> Path:
    """Write ``model.onnx`` and ``card.toml`` of a run into the folder ``weights``; ``tell`` hears which weights were
    there before.

    Raises `TrainingError` when the run is not calibrated or the exported graph does not answer as the network does, and
    leaves nothing half-written.
    """
    network, recipe, state = trained(run)
    reading = read_calibration(run / CALIBRATION, digest_of(network.state_dict()))
    served, before = Served(folded(network)), _named(weights)
    with made(weights), beside(weights / "card.toml") as card, beside(weights / "model.onnx") as graph:
        write_graph(served, graph)
        refuse_disparity(served, graph)
        card.write_text(tomli_w.dumps(described(weights.resolve().name, graph, run, recipe, state, network, reading)))
    if before:
        tell(f"Written over: {before}, which were in {weights}.")
    return weights


def _named(weights: Path) -> str:
    """What a folder's weights are called, as verdicts name them; nothing where there are none."""
    if not (weights / "model.onnx").exists():
        return ""
    try:
        card = card_of(weights)
        return f"{card['name']}@{card['sha256'][:12]}"
    except DataError:
        return "weights that no card describes"


def graph_of(run: Path, path: Path) -> str:
    """Write the run's weights as an ONNX graph alone, for calibration; their digest."""
    network = trained(run)[0]
    digest = digest_of(network.state_dict())
    write_graph(Served(folded(network)), path)
    return digest


def described(
    name: str,
    graph: Path,
    run: Path,
    recipe: Recipe,
    state: dict[str, Any],
    network: UnshuffleUNet,
    reading: Mapping[str, Any],
) -> dict[str, Any]:
    """The card: what the weights are, what they were trained on, and by ``reading`` how their output is to be read."""
    return {
        "name": name,
        "version": datetime.now(UTC).strftime("%Y.%m.%d"),
        "created": datetime.now(UTC).replace(microsecond=0),
        "sha256": sha256(graph.read_bytes()).hexdigest(),
        "kinds": [kind.value for kind in Kind],
        "max_side": MAX_SIDE,
        "stride": network.stride,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "split": asdict(recipe.split),
        "steps": total_steps(state),
        "minutes": round(total_seconds(state) / 60, 1),
        "parameters": parameters(network),
        "gflop_608x800": round(gflop(network), 2),
        "architecture": asdict(recipe.network) | {"class": "UnshuffleUNet"},
        "data": trained_on(run),
        **reading,
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
