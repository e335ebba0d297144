"""Burned-in text, read by the real model from frames on which it was really written."""

import socket

import cv2
import numpy as np
import pytest

from service.analyse.annotations import Annotation, Kind
from service.analyse.text import _SMALL_L, Line, NoReader, Reading, TextReader, models, with_text

pytest.importorskip("rapidocr")


def frame(*texts: tuple[str, tuple[int, int]]) -> np.ndarray:
    """Speckle with white capitals at these places, as a scanner writes them."""
    dice = np.random.default_rng(5)
    made = cv2.GaussianBlur(dice.integers(0, 90, (300, 400), np.uint8), (5, 5), 0)
    for text, place in texts:
        cv2.putText(made, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1, cv2.LINE_AA)
    return cv2.cvtColor(made, cv2.COLOR_GRAY2RGB)


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader()


def test_the_models_lie_in_the_package_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert all(file.stat().st_size > 1_000_000 for file in models())
    assert TextReader().read(frame(("LEFT", (30, 250))), [(28, 232, 60, 22)]).reading.lines[0].text == "LEFT"


def test_laterality_location_and_the_organ_that_cannot_be_seen(reader: TextReader) -> None:
    for text in ("LT AXILLA", "RT UOQ 10:00", "UNABLE TO VISUALIZE", "SAG RIGHT LOBE"):
        reading = reader.read(frame((text, (20, 270))), [(18, 250, 300, 26)]).reading
        assert [line.text for line in reading.lines] == [text] and reading.whole
        x, y, width, height = reading.lines[0].box
        assert abs(x - 20) < 12 and y < 262 < y + height and width > 40


def test_a_small_l_is_no_capital_i(reader: TextReader) -> None:
    assert _SMALL_L.sub("lt", "It11 above nipple") == "lt11 above nipple"
    assert _SMALL_L.sub("lt", "ITEM It, SPLIt") == "ITEM lt, SPLIt"


def test_a_frame_without_text(reader: TextReader) -> None:
    assert reader.read(frame(), []).reading == Reading((), whole=True)


def test_a_box_in_which_nothing_is_read_leaves_it_open(reader: TextReader) -> None:
    assert not reader.read(frame(("LEFT", (30, 250))), [(28, 232, 60, 22), (300, 20, 60, 20)]).reading.whole


def test_the_next_frame_of_a_cine_with_the_same_text_is_not_read_again(reader: TextReader) -> None:
    shown, box = frame(("LEFT", (30, 250))), (28, 232, 60, 22)
    first = reader.read(shown, [box])
    moved = shown.copy()
    moved[:100] = 200
    noisy = cv2.imdecode(cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_COLOR)
    assert reader.read(moved, [box], first) is first
    assert reader.read(noisy, [box], first) is first
    other = reader.read(frame(("RIGHT", (30, 250))), [box], first)
    assert other.reading.lines[0].text == "RIGHT"


@pytest.mark.parametrize(
    ("one", "other"), [("RT 10:00 RAD", "RT 10:00"), ("RT 10:00", "RT 10:00 RAD"), ("RT 10:00", "RT 11:00")]
)
def test_what_differs_by_a_word_or_a_digit_is_read_again(reader: TextReader, one: str, other: str) -> None:
    place, box = (30, 250), (28, 232, 90, 22)  # the network's box holds only what both have
    before = reader.read(frame((one, place)), [box])
    assert [line.text for line in reader.read(frame((other, place)), [box], before).reading.lines] == [other]


def test_lines_go_to_the_marks_they_lie_in() -> None:
    marks = [Annotation(Kind.TEXT, 0.9, (10, 10, 100, 40), 300), Annotation(Kind.CALIPER, 0.9, (15, 15, 20, 20), 40)]
    lines = (Line("CM", 0.8, (12, 30, 40, 14)), Line("LT", 0.9, (12, 12, 40, 14)), Line("RT", 0.7, (200, 200, 30, 14)))
    told = with_text(marks, Reading(lines, whole=True))
    assert [(mark.kind, mark.text, mark.text_score) for mark in told] == [
        (Kind.TEXT, "LT\nCM", 0.8),
        (Kind.CALIPER, "", None),
        (Kind.TEXT, "RT", 0.7),
    ]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.analyse.text.find_spec", lambda _: None)
    with pytest.raises(NoReader, match="sonomark"):
        models()
