"""The training loop, to be read in one sitting; the whole checkpoint is one visible dict."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import swa_utils

from models.checkpoint import CHECKPOINT
from models.dataset import Split, clean_frames, say, split
from models.distributed import Ranks
from models.feed import Feed
from models.layers import hold_statistics, hold_still
from models.loss import product_loss
from models.machine import bf16_is_fast, end_cleanly_when_told, keep_freed_memory, placed
from models.pool import CropPool
from models.recipe import Recipe
from models.recorded import recorded
from models.runs import (
    alone_in,
    begin_from,
    build,
    diverged,
    refuse_another_beginning,
    refuse_another_run,
    refuse_other_split,
    refuse_what_was_trained_on,
    restore,
    save,
)
from models.variation import varied

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
    network = placed(build(recipe), device)
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
            noisy, second, kinds = (torch.from_numpy(part) for part in pool.batch(rng, _EXAMPLES))
            examples, _, _ = varied(noisy, second, kinds, rng)
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


def _progress(recipe: Recipe, step: int, elapsed_s: float, budget_s: float | None) -> float:
    if budget_s is None:
        return step / recipe.steps
    return elapsed_s / budget_s if budget_s > 0 else 1.0


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the peak rate after share ``done`` of the schedule: a linear rise, then half a cosine."""
    if done < warm_up:
        return 0.05 + 0.95 * done / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (done - warm_up) / (1 - warm_up)))) * 0.999 + 0.001


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolutions, none for biases and normalisation."""
    trained = [p for p in network.parameters() if p.requires_grad]
    kernels = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


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


@contextmanager
def _events(run: Path, ranks: Ranks) -> Iterator[Any]:
    """Where the first rank writes TensorBoard events; None for the others."""
    from torch.utils.tensorboard import SummaryWriter

    if ranks.first:
        with SummaryWriter(str(run)) as events:
            yield events
    else:
        yield None


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
