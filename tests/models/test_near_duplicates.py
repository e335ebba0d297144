"""Frames that look nearly the same: every pair is found, however many frames there are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import dataset


def looks(count: int, length: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(0, 1, (count, length)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(count=st.integers(1, 60), length=st.integers(2, 8), at_once=st.integers(1, 500), seed=st.integers(0, 2**31))
def test_the_same_pairs_in_the_same_order_as_all_at_once(count: int, length: int, at_once: int, seed: int) -> None:
    rows = looks(count, length, seed)
    whole = np.argwhere(np.triu(rows @ rows.T > dataset._NEAR_DUPLICATE, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_COMPARED_AT_ONCE", at_once)
        assert list(dataset._alike(rows)) == [tuple(pair) for pair in whole.tolist()]


def test_the_memory_for_pairs_does_not_grow_with_the_square_of_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_COMPARED_AT_ONCE", 1 << 16)
    rows = looks(3000, 64, 1)
    rows[-1] = rows[0]
    tracemalloc.start()
    try:
        assert (0, len(rows) - 1) in list(dataset._alike(rows))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < len(rows) ** 2 / 8, "all pairs at once take at least a byte each"
