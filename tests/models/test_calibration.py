"""Calibration on many frames: what is kept of each, and that a kind is seen in a case as it is in service."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from pickle import dumps
from weakref import ref

import numpy as np
import pytest

from models.calibrate import calibrate, cases, shares_of
from models.dataset import Frame, Split, clean_frames, read_frame, split
from models.served import Graph, Output, Shares
from service.analyse.annotations import Kind, components
from service.analyse.close_ups import CloseUp
from tests.models.tiny_weights import write_speckle, write_tiny_weights

BOTH_LOOKS = Shares([0.5, 0.0, 0.5, 0.0, 0.0], [0.5] * 5)  # thin strokes of the others fade from afar


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    write_tiny_weights(folder / "weights")
    write_speckle(folder / "frames", 6, side=150)
    return folder


@pytest.fixture(scope="module")
def parts(folder: Path) -> Split:
    return split(clean_frames(folder / "frames"), (), 0.5, 1)


class Crowded(Graph):
    """Finds marks all over every frame, others in each look, and keeps an eye on what becomes of its answers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, 1024, second_look=0.7, most_close_ups=1)
        self.alive: list[ref[np.ndarray]] = []
        self.pixels = 0

    def __call__(self, frame: Frame) -> Output:
        rng = np.random.default_rng(frame.shape[1])
        output = super().__call__(frame)
        spread = (rng.random((5, *frame.shape[:2])) > 0.5) * np.uint8(200)
        place = CloseUp(0, 0, slice(0, 100), slice(0, 100))
        closely = ((place, rng.integers(0, 256, (5, 256, 256), np.uint8)),)
        output = replace(output, kinds=spread, far=rng.integers(0, 256, (5, 90, 90), np.uint8), closely=closely)
        self.pixels += spread[0].size
        self.alive += [ref(each) for each in (output.kinds, output.residual, output.frame)]
        return output


def test_of_a_frame_no_plane_is_kept(folder: Path, parts: Split) -> None:
    """Ten a frame of an archive are more than a machine's memory holds; then the process is killed without a word."""
    graph = Crowded(folder / "weights" / "model.onnx")
    found = list(cases(graph, parts, 4, 1))
    assert len(graph.alive) == 3 * len(found) > 12 and not any(each() is not None for each in graph.alive)
    assert all(len(case.marks[0.5].drawn) for each in found for case in each.values())
    assert len(dumps(found)) < graph.pixels / 4


def test_a_kind_is_seen_as_all_looks_together_show_it(folder: Path, parts: Split) -> None:
    graph = Crowded(folder / "weights" / "model.onnx")
    found = [each for each in cases(graph, parts, 1, 1) if each[Kind.TEXT].real]
    for frame, each in zip(parts.validation, found, strict=True):
        output = graph(read_frame(frame.path))
        together = output.together(BOTH_LOOKS)
        for number, kind in enumerate(Kind):
            for planes, same in ((together.kinds, True), (output.kinds, False)):
                marks = components(planes[number], output.residual, kind, 0.5, 1)
                assert np.array_equal(marks.features, each[kind].marks[0.5].features) is same


def test_the_file_says_how_much_each_look_counted(folder: Path, parts: Split, tmp_path: Path) -> None:
    graph = Graph(folder / "weights" / "model.onnx", 1024)
    for scale, most in ((0.0, 0), (0.7, 0), (0.0, 2), (0.7, 2)):
        graph.second_look, graph.most_close_ups = scale, most
        assert shares_of(graph) == (BOTH_LOOKS.far if scale else [0.0] * 5, BOTH_LOOKS.close if most else [0.0] * 5)
    written = tomllib.loads(calibrate(graph, parts, tmp_path, 30, 1, lambda _: None, "ab12").read_text())
    limits = [written["thresholds"][kind] for kind in Kind]
    assert Shares([each["far"] for each in limits], [each["close"] for each in limits]) == BOTH_LOOKS
    assert (written["second_look"], written["close_ups"], written["weights"]) == (0.7, 2, "ab12")
