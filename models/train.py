"""The training loop, to be read in one sitting; the whole checkpoint is one visible dict."""

from __future__ import annotations

import copy
import ctypes
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import swa_utils

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
from models.dataset import Split, clean_frames, say, split, trained_on
from models.distributed import Ranks
from models.errors import Diverged, LeakySplit, RecipeError, TrainingError
from models.feed import Feed
from models.growth import grow, misfit
from models.layers import hold_statistics, hold_still
from models.loss import product_loss
from models.pool import CropPool
from models.recipe import Recipe
from models.recorded import recorded
from models.released import released
from models.served import card_of
from models.whole import beside, made, write_whole

SPLIT = "split.json"
_CHECKPOINT_EVERY_S = 60.0
_LOG_EVERY = 20
_EXAMPLES = 48


def train(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    time_budget_min: float | None = None,
    tell: Callable[[str], None] = say,
) -> Path:
    """Train by a recipe on the clean frames below ``data`` and return the run's folder.

    The run folder gets the split's manifest, a checkpoint every minute and TensorBoard events. A run that was cut off
    goes on when it is asked for again; with ``resume``, so does one that ended, or whose recipe changed. With a time
    budget the schedule follows the clock and ends with it; without, it follows the recipe's steps. Under `torchrun`
    each process takes a batch of its own and gradients are averaged. ``start_from`` takes weights of another run, or
    of a released weights folder, and starts a new schedule; a larger network begins as what that one computes
    (`models.growth`).
    With a budget of 0 the run is what it starts from. ``tell`` hears where nothing is left to do. Raises `DataError`,
    `LeakySplit`, `RecipeError`, `TrainingError` and `Diverged`.
    """
    keep_freed_memory()
    end_cleanly_when_told()
    with Ranks() as ranks:
        if (run / CHECKPOINT).exists() and not resume:
            refuse_another_run(run, recipe, start_from)
            resume = True
        elif (run / CHECKPOINT).exists() and start_from is not None:
            refuse_another_beginning(run, start_from)
        parts = split(clean_frames(data), recipe.split.held_out_sources, recipe.split.share, recipe.seed)
        if start_from is not None:
            refuse_what_was_trained_on(start_from, parts, data)
        run.mkdir(parents=True, exist_ok=True)
        with alone_in(run, ranks):
            if ranks.first:
                refuse_other_split(run, parts, data, resume)
            ranks.wait()
            _train(recipe, parts, run, ranks, resume, start_from, time_budget_min, tell)
    return run


