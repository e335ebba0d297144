"""The paper's pipeline, defect by defect: what was wrong there, each behind a switch of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from models.errors import RecipeError


@dataclass(frozen=True)
class Defects:
    """Ten things the published pipeline does that move its conclusions; `False` is the right way."""

    clean_target_skips_chain: bool = False
    """1. Noise2Clean learns towards frames that never went through the resize and JPEG of its inputs."""
    otsu_threshold: bool = False
    """2. Otsu's method splits every residual in two, so that a clean frame has annotations too."""
    nearest_resize: bool = False
    """3. Nearest-neighbour reduction from 800 to 512 pixels drops 36 % of the lines of one pixel."""
    wrapping_uint8: bool = False
    """4. Values beyond 0..255 wrap round: white turns black."""
    unscaled_smn: bool = False
    """5. Outputs in normalised units are scored as if they were grey levels."""
    wrong_icon_masks: bool = False
    """6. About half of the masks of radial lines belong to another icon."""
    loss_scales: bool = False
    """7. Huber with δ = 1 is Smooth L1 with β = 1 on [0, 1], and L2 is a sum where the others are means."""
    one_sided_residual: bool = False
    """8. Only what the restoration darkens counts; dark marks are not seen."""
    whole_frame_loss: bool = False
    """9. Marks are so few of a frame's pixels that doing nothing is the best answer until the network is half sure."""
    fixed_places: bool = False
    """10. Markers never stand near the centre and calipers only there: the place gives the mark away."""


SWITCHES = tuple(field.name for field in fields(Defects))

PIPELINES = {
    "as-published": Defects(**dict.fromkeys(SWITCHES, True)),
    "corrected": Defects(),
}


def pipeline(name: str) -> Defects:
    """The pipeline called `as-published` or `corrected`, or one with a switch turned.

    `corrected with otsu_threshold` has that defect alone, `as-published without otsu_threshold` all but that one.
    Raises `RecipeError` for an unknown name.
    """
    base, _, turn = name.partition(" ")
    if base not in PIPELINES:
        raise RecipeError(f"No pipeline is called {base!r}.", cure=f"There are {', '.join(PIPELINES)}.")
    if not turn:
        return PIPELINES[base]
    preposition, _, switch = turn.partition(" ")
    if preposition not in ("with", "without") or switch not in SWITCHES:
        raise RecipeError(f"{name!r} turns no known switch.", cure=f"Say `with` or `without` {', '.join(SWITCHES)}.")
    return replace(PIPELINES[base], **{switch: preposition == "with"})
