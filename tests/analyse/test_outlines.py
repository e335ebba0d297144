"""One colour box is one mark, however often something crosses its outline."""

import numpy as np
import pytest

from service.analyse.annotations import Kind, components
from service.analyse.outlines import rejoined


def drawn(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A plane (400, 600) with outlines (x, y, width, height), two pixels thick."""
    plane = np.zeros((400, 600), np.uint8)
    for x, y, width, height in boxes:
        for edge in (
            np.s_[y : y + 2, x : x + width],
            np.s_[y + height - 2 : y + height, x : x + width],
            np.s_[y : y + height, x : x + 2],
            np.s_[y : y + height, x + width - 2 : x + width],
        ):
            plane[edge] = 255
    return plane


def marks(plane: np.ndarray) -> int:
    return len(components(plane, None, Kind.COLOR_BOX, 0.5, 10).boxes)


@pytest.mark.parametrize(("rows", "columns"), [(slice(None), slice(260, 310)), (slice(140, 190), slice(None))])
def test_a_box_whose_outline_is_broken_is_one_mark(rows, columns):
    plane = drawn((100, 60, 350, 220))
    plane[rows, columns] = 0
    assert marks(plane) == 1


def test_a_box_broken_both_ways_is_one_mark():
    plane = drawn((60, 40, 480, 320))
    plane[:, 270:320] = 0
    plane[170:220] = 0
    assert marks(plane) == 1


def test_two_boxes_side_by_side_stay_two():
    assert marks(drawn((40, 60, 200, 220), (290, 60, 200, 220))) == 2


def test_two_boxes_one_above_the_other_stay_two():
    assert marks(drawn((40, 20, 200, 150), (40, 220, 200, 150))) == 2


def test_halves_at_other_heights_stay_two():
    plane = drawn((40, 60, 200, 220))
    plane[:, 200:] = 0
    lower = drawn((240, 130, 200, 220))
    lower[:, :300] = 0
    assert marks(plane | lower) == 2


def test_the_box_of_the_whole_is_the_whole_box():
    plane = drawn((100, 60, 350, 220))
    plane[:, 260:310] = 0
    found = components(plane, None, Kind.COLOR_BOX, 0.5, 10)
    assert found.boxes.tolist() == [[100, 60, 350, 220]]
    assert found.pixels.sum() == np.count_nonzero(plane)


def test_nothing_is_left_alone():
    none = np.zeros((0, 2), np.int64)
    assert rejoined(none, none[:, 0], 100).shape == (0,)
