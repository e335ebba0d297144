"""A larger network goes on from a smaller one: it begins as what that one computes, and has more to learn with."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import recipe
from models.architectures.unshuffle_unet import UnshuffleUNet
from models.checkpoint import CHECKPOINT
from models.errors import RecipeError
from models.growth import grow, misfit
from models.recipe import NetworkSettings, Recipe
from models.released import released
from models.runs import begin_from, build, save
from models.train import train
from tests.models.tiny_weights import SHAPE, write_speckle, write_tiny_weights

ROUNDING = 1e-4  # of sums in another order; outputs are of the order of one


def of_shape(**changes: object) -> Recipe:
    small = NetworkSettings(tuple(SHAPE["channels"]), SHAPE["top_blocks"], tuple(SHAPE["dilations"]))
    return replace(recipe.load("smoke"), network=replace(small, **changes))


SMALL = of_shape()
LARGE = of_shape(channels=(8, 12, 8, 16, 20), dilations=(1, 2, 4))
WIDER_TOP = of_shape(channels=(12, 12, 12, 12, 12))
DEEPER = of_shape(dilations=(1, 2, 4))


@pytest.fixture(scope="module")
def examples() -> Tensor:
    return torch.rand(6, 3, 96, 128, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module", params=["run", "released folder"])
def earlier(request: pytest.FixtureRequest, examples: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier") / "one"
    if request.param == "released folder":
        return write_tiny_weights(folder)
    folder.mkdir()
    torch.manual_seed(1)
    network = build(SMALL)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for _ in range(20):
        network.train()(examples * torch.rand(1) + 0.1)  # statistics that are those of no one batch
    state = {"step": 7, "elapsed_s": 3.0}
    save(folder / CHECKPOINT, SMALL, network, network, torch.optim.AdamW(network.parameters()), state)
    return folder


def before(earlier: Path, examples: Tensor) -> UnshuffleUNet:
    if not (earlier / CHECKPOINT).exists():
        return released(earlier, examples)
    network = build(SMALL)
    network.load_state_dict(torch.load(earlier / CHECKPOINT, weights_only=True)["average"])
    return network


def begun(earlier: Path, larger: Recipe, examples: Tensor) -> UnshuffleUNet:
    torch.manual_seed(2)
    network, average = build(larger), build(larger)
    begin_from(earlier, larger, network, average, examples)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), average.parameters(), strict=True))
    return network


def apart(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("larger", [LARGE, WIDER_TOP, DEEPER, SMALL])
@torch.no_grad()
def test_it_computes_what_the_smaller_one_does(earlier: Path, larger: Recipe, examples: Tensor) -> None:
    others = torch.rand(3, 3, 64, 160, generator=torch.Generator().manual_seed(6))
    small, network = before(earlier, examples).eval(), begun(earlier, larger, examples).eval()
    assert apart(small(others), network(others)) < ROUNDING


@pytest.mark.parametrize("larger", [LARGE, WIDER_TOP, DEEPER])
@torch.no_grad()
def test_training_finds_it_so_too(earlier: Path, larger: Recipe, examples: Tensor) -> None:
    """With the examples as its batch: the statistics of the new are the batch's, those of the old channels have not
    changed, so both networks normalise alike and differ by rounding."""
    small, network = before(earlier, examples).train(), begun(earlier, larger, examples).train()
    new = [(name, value.clone()) for name, value in network.named_buffers() if name.endswith("running_mean")]
    assert apart(small(examples), network(examples)) < ROUNDING
    old = dict(small.named_buffers())
    for name, mean in new:
        first = len(old[name]) if name in old else 0
        assert torch.allclose(network.get_buffer(name)[first:], mean[first:], atol=ROUNDING)


def test_one_step_lets_the_old_hear_the_new(earlier: Path, examples: Tensor) -> None:
    small, network = before(earlier, examples), begun(earlier, LARGE, examples).train()
    kernels = {
        name: (weight, old.shape)
        for name, old in small.named_parameters()
        if old.ndim > 1 and (weight := network.get_parameter(name)).shape[1] > old.shape[1]
    }
    assert {"down.1.0.0.weight", "context.0.0.weight", "up.0.project.weight"} <= kernels.keys()
    outgoing = [weight[: shape[0], shape[1] :] for weight, shape in kernels.values()]
    assert not any(part.any() for part in outgoing)
    restoration, logits = network(examples)
    loss = restoration.square().mean() + nn.functional.cross_entropy(logits, logits.argmin(dim=1))
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    heard = [part.ne(0).any(dim=0).flatten(1).any(dim=1) for part in outgoing]
    assert all(channels.any() for channels in heard), "new channels of every layer are heard by old ones"
    assert bool(network.get_parameter("context.2.0.weight").grad.any())


@pytest.mark.parametrize(
    ("network", "what"),
    [
        ({"channels": (8, 8, 4, 16, 16)}, r"channels are \[8, 8, 8, 8, 8\], of which"),
        ({"channels": (8, 8, 16, 16)}, "5 levels, not 4"),
        ({"top_blocks": 2}, "top_blocks is 1, not 2"),
        ({"dilations": ()}, r"dilations are \[1\], which \[\] does not begin with"),
        ({"dilations": (2, 1)}, r"which \[2, 1\] does not begin with"),
    ],
)
def test_what_does_not_fit_is_said(earlier: Path, network: dict[str, object], what: str, examples: Tensor) -> None:
    with pytest.raises(RecipeError, match=f"another network than the recipe smoke describes.*{what}") as refused:
        begun(earlier, of_shape(**network), examples)
    assert "or more channels, or further dilations" in refused.value.cure


def test_other_kinds_do_not_fit() -> None:
    assert misfit(UnshuffleUNet(kinds=4), UnshuffleUNet(kinds=5)) == "it knows 4 kinds, not 5"


def test_channels_that_give_nothing_stay_silent(examples: Tensor) -> None:
    """Dead channels have no variance for a further dilation to divide by."""
    torch.manual_seed(3)
    small, network = build(SMALL).eval(), build(DEEPER).eval()
    with torch.no_grad():
        small.context[0][1].bias[:4] = -99.0
        grow(small, network, examples)
        assert apart(small(examples), network(examples)) < ROUNDING


def test_the_released_weights_grow_into_the_network_for_a_gpu() -> None:
    shape = tomllib.loads(Path("models/weights/sonomark/card.toml").read_text())["architecture"]
    weights = UnshuffleUNet(channels=shape["channels"], top_blocks=shape["top_blocks"], dilations=shape["dilations"])
    assert misfit(weights, build(recipe.load("gpu"))) is None


def test_a_run_of_a_larger_network_goes_on_from_a_smaller_one(earlier: Path, tmp_path: Path) -> None:
    data = write_speckle(tmp_path / "data")
    larger = replace(LARGE, steps=2, batch=2, pool=16)
    run = train(larger, data, tmp_path / "run", start_from=earlier)
    checkpoint = torch.load(run / CHECKPOINT, weights_only=True)
    assert checkpoint["state"]["earlier_steps"] > 0
    assert checkpoint["average"]["context.2.0.weight"].shape == (20, 20, 3, 3)
    assert all(bool(weight.isfinite().all()) for weight in checkpoint["average"].values())


def test_without_time_a_run_is_what_it_starts_from(earlier: Path, examples: Tensor, tmp_path: Path) -> None:
    write_speckle(tmp_path / "data", 8, side=96)
    run = train(SMALL, tmp_path / "data", tmp_path / "run", start_from=earlier, time_budget_min=0)
    begun_from, ended = before(earlier, examples), torch.load(run / CHECKPOINT, weights_only=True)
    assert ended["state"]["step"] == 0
    same = build(SMALL)
    same.load_state_dict(ended["average"])
    assert apart(same.eval()(examples), begun_from.eval()(examples)) < ROUNDING
