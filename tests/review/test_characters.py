"""Texts that PostgreSQL takes for none: they are the sender's fault, and no accident."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.db.session import Database, database
from service.db.tables import Base, Role
from service.settings import settings
from tests.review import ward

CANARY = "CANARY\0"


@pytest.fixture
def db(new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The dashboard's database, on PostgreSQL."""
    monkeypatch.setenv("SONOMARK_DATABASE_URL", new_database("characters"))
    settings.cache_clear()
    database.cache_clear()
    Base.metadata.create_all(database().engine)
    yield database()
    database().dispose()
    settings.cache_clear()
    database.cache_clear()


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "/worklist", {"params": {"q": CANARY}}),
        ("GET", "/api/studies", {"params": {"operator": CANARY}}),
        ("GET", "/audit", {"params": {"action": CANARY}}),
        ("GET", "/accession/CANARY%00", {}),
        ("POST", "/sign-in", {"data": {"name": CANARY, "password": "x"}}),
        ("PUT", "/studies/{uid}/draft", {"data": {"note": CANARY}}),
        (
            "POST",
            "/api/studies/{uid}/reviews",
            {"json": {"decision": "override", "reason": "other", "note": CANARY, "version": 1}},
        ),
    ],
)
def test_a_nul_is_refused_in_words(
    sign_in: Callable[..., TestClient],
    db: Database,
    capsys: pytest.CaptureFixture[str],
    method: str,
    path: str,
    sent: dict[str, Any],
) -> None:
    uid = ward.admit(db, 1)
    refused = sign_in(Role.ADMIN).request(method, path.format(uid=uid), **sent)
    assert refused.status_code == 422 and "has a character" in refused.text and "send it again" in refused.text
    said = capsys.readouterr()
    assert "CANARY" not in said.out + said.err, "what was sent may be a patient's"
