"""A self-test's study is removed without a trace, and nothing else ever is."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from service.archive.store import archive
from service.db import reviews, selftests, studies, users
from service.db.session import Database
from service.db.tables import Base, Decision, Role, Study, now
from service.deliver import selftest as through
from service.errors import NotAllowed
from tests.review import ward


def rows(db: Database) -> dict[str, int]:
    with db.read() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) for table in Base.metadata.sorted_tables
        }


def test_everything_that_hangs_on_the_study_goes_and_nothing_else(db: Database) -> None:
    archive.cache_clear()
    with db.begin() as session:
        ann = users.create_user(session, "ann", Role.REVIEWER)
    ward.admit(db, 1)
    before = rows(db)
    uid = ward.admit(db, 2, pictures=[ward.wide(), ward.cine()])
    with db.begin() as session:
        study = studies.brief(session, uid)
        reviews.decide(session, study, ann, Decision.CONFIRM, "", "", study.version)
        reviews.save_draft(session, study, ann, "a note")
    with db.begin() as session, pytest.raises(NotAllowed):
        selftests.remove(session, uid)
    with db.begin() as session:
        session.execute(update(Study).where(Study.study_instance_uid == uid).values(synthetic=True))
        keys = selftests.remove(session, uid)
    assert rows(db) == before
    assert len(keys) == 3 and all(archive().exists(key) for key in keys), "two instances and a mask"


def test_a_study_that_never_came_needs_no_removal(db: Database) -> None:
    with db.begin() as session:
        assert selftests.remove(session, "1.2.3") == []


def test_what_a_self_test_left_behind_goes_with_the_next(db: Database) -> None:
    """Its dashboard was restarted in its midst; the study would stand among the flagged ones for ever."""
    archive.cache_clear()
    kept, left, running = (ward.admit(db, number) for number in (1, 2, 3))
    with db.begin() as session:
        for uid, age in ((left, timedelta(hours=1)), (running, timedelta(minutes=1))):
            selftests.begin(session, "ann", uid).begun_at = now() - age
            session.execute(update(Study).where(Study.study_instance_uid == uid).values(synthetic=True))
    through.begin("ann")
    with db.read() as session:
        assert set(session.scalars(select(Study.study_instance_uid))) == {kept, running}
        assert selftests.cut_off(session) == []
