"""Intervals and limits, against published values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from service.report.statistics import Z95, is_small, kappa, kappa_interval, p_limits, wilson


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
    assert not is_small(0.5, 10)  # five are expected, and five are enough


def test_kappa() -> None:
    # 45 and 15 agreed of 100, 25 and 15 not: Cohen's kappa 0.1304 (Wikipedia's second worked example)
    pairs = [("yes", "yes")] * 45 + [("no", "no")] * 15 + [("yes", "no")] * 15 + [("no", "yes")] * 25
    assert kappa(pairs) == pytest.approx(0.1304, abs=1e-4)
    assert kappa([]) is None
    assert kappa([("yes", "yes")]) is None
    assert kappa([("yes", "no"), ("no", "yes")]) == -1.0


def table(*rows: tuple[int, ...]) -> list[tuple[str, str]]:
    """Two readers' answers from the counts of their cross table."""
    return [(str(i), str(j)) for i, row in enumerate(rows) for j, count in enumerate(row) for _ in range(count)]


def test_the_interval_of_kappa_as_published() -> None:
    # Fleiss, Statistical Methods for Rates and Proportions, 2nd ed., table 13.1: kappa 0.676, standard error 0.088
    low, high = kappa_interval(table((75, 1, 4), (5, 4, 1), (0, 0, 10))) or (0.0, 0.0)
    assert ((low + high) / 2, (high - low) / 2 / Z95) == pytest.approx((0.676, 0.088), abs=5e-4)


@pytest.mark.parametrize("counts", [((20, 5), (10, 15)), ((3, 9, 1), (4, 6, 2), (8, 1, 5)), ((0, 4), (5, 1))])
def test_the_interval_of_kappa_against_the_delta_method(counts: tuple[tuple[int, ...], ...]) -> None:
    """The same variance from the gradient of kappa, taken numerically, and the covariance of a multinomial sample."""
    shares = np.array(counts) / np.sum(counts)

    def of(p: np.ndarray) -> float:
        chance = p.sum(axis=1) @ p.sum(axis=0)
        return float((np.trace(p) - chance) / (1 - chance))

    gradient = np.zeros(shares.size)
    for place in range(shares.size):
        step = np.zeros(shares.size)
        step[place] = 1e-6
        step = step.reshape(shares.shape)
        gradient[place] = (of(shares + step) - of(shares - step)) / 2e-6
    flat = shares.ravel()
    error = np.sqrt(gradient @ (np.diag(flat) - np.outer(flat, flat)) @ gradient / np.sum(counts))
    low, high = kappa_interval(table(*counts)) or (0.0, 0.0)
    assert (low, high) == pytest.approx((max(-1, of(shares) - Z95 * error), min(1, of(shares) + Z95 * error)), abs=1e-6)


def test_no_interval_where_nothing_varies() -> None:
    assert kappa_interval(table((5, 0), (0, 5))) is None
    assert kappa_interval([]) is None


@given(st.integers(1, 40), st.integers(0, 40))
def test_wilson_is_where_the_score_test_says_no(trials: int, successes: int) -> None:
    """Its ends are the shares that a two-sided score test (scipy's chi-square) rejects at 5 %, to the edge."""
    successes = min(successes, trials)
    for bound in wilson(successes, trials) or ():
        if 0 < bound < 1:
            expected = [trials * bound, trials * (1 - bound)]
            assert chisquare([successes, trials - successes], expected).pvalue == pytest.approx(0.05, abs=1e-9)
