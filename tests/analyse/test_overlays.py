"""Overlay planes: read, drawn into the frame, and told apart from what is in the pixels."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, examples

from service.analyse.annotations import Annotation, Kind
from service.analyse.overlays import burned, drawn_on, overlaid
from service.dicom.overlays import read_overlays
from service.dicom.pixels import look
from service.errors import Undecodable, Unreadable
from tests.descriptors import no_descriptor_left

SHAPE = (240, 320)


@pytest.fixture
def with_overlay(tmp_path: Path) -> Path:
    """A real ultrasound frame with an overlay of 40 by 60, its lower half drawn, its corner at row 21, column 31."""
    image = dcmread(examples.get_path("rgb_color"))
    plane = np.zeros((40, 60), np.uint8)
    plane[20:] = 1
    image.add_new(0x60000010, "US", 40)
    image.add_new(0x60000011, "US", 60)
    image.add_new(0x60000040, "CS", "G")
    image.add_new(0x60000050, "SS", [21, 31])
    image.add_new(0x60000100, "US", 1)
    image.add_new(0x60000102, "US", 0)
    image.add_new(0x60003000, "OW", np.packbits(plane.ravel(), bitorder="little").tobytes())
    image.save_as(tmp_path / "overlay.dcm")
    return tmp_path / "overlay.dcm"


def test_an_overlay_lies_where_its_origin_says(with_overlay: Path) -> None:
    (overlay,) = read_overlays(with_overlay)
    drawn = drawn_on([overlay], 1, SHAPE)
    assert drawn is not None
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 59, 30, 89)


def test_a_look_says_whether_there_are_any(with_overlay: Path) -> None:
    assert look(with_overlay).has_overlays
    assert not look(Path(examples.get_path("rgb_color"))).has_overlays


def test_it_is_drawn_in_white_over_a_copy(with_overlay: Path) -> None:
    frame = np.zeros((*SHAPE, 3), np.uint8)
    shown = burned(frame, read_overlays(with_overlay), 1)
    assert not frame.any() and shown[50, 50].tolist() == [255, 255, 255] and not shown[0, 0].any()


def test_marks_on_it_are_its_own(with_overlay: Path) -> None:
    drawn = drawn_on(read_overlays(with_overlay), 1, SHAPE)
    mask = np.zeros(SHAPE, np.uint8)
    mask[45:50, 40:60] = mask[100:110, 200:220] = 2
    marks = [
        Annotation(Kind.CALIPER, 0.9, (40, 45, 20, 5), 100),
        Annotation(Kind.CALIPER, 0.9, (200, 100, 20, 10), 200),
    ]
    assert [mark.source for mark in overlaid(marks, mask, drawn)] == ["overlay", "network"]
    assert [mark.source for mark in overlaid(marks, mask, None)] == ["network", "network"]


@pytest.mark.parametrize(
    ("tag", "value"), [(0x60000010, 4000), (0x60000040, "R"), (0x60000050, [900, 900]), (0x60000010, 0)]
)
def test_what_draws_nothing(with_overlay: Path, tag: int, value: object) -> None:
    image = dcmread(with_overlay)
    image[tag].value = value
    image.save_as(with_overlay)
    assert drawn_on(read_overlays(with_overlay), 1, SHAPE) is None


def test_files_without_overlays(tmp_path: Path) -> None:
    assert read_overlays(Path(examples.get_path("rgb_color"))) == []
    (tmp_path / "x").write_bytes(b"no dicom")
    assert read_overlays(tmp_path / "x") == []


def test_a_file_that_cannot_be_read_now_is_no_file_without_overlays(with_overlay: Path, tmp_path: Path) -> None:
    with no_descriptor_left(), pytest.raises(Unreadable):
        read_overlays(with_overlay)
    assert read_overlays(with_overlay)
    with pytest.raises(Unreadable):
        read_overlays(tmp_path / "gone.dcm")


def test_an_overlay_of_many_frames_is_read_frame_by_frame(tmp_path: Path) -> None:
    """120 frames of 1024 by 768 have more pixels than may lie unpacked in memory."""
    planes = np.zeros((120, 768 * 1024), np.bool_)
    planes[:, :3] = [[True, False, True]]
    planes[77, 768 * 1024 - 1] = True
    (overlay,) = read_overlays(saved_with(tmp_path, planes, (768, 1024)))
    drawn = drawn_on([overlay], 78, (768, 1024))
    assert drawn is not None and np.argwhere(drawn).tolist() == [[0, 0], [0, 2], [767, 1023]]
    assert drawn_on([overlay], 121, (768, 1024)) is None


def test_frames_that_begin_within_a_byte(tmp_path: Path) -> None:
    planes = np.zeros((3, 15), np.bool_)
    planes[0, 0] = planes[1, 7] = planes[2, 14] = True
    (overlay,) = read_overlays(saved_with(tmp_path, planes, (3, 5)))
    found = [drawn_on([overlay], number, (3, 5)) for number in (1, 2, 3)]
    assert [np.argwhere(drawn).tolist() for drawn in found if drawn is not None] == [[[0, 0]], [[1, 2]], [[2, 4]]]


def test_a_plane_too_large_to_be_looked_at_is_said(tmp_path: Path) -> None:
    path = saved_with(tmp_path, np.zeros((1, 9000 * 9000), np.bool_), (9000, 9000))
    with pytest.raises(Undecodable, match="overlay"):
        read_overlays(path)


def test_an_overlay_that_contradicts_itself_hides_no_other(with_overlay: Path) -> None:
    image = dcmread(with_overlay)
    for element in (0x0010, 0x0011, 0x0040, 0x0050, 0x0100, 0x0102, 0x3000):
        image.add_new(0x60020000 | element, image[0x6000, element].VR, image[0x6000, element].value)
    image[0x60000010].value = 4000
    image.save_as(with_overlay)
    drawn = drawn_on(read_overlays(with_overlay), 1, SHAPE)
    assert drawn is not None and drawn[50, 50]


def saved_with(folder: Path, planes: np.ndarray, shape: tuple[int, int]) -> Path:
    """A real frame with an overlay of these planes (frames, pixels), at the image's corner."""
    image = dcmread(examples.get_path("rgb_color"))
    image.add_new(0x60000010, "US", shape[0])
    image.add_new(0x60000011, "US", shape[1])
    image.add_new(0x60000015, "IS", len(planes))
    image.add_new(0x60000040, "CS", "G")
    image.add_new(0x60000050, "SS", [1, 1])
    image.add_new(0x60000051, "US", 1)
    image.add_new(0x60000100, "US", 1)
    image.add_new(0x60000102, "US", 0)
    image.add_new(0x60003000, "OW", np.packbits(planes.ravel(), bitorder="little").tobytes())
    image.save_as(folder / "planes.dcm")
    return folder / "planes.dcm"
