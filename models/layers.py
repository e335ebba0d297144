"""Which layers of a network are trained and which hold still."""

from __future__ import annotations

from torch import nn

from models.errors import RecipeError

LAYERS = ("all", "last", "normalisation")


def hold_still(network: nn.Module, layers: str) -> None:
    """Leave only the named layers to be trained: `all`, the `last` ones (topmost blocks and head), or what stands for
    adapters here, the scales and shifts of the `normalisation`, which cost nothing once they are folded.

    Raises `RecipeError` for another name.
    """
    if layers not in LAYERS:
        raise RecipeError(f"No layers are called {layers!r}.", cure=f"There are {', '.join(LAYERS)}.")
    for name, module in network.named_modules():
        for weight in module.parameters(recurse=False):
            trained = {
                "all": True,
                "last": name.startswith(("up.0.", "head.")),
                "normalisation": isinstance(module, nn.BatchNorm2d),
            }[layers]
            weight.requires_grad_(trained)


def hold_statistics(network: nn.Module, layers: str) -> None:
    """Where only some of the layers are trained, normalise by the statistics that the weights came with.

    Those of a few crops of one site would change what every layer gets, also those that hold still.
    """
    if layers != "all":
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
