"""Calibration on many frames: what is kept of each, and that a kind is seen in a case as it is in service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from models.calibrate import Case, cases, seen
from models.dataset import clean_frames, split
from models.served import Graph, Output, Shares
from service.analyse.annotations import Kind
from service.analyse.close_ups import CloseUp
from tests.models.tiny_weights import write_speckle, write_tiny_weights

SIDE = 150


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("calibration")
    graph = Graph(write_tiny_weights(folder / "weights") / "model.onnx", 1024)
    parts = split(clean_frames(write_speckle(folder / "frames", 6, side=SIDE)), (), 0.5, 1)
    return list(cases(graph, parts, 4, 1))


def memory(some: Sequence[Case]) -> dict[int, int]:
    """Every array that is held, by its place, with its bytes."""

    def arrays(case: Case) -> Iterator[np.ndarray]:
        output = case.output
        held = (output.frame, output.restoration, output.residual, output.kinds, output.far, case.labels)
        yield from (each for each in held if each is not None)
        yield from (planes for _, planes in output.closely or ())

    held = {}
    for case in some:
        for array in arrays(case):
            while isinstance(array.base, np.ndarray):
                array = array.base
            held[id(array)] = array.nbytes
    return held


def pixels(some: Sequence[Case]) -> int:
    return sum(case.output.residual.size for case in some)


def test_of_a_case_no_more_is_kept_than_the_fit_looks_at(found: list[Case]) -> None:
    """Ten a frame of an archive are more than a machine's memory holds; then the process is killed without a word."""
    assert sum(memory(found).values()) <= 7.2 * pixels(found), "five kinds, the residual and what was drawn"
    assert all(case.labels is None or case.labels.shape == case.output.residual.shape for case in found)


def test_one_kind_takes_the_memory_of_one(found: list[Case]) -> None:
    rng = np.random.default_rng(0)

    def far(case: Case) -> np.ndarray:
        return rng.integers(0, 256, (len(Kind), 100, 100), np.uint8)

    looked = [replace(case, output=replace(case.output, far=far(case))) for case in found]
    before = memory(looked)
    after = memory(seen(looked, Kind.COLOR_BOX, 0.5, 0.0))
    fresh = sum(size for place, size in after.items() if place not in before)
    assert 0 < fresh <= 1.2 * pixels(found)


def test_a_kind_is_seen_as_all_looks_together_show_it() -> None:
    rng = np.random.default_rng(3)
    frame = np.zeros((300, 260, 3), np.uint8)
    kinds, far = (rng.integers(0, 256, (len(Kind), *size), np.uint8) for size in ((300, 260), (200, 180)))
    closely = tuple(
        (CloseUp(x, y, slice(y + 32, y + 168), slice(x + 32, x + 168)), rng.integers(0, 256, (5, 256, 256), np.uint8))
        for x, y in ((0, 0), (50, 80))
    )
    case = Case(Output(frame, frame, kinds[0], kinds, far, closely), np.zeros(5, np.int64), None)
    for number, kind in enumerate(Kind):
        shares = Shares(*([share if each is kind else 0.0 for each in Kind] for share in (0.4, 0.5)))
        (one,) = seen([case], kind, 0.4, 0.5)
        assert np.array_equal(one.output.kinds[number], case.output.together(shares).kinds[number])
        assert not np.array_equal(one.output.kinds[number], kinds[number])
