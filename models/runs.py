"""The folder of a run: whose it is, what it began with, its checkpoints, and the mean of several."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.architectures.unshuffle_unet import UnshuffleUNet
from models.checkpoint import (
    A_RUN,
    CHECKPOINT,
    read_checkpoint,
    recipe_of,
    total_seconds,
    total_steps,
    write_checkpoint,
)
from models.dataset import Split, trained_on
from models.distributed import Ranks
from models.errors import Diverged, LeakySplit, RecipeError, TrainingError
from models.growth import grow, misfit
from models.recipe import Recipe
from models.released import released
from models.served import card_of
from models.whole import beside, made, write_whole

SPLIT = "split.json"


@contextmanager
def alone_in(run: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the run's folder until the run is over. Raises `TrainingError` where another process holds it."""
    if not ranks.first:
        yield
        return
    folder = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as taken:
        os.close(folder)
        cure = "Let that one end, or give another folder."
        raise TrainingError(f"Another process trains the run in {run}.", cure=cure) from taken
    except OSError:
        pass  # there are file systems that cannot lock a folder
    try:
        yield
    finally:
        os.close(folder)


def refuse_another_run(run: Path, recipe: Recipe, start_from: Path | None) -> None:
    """Raise `TrainingError` unless what the folder holds is this very run, cut off before its end."""
    earlier = read_checkpoint(run / CHECKPOINT)
    state = earlier["state"]
    same = earlier["recipe"] == asdict(recipe) and state.get("started_from") == str(start_from)
    if not same or state.get("ended", True):
        cure = "Go on with it by `--resume`, or give another folder: runs are never overwritten."
        raise TrainingError(f"{run} holds a run already.", cure=cure)


def refuse_another_beginning(run: Path, start_from: Path) -> None:
    """Raise `TrainingError` where a run that goes on is told to begin with other weights than it did."""
    before = read_checkpoint(run / CHECKPOINT)["state"].get("started_from", str(None))
    if before != str(start_from):
        began = "no other weights" if before == str(None) else before
        raise TrainingError(
            f"The run in {run} began with {began}, not with {start_from}.",
            cure="Leave `--start-from` out to go on with it, or give another folder for a new run.",
        )


def refuse_what_was_trained_on(earlier: Path, parts: Split, data: Path) -> None:
    """Raise `LeakySplit` where the run that is started from trained on a frame, or a group, that is held out now: its
    weights know it. A weights folder does not say what it was trained on."""
    if not (earlier / SPLIT).exists():
        return
    files, groups = trained_on(earlier / SPLIT)
    known = [f for f in parts.validation if f.named_from(data) in files or f.group in groups]
    if known:
        raise LeakySplit(
            f"{earlier} trained on {len(known)} of {len(parts.validation)} frames that are held out now, among them"
            f" {known[0].named_from(data)}.",
            cure="Give the recipe the seed and the `[split]` of the run it starts from, or start from a weights folder"
            " that never saw these data.",
        )


def refuse_other_split(run: Path, parts: Split, data: Path, resume: bool) -> None:
    """Write the split's manifest; when a run resumes, its frames must still be on the same sides."""
    manifest = run / SPLIT
    before = manifest.read_text() if resume and manifest.exists() else None
    parts.write(manifest, data)
    if before is not None and before != manifest.read_text():
        write_whole(manifest, before)
        raise RecipeError(
            f"The data or the split in {run} changed since the run began.",
            cure="Start a new run, or bring back the data it used.",
        )


def build(recipe: Recipe) -> UnshuffleUNet:
    settings = recipe.network
    return UnshuffleUNet(channels=settings.channels, top_blocks=settings.top_blocks, dilations=settings.dilations)


def begin_from(
    earlier: Path, recipe: Recipe, network: UnshuffleUNet, average: UnshuffleUNet, examples: Tensor
) -> dict[str, float]:
    """Put the weights of a run or of a weights folder into both networks, which may be larger; how long those were
    trained.

    Raises `RecipeError` when they are those of a network that cannot grow into the recipe's.
    """
    if (earlier / CHECKPOINT).exists():
        learned, _, state = trained(earlier)
        steps, seconds = total_steps(state), total_seconds(state)
    else:
        learned = released(earlier, examples.cpu())
        card = card_of(earlier)
        steps, seconds = card["steps"], card["minutes"] * 60
    if what := misfit(learned, network):
        raise RecipeError(
            f"{earlier} holds another network than the recipe {recipe.name} describes: {what}.",
            cure="Give the recipe's `[network]` the channels, top_blocks and dilations of the weights it starts from, "
            "or more channels, or further dilations after those.",
        )
    grow(learned, network, examples)
    average.load_state_dict(network.state_dict())
    return {"earlier_steps": steps, "earlier_s": seconds}


