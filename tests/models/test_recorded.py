"""A recorded network gives what it gave: outputs, gradients, running statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from models.architectures.unshuffle_unet import UnshuffleUNet
from models.recorded import recorded

SHAPE = (2, 3, 64, 64)


def tiny() -> UnshuffleUNet:
    torch.manual_seed(0)
    return UnshuffleUNet(channels=(8, 8, 16, 16, 16), dilations=(1,))


def after_a_pass(network: nn.Module, frame: Tensor) -> list[Tensor]:
    """Outputs, gradients and buffers."""
    restoration, logits = network(frame)
    (restoration.square().mean() + logits.square().mean()).backward()
    return [restoration, logits, *(weight.grad for weight in network.parameters()), *network.buffers()]


def test_a_cpu_records_nothing() -> None:
    network = tiny()
    before = copy.deepcopy(network)
    assert recorded(network, SHAPE, torch.device("cpu"), half=True) is network
    frame = torch.rand(SHAPE)
    for own, expected in zip(after_a_pass(network, frame), after_a_pass(before, frame), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_recorded_network_gives_what_it_gave() -> None:
    device = torch.device("cuda")
    plain = tiny().to(device, memory_format=torch.channels_last)
    network = recorded(copy.deepcopy(plain), SHAPE, device, half=False)
    for _ in range(2):  # the second time its graphs are replayed over what the first left
        frame = torch.rand(SHAPE, device=device).contiguous(memory_format=torch.channels_last)
        plain.zero_grad(set_to_none=True)
        network.zero_grad(set_to_none=True)
        for own, expected in zip(after_a_pass(network, frame), after_a_pass(plain, frame), strict=True):
            assert torch.allclose(own.float(), expected.float(), atol=1e-4)
