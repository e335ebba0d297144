"""Schemathesis on the API's own description: whatever is sent, no answer is the service's own accident (W7)."""

import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

from service.db import users
from service.db.session import Database
from service.db.tables import Role, Verdict
from tests.review import ward

CASES = 4  # of each operation here; `python -m bench.fuzz` sends ten thousand


def test_no_request_is_an_accident(client: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    ward.admit(db, 2, Verdict.COMPLIANT)
    with db.begin() as session:
        secret = users.make_api_token(session, users.create_user(session, "fuzz", Role.ADMIN), "fuzz", "admin")
    api = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:

        @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def is_answered(case: schemathesis.Case) -> None:
            answer = case.call(headers={"Authorization": f"Bearer {secret}"})
            assert answer.status_code < 500, (case.method, case.path, answer.status_code)

        is_answered()


def test_every_answer_is_described_as_it_is_sent(client: TestClient) -> None:
    """Errors are problems alone, and DICOMweb's answers are not plain JSON."""
    kinds = {}
    for path, operations in client.app.openapi()["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                content = set(response.get("content", {}))
                kinds[method, path, status] = content
                if status >= "400" and not (path.startswith("/dicomweb") and status == "409"):
                    assert content == {"application/problem+json"}, (method, path, status, content)
                elif path.startswith("/dicomweb"):
                    assert "application/json" not in content, (method, path, status, content)
    study = "/dicomweb/studies/{study}"
    assert kinds["get", "/dicomweb/studies", "200"] == {"application/dicom+json"}
    assert kinds["get", study, "206"] == kinds["get", study, "200"]
    assert kinds["get", study, "410"] == {"application/problem+json"}
    assert kinds["get", study, "200"] == {'multipart/related; type="application/dicom"', "application/dicom"}
    assert kinds["post", study, "202"] == {"application/dicom+json"}
