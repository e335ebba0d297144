"""Ten thousand requests made from the API's own description, and what became of them.

    python -m bench.fuzz [--cases 10000]

Schemathesis makes requests that fit the description and requests that do not; each goes through the whole application
over a house with a few studies. Prints how many answers had which status; status 1 when any was a server error.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.result import Err, Result

Operation = schemathesis.APIOperation[Any, Any, Any, Any]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", type=int, default=10_000)
    given_ = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="sonomark-fuzz-") as folder:
        os.environ["SONOMARK_DATA_DIR"] = folder
        os.environ["SONOMARK_LOG_LEVEL"] = "error"
        statuses, broken = fuzz(given_.cases)
    told = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
    print(f"{sum(statuses.values()):,} requests: {told}")
    for one in sorted(broken):
        print("server error:", one)
    sys.exit(1 if broken else 0)


def fuzz(cases: int) -> tuple[Counter[int], set[str]]:
    """Statuses of the answers, and the operations that answered with an error of the server's own."""
    from service.db import users
    from service.db.session import database
    from service.db.tables import Base, Role, Verdict
    from service.review.app import create_app
    from tests.review import ward

    Base.metadata.create_all(database().engine)
    for number, verdict in enumerate((Verdict.NON_COMPLIANT, Verdict.COMPLIANT, Verdict.INDETERMINATE), 1):
        ward.admit(database(), number, verdict)
    with database().begin() as session:
        secret = users.make_api_token(session, users.create_user(session, "fuzz", Role.ADMIN), "fuzz", "admin")
    api = schemathesis.openapi.from_asgi("/openapi.json", create_app())
    operations = [_understood(found) for found in api.get_all_operations()]
    statuses: Counter[int] = Counter()
    broken: set[str] = set()
    while sum(statuses.values()) < cases:
        left = cases - sum(statuses.values())
        for operation in operations:
            _ask(operation, max(1, -(-left // len(operations))), secret, statuses, broken)
    return statuses, broken


def _understood(found: Result[Operation, InvalidSchema]) -> Operation:
    """Raises `InvalidSchema` for an operation whose description says nothing that requests can be made from."""
    if isinstance(found, Err):
        raise found.err()
    return found.ok()


def _ask(operation: Operation, cases: int, secret: str, statuses: Counter[int], broken: set[str]) -> None:
    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case: schemathesis.Case[Any]) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {secret}"})
        statuses[answer.status_code] += 1
        if answer.status_code >= 500:
            broken.add(f"{operation.method.upper()} {operation.path} {answer.status_code}")

    ask()


if __name__ == "__main__":
    main()