def trained(run: Path) -> tuple[UnshuffleUNet, Recipe, dict[str, Any]]:
    """The averaged weights of a run's last checkpoint, in evaluation mode, with recipe and state.

    Raises `TrainingError` when there is none, it is damaged, or another program's.
    """
    checkpoint = read_checkpoint(run / CHECKPOINT)
    recipe = recipe_of(checkpoint)
    network = build(recipe)
    try:
        network.load_state_dict(checkpoint["average"])
    except RuntimeError as other:
        what = f"{run / CHECKPOINT} holds other weights than those of the network its recipe describes."
        raise TrainingError(what, cure=A_RUN) from other
    return network.eval(), recipe, checkpoint["state"]


def average_runs(runs: Sequence[Path], out: Path) -> Path:
    """A run whose weights are the mean of those of ``runs``, cycles that started from one another (Wortsman et al.
    2022): steadier than either alone. Its state and split are the last run's. Raises `RecipeError` for other networks
    and `LeakySplit` when the runs held out other frames.
    """
    if (out / CHECKPOINT).exists():
        raise TrainingError(f"{out} holds a run already.", cure="Give another folder: runs are never overwritten.")
    checkpoints = [read_checkpoint(run / CHECKPOINT) for run in runs]
    if len({str(checkpoint["recipe"]["network"]) for checkpoint in checkpoints}) > 1:
        raise RecipeError("The runs hold different networks, which have no mean.", cure="Average runs of one recipe.")
    splits = {(run / SPLIT).read_text() for run in runs}
    if len(splits) > 1:
        raise LeakySplit("The runs held out different frames.", cure="Average runs with the same data and split.")
    last = checkpoints[-1]
    for name, weight in last["average"].items():
        if weight.is_floating_point():
            last["average"][name] = torch.stack([each["average"][name] for each in checkpoints]).mean(dim=0)
    with made(out), beside(out / SPLIT) as part:
        part.write_text(splits.pop(), encoding="utf-8")
        write_checkpoint(out / CHECKPOINT, last)
    return out


def save(
    path: Path,
    recipe: Recipe,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write the checkpoint beside the old one and swap: an interrupted write leaves the old one whole. Raises
    `Diverged` for weights that are no numbers."""
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise diverged(path.parent, f"A weight is no number after step {state['step']}")
    checkpoint = {
        "recipe": asdict(recipe),
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "state": dict(state),
    }
    write_checkpoint(path, checkpoint)


def restore(
    path: Path, recipe: Recipe, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    if checkpoint["recipe"]["network"] != asdict(recipe)["network"]:
        raise RecipeError(f"{path} holds another network than recipe {recipe.name}.", cure="Use the run's own recipe.")
    if (layers := recipe_of(checkpoint).optimiser.layers) != recipe.optimiser.layers:
        raise RecipeError(
            f"The run in {path.parent} trained the layers {layers!r}, and the recipe {recipe.name} says"
            f" {recipe.optimiser.layers!r}.",
            cure=f"Leave them as they were, or begin a new run by `--start-from {path.parent}`.",
        )
    decays = [group["weight_decay"] for group in optimiser.param_groups]
    network.load_state_dict(checkpoint["network"])
    average.load_state_dict(checkpoint["average"])
    optimiser.load_state_dict(checkpoint["optimiser"])
    for group, decay in zip(optimiser.param_groups, decays, strict=True):
        group["weight_decay"] = decay  # the recipe's, which may have changed
    state: dict[str, Any] = checkpoint["state"]
    return state


def diverged(run: Path, what: str) -> Diverged:
    """The error for a run that came to what is no number, which knows whether a checkpoint is from before."""
    if (run / CHECKPOINT).exists():
        return Diverged(f"{what}; the checkpoint in {run} is from before.")
    cure = "Begin again with a lower `optimiser.rate` in the recipe."
    return Diverged(f"{what}, and there is no checkpoint in {run} yet.", cure=cure)
