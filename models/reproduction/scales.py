"""How much of a reproduction is run: crops, steps, seeds; one TOML file per scale."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from models.errors import RecipeError

FOLDER = Path(__file__).parents[1] / "recipes" / "reproduction"


@dataclass(frozen=True)
class Scale:
    """`crops_seen` crops of `side` pixels pass through every network in training, for each of `seeds`."""

    name: str
    side: int
    crops_seen: int
    training_crops: int
    validation_crops: int
    test_crops: int
    modern_batch: int
    seeds: tuple[int, ...]
    crops_per_frame: int = 4
    example_side: int = 192
    data_seed: int = 20240717

    def steps(self, batch: int) -> int:
        return max(1, self.crops_seen // batch)


def scales() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (FOLDER / "scales").glob("*.toml")))


def scale(name: str) -> Scale:
    """The scale called `name`. Raises `RecipeError` for an unknown one."""
    path = FOLDER / "scales" / f"{name}.toml"
    if not path.is_file():
        raise RecipeError(f"No scale is called {name!r}.", cure=f"There are {', '.join(scales())}.")
    values = tomllib.loads(path.read_text())
    return Scale(name=name, **{**values, "seeds": tuple(values["seeds"])})
