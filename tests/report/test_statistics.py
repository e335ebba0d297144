"""Intervals and limits, against published values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.report.statistics import is_small, kappa, p_limits, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe, Stat Med 1998;17:857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_wilson_holds_the_rate_and_stays_a_share(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    low, high = wilson(successes, trials) or (2.0, -1.0)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


def test_nothing_is_known_without_trials() -> None:
    assert wilson(0, 0) is None
    assert p_limits(0.5, 0) is None


def test_p_chart() -> None:
    # Montgomery, Introduction to Statistical Quality Control, example 7.1: p = 0.2313, n = 50
    low, high = p_limits(0.2313, 50) or (0, 0)
    assert (low, high) == pytest.approx((0.0524, 0.4102), abs=1e-4)
    assert p_limits(0.99, 10) == (pytest.approx(0.8956, abs=1e-4), 1.0)
    assert is_small(0.95, 50)
    assert not is_small(0.9, 60)


def test_kappa() -> None:
    # 45 and 15 agreed of 100, 25 and 15 not: Cohen's kappa 0.1304 (Wikipedia's second worked example)
    pairs = [("yes", "yes")] * 45 + [("no", "no")] * 15 + [("yes", "no")] * 15 + [("no", "yes")] * 25
    assert kappa(pairs) == pytest.approx(0.1304, abs=1e-4)
    assert kappa([]) is None
    assert kappa([("yes", "yes")]) is None
    assert kappa([("yes", "no"), ("no", "yes")]) == -1.0
