"""A network whose passes are recorded once and replayed, where the time goes into telling a GPU what to do next."""

from __future__ import annotations

import torch
from torch import nn


def recorded(network: nn.Module, shape: tuple[int, ...], device: torch.device, half: bool) -> nn.Module:
    """The network in training mode, its forward and backward pass recorded as CUDA graphs for batches of one shape
    (N, 3, H, W), with ``half`` under autocast to bfloat16; on a CPU, the network as it is.

    Some hundred kernels of a few microseconds each take longer to launch than to run. Recording runs the network a few
    times, which moves running statistics: they are put back.
    """
    if device.type != "cuda":
        return network
    example = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    # A cache of weights in bfloat16 would be recorded as it is now (PyTorch's notes on CUDA graphs).
    with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (example,))
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
    return network
