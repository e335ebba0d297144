"""Recipes of the paper's tables: each says which cells its two tables have."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from models.architectures import NETWORKS
from models.errors import RecipeError
from models.reproduction.datasets import DRAW
from models.reproduction.inputs import INPUTS
from models.reproduction.losses import LOSSES
from models.reproduction.optimisers import OPTIMISERS
from models.reproduction.pipelines import Defects, pipeline
from models.reproduction.scales import FOLDER

SCHEMES = ("N2N", "N2C")
NUMERALS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII")
UNCHANGED = "unchanged"
"""Not a network: the input as its own restoration. What a restoration must beat."""
BLACK = "black"
"""Not a network: a black restoration, whose residual is the input's brightness. What a mask must beat."""
UNTRAINED = (UNCHANGED, BLACK)


@dataclass(frozen=True)
class Cell:
    """One training run and its scores, but for the scale and the seed."""

    kind: str
    network: str
    scheme: str
    input: str
    loss: str
    optimiser: str
    pipeline: str

    @property
    def defects(self) -> Defects:
        return pipeline(self.pipeline)

    def slug(self, seed: int) -> str:
        """The stem of the cell's files."""
        digest = sha256(repr(asdict(self)).encode()).hexdigest()[:6]
        return f"{self.kind}-{self.network}-{self.scheme}-{digest}-{seed}"


@dataclass(frozen=True)
class Recipe:
    """Two tables of the paper; `rows` names the field of a cell that their rows vary."""

    name: str
    title: str
    tables: tuple[str, str]
    figure: str
    kind: str
    rows: str
    cells: tuple[Cell, ...]


def recipes() -> list[Recipe]:
    """All recipes, in the order of the paper's tables."""
    return sorted(map(load, FOLDER.glob("*.toml")), key=lambda recipe: NUMERALS.index(recipe.tables[0]))


def load(path: Path) -> Recipe:
    """Read one recipe. Raises `RecipeError` when it names something that does not exist."""
    try:
        values = tomllib.loads(path.read_text())
        cells = tuple(dict.fromkeys(cell for arm in values.pop("arm") for cell in _cells(values["kind"], arm)))
        tables = tuple(values.pop("tables"))
        recipe = Recipe(name=path.stem, cells=cells, tables=tables, **values)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as wrong:
        raise RecipeError(
            f"{path} is no recipe of a table: {wrong}.", cure="Compare it with those beside it."
        ) from wrong
    if recipe.rows not in Cell.__dataclass_fields__:
        raise RecipeError(
            f"{path}: rows cannot vary by {recipe.rows!r}.", cure=f"There are {', '.join(Cell.__dataclass_fields__)}."
        )
    return recipe


_KNOWN: dict[str, Iterable[str]] = {
    "kinds": DRAW,
    # The product's own network answers with masks as well and has recipes of its own.
    "networks": (*(set(NETWORKS) - {"unshuffle_unet"}), "costumed_unet_unshared", *UNTRAINED),
    "schemes": SCHEMES,
    "inputs": INPUTS,
    "losses": LOSSES,
    "optimisers": OPTIMISERS,
}


def _cells(kind: str, arm: dict[str, Any]) -> Iterable[Cell]:
    """Every combination of an arm's lists."""
    for field, names in {"kinds": [kind], **arm}.items():
        unknown = set(names) - set(_KNOWN[field]) if field != "pipelines" else set()
        if unknown:
            raise RecipeError(f"No {field} {sorted(unknown)}.", cure=f"There are {', '.join(_KNOWN[field])}.")
    for name in arm["pipelines"]:
        pipeline(name)
    choices = (arm[field] for field in ("networks", "schemes", "inputs", "losses", "optimisers", "pipelines"))
    return (Cell(kind, *choice) for choice in product(*choices))
