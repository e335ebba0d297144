"""How a frame is made as large as the network takes: the one place, for serving and training alike."""

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB


def padded(frame: Frame, below: int, right: int) -> Frame:
    """The frame, uint8 (rows + below, columns + right, 3), mirrored at its lower and right edge.

    Tissue goes on there as tissue. Repeated, the last row becomes streaks, which weights that never saw any took for
    the fill of a colour box.
    """
    return np.asarray(cv2.copyMakeBorder(frame, 0, below, 0, right, cv2.BORDER_REFLECT_101), np.uint8)
