"""Released weights as a network to train on: a hospital has the ONNX file, not the run it came from."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from models.architectures.unshuffle_unet import Block, UnshuffleUNet
from models.errors import DataError
from models.recipe import network_of
from models.served import card_of

_PREFIX = "network."
_ONE_RELEASE = "Take the graph and the card from one trained release."


def released(weights: Path, examples: Tensor) -> UnshuffleUNet:
    """The network of a weights folder with its batch normalisation back, ready to be trained on.

    Export folds the normalisation into the convolutions. ``examples``, frames (N, 3, H, W) in [0, 1] as training
    shows them, give each layer the mean and variance it is normalised by from here on; what the network computes stays
    the same. Raises `DataError` when graph and card do not belong together, `RecipeError` when the card describes no
    such network.
    """
    shape, graph = network_of(card_of(weights)), weights / "model.onnx"
    network = UnshuffleUNet(channels=shape.channels, top_blocks=shape.top_blocks, dilations=shape.dilations).eval()
    biases = _filled(network, parameters_in(graph))
    _normalised(network, biases, examples)
    return network


def parameters_in(graph: Path) -> dict[str, Tensor]:
    """The parameters of an exported graph by their names in the network, normalisation folded in."""
    stored = onnx.load(str(graph)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored.initializer}
    # Of parameters that are equal one is stored; the others take its value by a node of their name.
    taken = [node for node in stored.node if node.op_type == "Identity" and node.input[0] in arrays]
    arrays |= {node.output[0]: arrays[node.input[0]] for node in taken}
    return {
        name.removeprefix(_PREFIX): torch.from_numpy(array.copy())
        for name, array in arrays.items()
        if name.startswith(_PREFIX)
    }


def _filled(network: UnshuffleUNet, stored: dict[str, Tensor]) -> dict[Block, Tensor]:
    """Put the stored parameters in place; the biases that belong to the normalisation of each block."""
    own = network.state_dict()
    biases = {}
    for name, module in network.named_modules():
        if isinstance(module, Block):
            if f"{name}.0.bias" not in stored:
                raise DataError(f"The graph lacks {name}, which the network of its card has.", cure=_ONE_RELEASE)
            biases[module] = stored.pop(f"{name}.0.bias")
    missing = [name for name in stored if name not in own or own[name].shape != stored[name].shape]
    if missing:
        raise DataError(
            f"The graph holds {missing[0]}, which the network of its card does not have.", cure=_ONE_RELEASE
        )
    network.load_state_dict(own | stored)
    return biases


@torch.no_grad()
def _normalised(network: UnshuffleUNet, biases: dict[Block, Tensor], examples: Tensor) -> None:
    """Give every block the statistics of its convolution's output, and the scale and shift that undo them."""

    def measure(block: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        assert isinstance(block, Block)
        norm, plain = block.normalisation, block.convolution(inputs[0])
        assert norm.running_mean is not None and norm.running_var is not None
        mean, variance = plain.mean(dim=(0, 2, 3)), plain.var(dim=(0, 2, 3), unbiased=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + biases[block])
        return torch.relu(norm(plain))

    hooks = [block.register_forward_hook(measure) for block in biases]
    network(examples)
    for hook in hooks:
        hook.remove()
