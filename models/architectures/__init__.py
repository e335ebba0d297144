"""The networks, one short file each. `build("linknet")` makes one by the name that recipes use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

NETWORKS = {
    "unshuffle_unet": "UnshuffleUNet",
    "costumed_unet": "CostumedUNet",
    "fcn": "FCN",
    "deeplabv3": "DeepLabV3",
    "linknet": "LinkNet",
    "manet": "MANet",
    "unetplusplus": "UNetPlusPlus",
    "multiresunet": "MultiResUNet",
}
"""Module of this package → its network's class."""


def build(name: str, **options: Any) -> nn.Module:
    """The network `name` with random weights; `options` go to its class. KeyError names the networks there are."""
    if name not in NETWORKS:
        raise KeyError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}")
    network: nn.Module = getattr(import_module(f"{__name__}.{name}"), NETWORKS[name])(**options)
    return network
