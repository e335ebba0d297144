"""The state machine of `tests.faults.machine`, at random; SONOMARK_MACHINE_EXAMPLES says how often."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.machine import ReceiveToVerdict

pytestmark = pytest.mark.acceptance
EXAMPLES = int(os.environ.get("SONOMARK_MACHINE_EXAMPLES", "15"))
# Shrinking starts the house hundreds of times: ask for it when there is something to shrink.
SHRINKING = (Phase.shrink,) if os.environ.get("SONOMARK_MACHINE_SHRINK") else ()


@pytest.mark.timeout(1800)
def test_whatever_happens_in_whatever_order(weights: Path, empty_database: Path, tmp_path: Path, seed: int) -> None:
    ReceiveToVerdict.folder = tmp_path
    ReceiveToVerdict.weights, ReceiveToVerdict.empty_database = weights, empty_database
    random.seed(seed)
    run_state_machine_as_test(
        seeded(seed)(ReceiveToVerdict),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=14,
            deadline=None,
            database=None,
            phases=(Phase.generate, *SHRINKING),
            suppress_health_check=list(HealthCheck),
        ),
    )
