"""What training asks of the machine: memory that is used again, an orderly end, fast half precision."""

import ctypes
import signal
import sys
import threading
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


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


def placed(network: Network, device: torch.device) -> Network:
    """The network itself, on the device, its weights in the order that fast convolutions read them (channels last)."""
    # PyTorch's own annotations leave out what its documentation says of `memory_format`.
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def bf16_is_fast(device: torch.device) -> bool:
    """bfloat16 doubled the speed on CPUs that have its instructions and slows others down."""
    if device.type == "cuda":
        supported: bool = torch.cuda.is_bf16_supported()
        return supported
    capable: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return capable