def _train(
    recipe: Recipe,
    parts: Split,
    run: Path,
    ranks: Ranks,
    resume: bool,
    start_from: Path | None,
    time_budget_min: float | None,
    tell: Callable[[str], None],
) -> None:
    device = ranks.device
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    torch.manual_seed(recipe.seed + ranks.seed_offset)
    rng = np.random.default_rng(recipe.seed + ranks.seed_offset)
    network = build(recipe).to(device, memory_format=torch.channels_last)
    hold_still(network, recipe.optimiser.layers)
    average = copy.deepcopy(network).eval()
    groups = parameter_groups(network, recipe.optimiser.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=recipe.optimiser.rate, fused=device.type == "cuda" or None)
    budget_s = None if time_budget_min is None else time_budget_min * 60
    state: dict[str, Any] = {"step": 0, "elapsed_s": 0.0, "started_from": str(start_from), "ended": False}
    if resume and (run / CHECKPOINT).exists():
        state = restore(run / CHECKPOINT, recipe, network, average, optimiser)
        if state.get("ended", True) and _progress(recipe, state["step"], state["elapsed_s"], budget_s) >= 1:
            if ranks.first:
                tell(f"Nothing is left to train in {run}: more takes more `steps` in the recipe, or a `--time-budget`.")
            return
        state |= {"ended": False}
        start_from = None

    started = time.monotonic() - state["elapsed_s"]
    saved = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    seed = recipe.seed + state["step"] + ranks.seed_offset
    pool = CropPool(parts.training, recipe.crops, recipe.pool, recipe.workers, seed)
    feed = Feed(pool, recipe.batch, device, np.random.default_rng(seed))
    progress = Progress(*columns, transient=True, disable=not ranks.first)
    with pool, feed, _events(run, ranks) as events, progress:
        bar = progress.add_task(recipe.name, total=recipe.steps if budget_s is None else int(budget_s))
        pool.wait()
        if start_from is not None:
            crops = (torch.from_numpy(part) for part in pool.batch(rng, _EXAMPLES))
            examples, _, _ = varied(*crops, rng)
            state |= begin_from(start_from, recipe, network, average, examples.to(device))
        hold_statistics(network, recipe.optimiser.layers)
        half, shape = bf16_is_fast(device), (recipe.batch, 3, recipe.crops.side, recipe.crops.side)
        joined = ranks.joined(network) if ranks.count > 1 else recorded(network, shape, device, half)
        if state["step"] == 0:
            started = time.monotonic()
        # With a budget every rank has its own clock: all stop with the one that is first.
        while not ranks.any((done := _progress(recipe, state["step"], time.monotonic() - started, budget_s)) >= 1.0):
            for group in optimiser.param_groups:
                group["lr"] = recipe.optimiser.rate * one_cycle(done, recipe.optimiser.warm_up)
            noisy, second, kinds = varied(*feed.batch(), rng)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                restoration, logits = joined(noisy)
            loss, terms = product_loss(restoration.float(), logits.float(), second, kinds, recipe.loss)
            # To look at a number on a GPU is to wait for it.
            looked_at = device.type == "cpu" or state["step"] % _LOG_EVERY == 0
            if looked_at and ranks.any(not torch.isfinite(loss)):
                raise diverged(run, f"The loss of step {state['step']} is {loss.item()}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.optimiser.largest_gradient)
            optimiser.step()
            state["step"] += 1
            follow(average, network, recipe.optimiser.average, state["step"])

            elapsed_s = time.monotonic() - started
            if state["step"] % _LOG_EVERY == 0:
                pool.refuse_dead_workers()
                if events is not None:
                    rate = optimiser.param_groups[0]["lr"]
                    log(events, state["step"], loss, terms, rate, pool, elapsed_s, recipe)
            progress.update(bar, completed=state["step"] if budget_s is None else int(elapsed_s))
            if ranks.first and looked_at and time.monotonic() - saved > _CHECKPOINT_EVERY_S:
                save(run / CHECKPOINT, recipe, network, average, optimiser, state | {"elapsed_s": elapsed_s})
                saved = time.monotonic()
    if ranks.first:
        ended = {"elapsed_s": time.monotonic() - started, "ended": True}
        save(run / CHECKPOINT, recipe, network, average, optimiser, state | ended)
    ranks.wait()


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


def diverged(run: Path, what: str) -> Diverged:
    """The error for a run that came to what is no number, which knows whether a checkpoint is from before."""
    if (run / CHECKPOINT).exists():
        return Diverged(f"{what}; the checkpoint in {run} is from before.")
    cure = "Begin again with a lower `optimiser.rate` in the recipe."
    return Diverged(f"{what}, and there is no checkpoint in {run} yet.", cure=cure)


@contextmanager
def _events(run: Path, ranks: Ranks) -> Iterator[Any]:
    """Where the first rank writes TensorBoard events; None for the others."""
    from torch.utils.tensorboard import SummaryWriter

    if ranks.first:
        with SummaryWriter(str(run)) as events:
            yield events
    else:
        yield None


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


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory: by default each large tensor is mapped, zeroed and unmapped anew, which took two
    thirds of a training step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)


def end_cleanly_when_told() -> None:
    """SIGTERM leaves as an exception would: the worker ends with the trainer and the shared memory goes back."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def build(recipe: Recipe) -> UnshuffleUNet:
    settings = recipe.network
    return UnshuffleUNet(channels=settings.channels, top_blocks=settings.top_blocks, dilations=settings.dilations)


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


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolutions, none for biases and normalisation."""
    trained = [p for p in network.parameters() if p.requires_grad]
    kernels = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def bf16_is_fast(device: torch.device) -> bool:
    """bfloat16 doubled the speed on CPUs that have its instructions and slows others down."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capable: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return capable


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the peak rate after share ``done`` of the schedule: a linear rise, then half a cosine."""
    if done < warm_up:
        return 0.05 + 0.95 * done / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (done - warm_up) / (1 - warm_up)))) * 0.999 + 0.001


