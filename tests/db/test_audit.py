"""The chain of audit events."""

from threading import Thread

import pytest
from sqlalchemy import delete, select, update

from service.db import audit
from service.db.session import Database
from service.db.tables import AuditEvent


def fill(db: Database, events: int = 5) -> None:
    for number in range(events):
        with db.begin() as session:
            audit.record(session, "ann", "study.view", f"1.2.{number}", "10.0.0.1", {"n": number})


def test_a_chain_that_nobody_touched_is_whole(db: Database) -> None:
    fill(db)
    with db.read() as session:
        check = audit.verify(session)
        newest = session.scalar(select(AuditEvent.hash).order_by(AuditEvent.id.desc()).limit(1))
    assert check.whole and check.events == 5 and check.head == newest


def test_an_empty_chain_is_whole(db: Database) -> None:
    with db.read() as session:
        assert audit.verify(session) == audit.AuditCheck(0, audit.GENESIS, None)


@pytest.mark.parametrize(
    ("column", "value"),
    [("actor", "bob"), ("action", "x"), ("subject", "9"), ("address", ""), ("detail", {}), ("hash", "0" * 64)],
)
def test_one_changed_field_breaks_the_chain_where_it_was_changed(db: Database, column: str, value: object) -> None:
    fill(db)
    with db.begin() as session:
        session.execute(update(AuditEvent).where(AuditEvent.id == 3).values({column: value}))
    with db.read() as session:
        assert audit.verify(session).broken_at == 3


def test_a_removed_event_breaks_the_chain_behind_it(db: Database) -> None:
    fill(db)
    with db.begin() as session:
        session.execute(delete(AuditEvent).where(AuditEvent.id == 2))
    with db.read() as session:
        assert audit.verify(session).broken_at == 3


def test_a_removed_end_shows_by_the_head(db: Database) -> None:
    fill(db)
    with db.read() as session:
        before = audit.verify(session).head
    with db.begin() as session:
        session.execute(delete(AuditEvent).where(AuditEvent.id == 5))
    with db.read() as session:
        check = audit.verify(session)
        assert check.whole and check.head != before
        assert audit.holds(session, check.head) and not audit.holds(session, before)


def test_writers_at_the_same_time_make_one_chain(db: Database) -> None:
    writers = [Thread(target=fill, args=(db, 10)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with db.read() as session:
        check = audit.verify(session)
    assert check.whole and check.events == 40


def test_an_event_of_a_rolled_back_change_is_gone_with_it(db: Database) -> None:
    fill(db, 1)
    with pytest.raises(ZeroDivisionError), db.begin() as session:
        audit.record(session, "ann", "review.confirm", "1.2.3")
        raise ZeroDivisionError
    with db.read() as session:
        assert audit.verify(session).events == 1


def test_search_pages_newest_first(db: Database) -> None:
    fill(db)
    with db.read() as session:
        first = audit.search(session, limit=2)
        second = audit.search(session, limit=2, before=first[-1].id)
        of_one = audit.search(session, subject="1.2.3")
    assert [event.id for event in first + second] == [5, 4, 3, 2]
    assert [event.detail["n"] for event in of_one] == [3]
