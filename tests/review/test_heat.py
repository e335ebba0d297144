"""The heat map's scale: the site's 99.9th percentile, fixed once enough frames were seen."""

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.review import heat


@pytest.fixture(autouse=True)
def _house(client: TestClient) -> None:
    """A data folder of its own."""


def frame(level: int, share: float) -> np.ndarray:
    """10,000 pixels of which a share has this level."""
    pixels = np.zeros((100, 100), np.uint8)
    pixels.reshape(-1)[: round(share * 10_000)] = level
    return pixels


def test_it_is_the_percentile_once_enough_frames_were_seen() -> None:
    for _ in range(heat.FRAMES_NEEDED - 1):
        heat.count("net@1", frame(90, 0.01))
    assert heat.top() == heat.DEFAULT_TOP
    heat.count("net@1", frame(90, 0.01))
    assert heat.top() == 96, "a round number at or above 90"


def test_a_few_bright_pixels_do_not_stretch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heat, "FRAMES_NEEDED", 1)
    heat.count("net@1", np.maximum(frame(60, 0.02), frame(250, 0.0005)))
    assert heat.top() == 64


def test_it_is_fixed_in_the_end_and_anew_for_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heat, "FRAMES_NEEDED", 1)
    monkeypatch.setattr(heat, "FRAMES_COUNTED", 2)
    for level in (40, 40, 200, 200):
        heat.count("net@1", frame(level, 1))
    assert heat.top() == 40
    heat.count("net@2", frame(200, 1))
    assert heat.top() == 200
