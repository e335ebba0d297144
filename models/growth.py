"""A larger network that begins as what a smaller one has learned, after Net2Net (Chen, Goodfellow and Shlens 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architectures.unshuffle_unet import Block, UnshuffleUNet


def misfit(earlier: UnshuffleUNet, into: UnshuffleUNet) -> str | None:
    """Why ``earlier`` cannot grow ``into`` the other network; None where it can."""
    had, has = list(earlier.channels), list(into.channels)
    if earlier.kinds != into.kinds:
        return f"it knows {earlier.kinds} kinds, not {into.kinds}"
    if len(had) != len(has):
        return f"it has {len(had)} levels, not {len(has)}"
    if any(before > now for before, now in zip(had, has, strict=True)):
        return f"its channels are {had}, of which {has} has no room for all"
    if earlier.top_blocks != into.top_blocks:
        return f"its top_blocks is {earlier.top_blocks}, not {into.top_blocks}"
    if earlier.dilations != into.dilations[: len(earlier.dilations)]:
        return f"its dilations are {list(earlier.dilations)}, which {list(into.dilations)} does not begin with"
    return None


@torch.no_grad()
def grow(earlier: UnshuffleUNet, into: UnshuffleUNet, examples: Tensor) -> None:
    """Give ``into``, which ``misfit`` has nothing against, what ``earlier`` has learned: it then computes the same.

    Old weights stand in the leading channels. New channels keep the weights they have and are normalised by what they
    give for ``examples``, frames (N, 3, H, W) in [0, 1] as training shows them. The weights by which old channels hear
    them are zero, so they change nothing until training moves those. Further dilations begin as the identity.
    """
    _take_over(earlier, into)
    if (earlier.channels, earlier.dilations) != (into.channels, into.dilations):
        _normalise_what_is_new(earlier, into, examples)


def _take_over(earlier: UnshuffleUNet, into: UnshuffleUNet) -> None:
    state = into.state_dict()
    for name, old in earlier.state_dict().items():
        if old.ndim > 1:
            outputs, inputs = old.shape[:2]
            state[name][:outputs, inputs:] = 0
        state[name][tuple(slice(size) for size in old.shape)].copy_(old)


def _normalise_what_is_new(earlier: UnshuffleUNet, into: UnshuffleUNet, examples: Tensor) -> None:
    """Statistics are those of the examples in training mode, so that its first steps find things as they are here."""
    known, blocks = _blocks(earlier), _blocks(into)
    identities = [block.normalisation for name, block in blocks.items() if name not in known]
    first_new = {
        block.normalisation: known[name].normalisation.num_features if name in known else 0
        for name, block in blocks.items()
    }

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        assert isinstance(norm, nn.BatchNorm2d)
        new, plain = slice(first_new[norm], None), inputs[0]
        variance, mean = torch.var_mean(plain, dim=(0, 2, 3), correction=0)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean[new] = mean[new]
        norm.running_var[new] = variance[new]
        if norm in identities:
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(mean)
        return functional.batch_norm(plain, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)

    for name, block in blocks.items():
        if name not in known:
            # What comes in has been through a ReLU, so the block's own keeps it.
            nn.init.dirac_(block.convolution.weight)
    hooks = [norm.register_forward_hook(measure) for norm in first_new]
    training = into.training
    into.eval()(examples)
    into.train(training)
    for hook in hooks:
        hook.remove()


def _blocks(network: UnshuffleUNet) -> dict[str, Block]:
    return {name: module for name, module in network.named_modules() if isinstance(module, Block)}
