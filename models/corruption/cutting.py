"""An archive's crop: whoever cuts a frame down to the tissue cuts through what stands at its edge."""

from __future__ import annotations

import cv2
import numpy as np

from models.corruption.strokes import Image

Window = tuple[slice, slice]

# How much of a side may go with a cut.
_DEEPEST = 0.3
_SIDES = ("left", "top", "right", "bottom")
# Joins the letters of a word and the dots of a line into one object.
_REACH = np.ones((5, 13), np.uint8)


def through_a_mark(rng: np.random.Generator, labels: Image, kinds: tuple[int, ...]) -> Window | None:
    """Rows and columns that are left when an edge is cut through one mark of `kinds` (labels uint8 HxW).

    None where no such mark lies near enough to an edge.
    """
    height, width = labels.shape
    for kind in rng.permutation([kind for kind in kinds if (labels == kind).any()]):
        plane = cv2.dilate((labels == int(kind)).view(np.uint8), _REACH)
        count, _, boxes, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
        for which in rng.permutation(np.arange(1, count)):
            x, y, w, h = (int(v) for v in boxes[which][:4])
            share = float(rng.uniform(0.1, 0.9))
            across, down = x + round(share * w), y + round(share * h)
            windows = {
                "left": (np.s_[:, across:], across / width),
                "top": (np.s_[down:, :], down / height),
                "right": (np.s_[:, :across], 1 - across / width),
                "bottom": (np.s_[:down, :], 1 - down / height),
            }
            near = [windows[side][0] for side in _SIDES if 0 < windows[side][1] < _DEEPEST]
            if near:
                return near[int(rng.integers(len(near)))]
    return None
