"""`nn.PixelShuffle(2)` and its inverse on bytes: a hundredth of what the network takes, and of what a runtime's own
transpositions of bytes take a tenth.

Channel ``4 c + 2 y + x`` at half resolution is the pixel (x, y) of each square of four of channel ``c``.
"""

from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

SIDE = 2
PIXELS = SIDE * SIDE  # of the frame to one at half resolution


def unshuffled(frames: Bytes) -> Bytes:
    """RGB frames (N, H, W, 3) of even height and width to planes (N, 12, H / 2, W / 2)."""
    count, height, width, channels = frames.shape
    rows, columns = height // SIDE, width // SIDE
    planes = np.empty((count, channels * PIXELS, rows, columns), np.uint8)
    for frame, own in zip(frames, planes, strict=True):
        for y in range(SIDE):
            # Two neighbours lie behind each other as six bytes.
            pairs = frame[y::SIDE].reshape(rows, columns, SIDE * channels)
            cv2.split(pairs, [own[PIXELS * c + SIDE * y + x] for x, c in product(range(SIDE), range(channels))])
    return planes


def shuffled(planes: Bytes) -> Bytes:
    """Planes (N, 4 C, H, W) to (N, C, 2 H, 2 W)."""
    count, channels, rows, columns = planes.shape
    full = np.empty((count, channels // PIXELS, rows, SIDE, columns, SIDE), np.uint8)
    for own, frame in zip(planes, full, strict=True):
        for channel, y in product(range(channels // PIXELS), range(SIDE)):
            first = PIXELS * channel + SIDE * y
            cv2.merge([own[first], own[first + 1]], frame[channel, :, y])
    return full.reshape(count, channels // PIXELS, SIDE * rows, SIDE * columns)


def shuffled_colours(planes: Bytes) -> Bytes:
    """Planes (N, 4 C, H, W) to frames (N, 2 H, 2 W, C), the colours of a pixel side by side."""
    count, channels, rows, columns = planes.shape
    colours = channels // PIXELS
    full = np.empty((count, rows, SIDE, columns, SIDE * colours), np.uint8)
    for own, frame in zip(planes, full, strict=True):
        for y in range(SIDE):
            pairs = [own[PIXELS * c + SIDE * y + x] for x, c in product(range(SIDE), range(colours))]
            cv2.merge(pairs, frame[:, y])
    return full.reshape(count, SIDE * rows, SIDE * columns, colours)
