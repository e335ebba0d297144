"""The archive's page: health with cures, a policy from draft to force, legal holds."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.archive import retention as keeping
from service.archive.cache import Cache, pictures
from service.archive.store import archive
from service.db import audit, checks, retention, studies
from service.db.session import Database
from service.db.tables import Condition, Role, Verdict, now
from tests.review import ward

POLICY = 'name = "hospital"\n[[rules]]\nname = "complete"\nkeep_days = 30\nverdicts = ["compliant"]\n'


@pytest.fixture
def admin(sign_in: Callable[..., TestClient]) -> TestClient:
    return sign_in(Role.ADMIN)


def test_damage_is_shown_with_its_cure(admin: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    assert "Nothing was read again yet" in admin.get("/archive").text
    with db.begin() as session:
        checks.record(session, {studies.find(session, uid).instances[0].id: Condition.DAMAGED})
    page = admin.get("/archive").text
    assert f"{uid}.1.1" in page and "✗ damaged" in page and "Restore the object from backup" in page


def test_a_policy_is_counted_before_it_is_in_force(admin: TestClient, db: Database) -> None:
    old = now() - timedelta(days=90)
    ward.admit(db, 1, Verdict.COMPLIANT, received=old)
    ward.admit(db, 2, Verdict.NON_COMPLIANT, received=old)
    assert "Everything is kept for ever" in admin.get("/archive").text
    wrong = admin.post("/archive/policies", data={"toml": POLICY.replace("30", '"soon"')})
    assert wrong.status_code == 422 and "rules.1.keep_days" in wrong.text and "&#34;soon&#34;" in wrong.text
    there = admin.post("/archive/policies", data={"toml": POLICY}).headers["location"]
    page = admin.get(there).text
    assert "<strong>1 study</strong>" in page and "Put in force" in page
    force = f"/archive/policies/{there.rpartition('=')[2]}/activate"
    assert admin.post(force, data={"expected_studies": 1, "typed": "clinic"}).status_code == 422
    fewer = admin.post(force, data={"expected_studies": 0, "typed": "hospital"})
    assert fewer.status_code == 409 and "would release 1 study by now" in fewer.text
    assert admin.post(force, data={"expected_studies": 1, "typed": "hospital"}).status_code == 303
    assert "hospital</strong>" in admin.get("/archive").text
    admin.post("/archive/retire")
    assert "Everything is kept for ever" in admin.get("/archive").text
    with db.read() as session:
        assert retention.in_force(session) is None
        assert {"retention.draft", "retention.activate", "retention.retire"} <= {
            each.action for each in audit.search(session, action="retention")
        }


def test_a_hold_is_placed_and_lifted(admin: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    assert admin.post("/archive/holds", data={"uid": "1.2.3", "reason": "a lawsuit"}).status_code == 404
    assert admin.post("/archive/holds", data={"uid": uid, "reason": " "}).status_code == 422
    assert admin.post("/archive/holds", data={"uid": uid, "reason": "a lawsuit"}).status_code == 303
    assert "a lawsuit" in admin.get("/archive").text
    admin.post("/archive/holds/lift", data={"uid": uid})
    assert "No study is on hold" in admin.get("/archive").text


def test_nobody_looks_at_what_was_released(
    admin: TestClient, reviewer: TestClient, db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In containers the sweeper, who releases, and the dashboard have no folder in common."""
    uid = ward.admit(db, 1, Verdict.COMPLIANT, received=now() - timedelta(days=90))
    frame = f"/api/instances/{uid}.1.1/frames/1"
    assert reviewer.get(f"{frame}/image").status_code == 200 and reviewer.get(f"{frame}/mask").status_code == 200
    there = admin.post("/archive/policies", data={"toml": POLICY}).headers["location"]
    force = f"/archive/policies/{there.rpartition('=')[2]}/activate"
    assert admin.post(force, data={"expected_studies": 1, "typed": "hospital"}).status_code == 303
    monkeypatch.setattr(keeping, "pictures", lambda: Cache(tmp_path / "of the sweeper", 1 << 20))
    assert keeping.release_due(archive(), db, "sweep") == 1
    own = pictures().folder
    assert list(own.rglob("1-full.png"))
    for path in ("image", "image?width=50", "image?webp=1", "restoration", "residual"):
        answer = reviewer.get(f"{frame}/{path}")
        assert answer.status_code == 410 and "retention" in answer.json()["detail"], path
    assert not [path for path in own.rglob("*") if path.is_file()], "nor do its frames stay on the dashboard's disk"
    assert reviewer.get(f"{frame}/mask").status_code == 200, "masks stay"