def varied(noisy: Tensor, second: Tensor, kinds: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Crops as `Feed` gives them, in [0, 1] and where they were, each with its own gain and share of colour, the same
    for input and target.

    Colour must not be a shortcut: some scanners draw boxes and markers in grey, some archives keep grey frames only,
    and no palette holds every vendor's ink. Half of the crops therefore get their primaries mixed anew, which leaves
    grey tissue as it is.
    """
    count, device = len(noisy), noisy.device

    def of_each(values: np.ndarray) -> Tensor:
        there = torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)
        return there.repeat(2, *[1] * (values.ndim - 1))

    both = torch.cat([noisy, second]).permute(0, 3, 1, 2).float().div_(255)
    both = torch.einsum("nij,njhw->nihw", of_each(np.stack([mixed_primaries(rng) for _ in range(count)])), both)
    gain = of_each(rng.uniform(0.75, 1.2, count)).view(-1, 1, 1, 1)
    grey = of_each(rng.random(count) < 0.25).view(-1, 1, 1, 1)
    luminance = 0.299 * both[:, 0:1] + 0.587 * both[:, 1:2] + 0.114 * both[:, 2:3]
    both = torch.lerp(both, luminance.expand_as(both), grey).mul_(gain).clamp_(0, 1)
    noise = float(rng.choice([0.0, 0.0, 0.01, 0.02]))
    frame = both[:count]
    if noise:
        frame = (frame + noise * torch.randn_like(frame[:, :1])).clamp_(0, 1)
    layout = torch.channels_last
    return frame.contiguous(memory_format=layout), both[count:].contiguous(memory_format=layout), kinds.long()


def mixed_primaries(rng: np.random.Generator) -> np.ndarray:
    """A float32 (3, 3) matrix whose rows sum to 1: the colours of a crop change, its greys do not."""
    matrix = np.eye(3, dtype=np.float32)
    if rng.random() < 0.5:
        share = float(rng.uniform(0.0, 0.5))
        matrix = (1 - share) * matrix[rng.permutation(3)] + share * rng.dirichlet(np.ones(3), 3)
    return matrix.astype(np.float32)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of the weights; young averages forget faster."""
    decay = min(decay, (1 + step) / (10 + step))
    means, now = list(average.state_dict().values()), list(network.state_dict().values())
    moving = [mean.is_floating_point() for mean in means]
    swa_utils.get_ema_multi_avg_fn(decay)(list(compress(means, moving)), list(compress(now, moving)), step)
    for mean, count in zip(means, now, strict=True):
        if not mean.is_floating_point():
            mean.copy_(count)


def log(
    events: Any,
    step: int,
    loss: Tensor,
    terms: dict[str, Tensor],
    rate: float,
    pool: CropPool,
    elapsed_s: float,
    recipe: Recipe,
) -> None:
    events.add_scalar("loss/total", loss.item(), step)
    for name, term in terms.items():
        events.add_scalar(f"loss/{name}", term.item(), step)
    events.add_scalar("rate", rate, step)
    events.add_scalar("crops/drawn", pool.drawn, step)
    events.add_scalar("crops/per_second", step * recipe.batch / max(elapsed_s, 1e-6), step)
    parts = " ".join(f"{name} {term.item():.4f}" for name, term in terms.items())
    with (Path(events.log_dir) / "train.log").open("a") as text:
        text.write(
            f"{elapsed_s:7.0f} s  step {step}  loss {loss.item():.4f}  {parts}  drawn {pool.drawn}"
            f"  {step * recipe.batch / max(elapsed_s, 1e-6):.1f} crops/s\n"
        )


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


def _progress(recipe: Recipe, step: int, elapsed_s: float, budget_s: float | None) -> float:
    if budget_s is None:
        return step / recipe.steps
    return elapsed_s / budget_s if budget_s > 0 else 1.0
