"""Recipes: everything that decides what a training run gives, in one TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from models.errors import RecipeError
from models.layers import LAYERS
from models.pool import CropSettings

RECIPES = Path(__file__).with_name("recipes")
_TRAINED = "UnshuffleUNet"


@dataclass(frozen=True)
class NetworkSettings:
    """The released network's unless a recipe says otherwise, so that its weights can be started from."""

    channels: tuple[int, ...] = (16, 48, 80, 128, 192)
    top_blocks: int = 1
    dilations: tuple[int, ...] = (1, 2, 4)


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW under a one-cycle schedule; ``average`` is the decay of the weights' exponential moving average,
    ``layers`` which of them are trained (see `models.layers.hold_still`)."""

    rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.1
    average: float = 0.998
    largest_gradient: float = 2.0
    layers: str = "all"


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms; ``marked`` is that of pixels under a mark against all others in the restoration's loss."""

    restoration: float = 2.0
    marked: float = 1.0
    cross_entropy: float = 1.0
    kind_weight: float = 4.0
    focus: float = 1.5
    dice: float = 0.5
    presence: float = 0.3


@dataclass(frozen=True)
class SplitSettings:
    held_out_sources: tuple[str, ...] = ()
    share: float = 0.15


@dataclass(frozen=True)
class Recipe:
    name: str
    steps: int
    batch: int = 16
    seed: int = 20261123
    pool: int = 8000
    workers: int = 1
    """Processes that draw crops; 0 for as many as there are cores to spare."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    crops: CropSettings = field(default_factory=CropSettings)
    split: SplitSettings = field(default_factory=SplitSettings)


def load(name: str | Path) -> Recipe:
    """A recipe by its name in `models/recipes` or by its path. Raises `RecipeError` for an unknown name, key or
    section, and for a value that cannot be."""
    path = Path(name) if Path(name).suffix == ".toml" else RECIPES / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise RecipeError(f"No recipe {path}.", cure=f"Recipes at hand: {known}.") from missing
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise RecipeError(f"{path} is not valid TOML: {broken}.", cure="Correct that line.") from broken
    return from_values({"name": path.stem, **values})


def split_of(card: Mapping[str, Any]) -> SplitSettings:
    """How the data were split that the weights of a card were trained on; older cards name a shipped recipe alone."""
    if "split" in card:
        split: SplitSettings = _built(SplitSettings, card["split"], Path("card.toml"))
        return split
    return load(card["recipe"]).split


def network_of(card: Mapping[str, Any]) -> NetworkSettings:
    """The network that a card describes. Raises `RecipeError` where that is none which can be trained here."""
    shape, names = card["architecture"], sorted(field.name for field in fields(NetworkSettings))
    known = dict(shape) if isinstance(shape, Mapping) else {}
    if (other := known.pop("class", _TRAINED)) != _TRAINED:
        raise RecipeError(f"The card's network is a {other}.", cure=f"Only a {_TRAINED} can be trained further.")
    if lacking := [name for name in names if name not in known]:
        cure = "Take weights that `python -m models export` wrote."
        raise RecipeError(f"The card's architecture lacks {', '.join(lacking)}.", cure=cure)
    network: NetworkSettings = _built(NetworkSettings, {name: known[name] for name in names}, Path("card.toml"))
    return network


def from_values(values: dict[str, Any]) -> Recipe:
    """A recipe from the values `dataclasses.asdict` gave."""
    recipe: Recipe = _built(Recipe, values, Path(f"{values.get('name', 'recipe')}.toml"))
    return recipe


_SECTIONS = {
    "network": NetworkSettings,
    "optimiser": OptimiserSettings,
    "loss": LossSettings,
    "crops": CropSettings,
    "split": SplitSettings,
}


_CHOOSABLE: Mapping[str, tuple[float, float]] = {
    "steps": (1, math.inf),
    "batch": (1, math.inf),
    "pool": (1, math.inf),
    "workers": (0, math.inf),
    "seed": (0, math.inf),
    "top_blocks": (1, math.inf),
    "warm_up": (0, 0.99),
    "average": (0, 1),
    "share": (0, 0.95),
    "per_screen": (1, math.inf),
    "centred": (0, 1),
    "blurred": (0, 1),
    "smallest_scale": (0.05, 20),
    "largest_scale": (0.05, 20),
    "blur": (0.4, math.inf),
    "uses": (0.01, math.inf),
}
"""Settings that make no sense, or no run, outside of a range."""
_LEVELS = (2, 5)
_STRIDE = 2 ** _LEVELS[1]  # how often the deepest network halves a side, which must come out even


def _refuse_what_cannot_be(key: str, value: Any, wanted: Any, path: Path) -> None:
    """Raise `RecipeError` for a value of another type, or beyond its range: a run would end by it in its midst."""
    least, most = _CHOOSABLE.get(key, (-math.inf, math.inf))
    inner = get_args(wanted)
    cure = ""
    if inner and not (isinstance(value, tuple) and all(_is_a(inner[0], one) for one in value)):
        cure = f"Write a list, `{key} = [ … ]`, of {_NAMES[inner[0]][1]}."
    elif not inner and not _is_a(wanted, value):
        cure = f"Write {_NAMES[wanted][0] if wanted in _NAMES else 'a table'}."
    elif isinstance(value, int | float) and not least <= value <= most:
        cure = f"Write {least:g} to {most:g}." if most < math.inf else f"Write {least:g} or more."
    elif key == "channels" and (not _LEVELS[0] <= len(value) <= _LEVELS[1] or min(value) < 1):
        cure = f"Write {_LEVELS[0]} to {_LEVELS[1]} numbers, each above 0."
    elif key == "dilations" and min(value, default=1) < 1:
        cure = "Write numbers above 0."
    elif key == "side" and (value < _STRIDE or value % _STRIDE):
        cure = f"Write a multiple of {_STRIDE}."
    elif key == "layers" and value not in LAYERS:
        cure = f"There are {', '.join(LAYERS)}."
    if cure:
        shown = list(value) if isinstance(value, tuple) else value
        raise RecipeError(f"{path} says {key} = {shown!r}, which cannot be.", cure=cure)


_NAMES = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text in quotes", "texts in quotes"),
}


def _is_a(kind: type, value: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return isinstance(value, kind) and not isinstance(value, bool)


def _built(kind: type, values: dict[str, Any], path: Path) -> Any:
    known = {entry.name for entry in fields(kind)}
    unknown = set(values) - known
    if unknown:
        raise RecipeError(
            f"{path} has an unknown key {sorted(unknown)[0]!r}.", cure=f"Known here: {', '.join(sorted(known))}."
        )
    types = get_type_hints(kind)
    converted = {}
    for key, value in values.items():
        if key in _SECTIONS and kind is Recipe and isinstance(value, Mapping):
            value = _built(_SECTIONS[key], dict(value), path)
        value = tuple(value) if isinstance(value, list) else value
        _refuse_what_cannot_be(key, value, types[key], path)
        converted[key] = value
    try:
        return kind(**converted)
    except TypeError as missing:
        raise RecipeError(f"{path}: {missing}.", cure="Compare it with a recipe in models/recipes.") from missing
