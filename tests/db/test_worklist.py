"""The worklist's order, filters and pages."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, update

from service.db import reviews, users, worklist
from service.db.session import Database
from service.db.tables import Decision, Role, Study, Verdict
from service.db.worklist import Filter
from service.errors import Conflict
from tests.review import ward

MIDNIGHT = datetime(2026, 11, 1, tzinfo=UTC)
V = Verdict


def add(db: Database, *rows: tuple[Verdict | None, int], **columns: object) -> None:
    with db.begin() as session:
        for verdict, minutes in rows:
            at = MIDNIGHT + timedelta(minutes=minutes)
            uid = f"1.2.{minutes}.{list(V).index(verdict) if verdict else 9}"
            session.add(Study(study_instance_uid=uid, verdict=verdict, last_received_at=at, **columns))


def minutes(page: worklist.Page) -> list[int]:
    return [round((row.study.last_received_at - MIDNIGHT).total_seconds() / 60) for row in page.rows]


def test_flagged_first_then_uncertain_then_waiting_then_the_rest(db: Database) -> None:
    add(db, (V.COMPLIANT, 1), (None, 2), (V.INDETERMINATE, 3), (V.NON_COMPLIANT, 4), (V.NOT_APPLICABLE, 5))
    with db.read() as session:
        assert minutes(worklist.page(session, Filter())) == [4, 3, 2, 5, 1]


def test_a_queue_begins_with_the_oldest(db: Database) -> None:
    add(db, *((V.NON_COMPLIANT, at) for at in (3, 1, 2)))
    with db.read() as session:
        assert minutes(worklist.page(session, Filter(tab="flagged"))) == [1, 2, 3]
        assert minutes(worklist.page(session, Filter(tab="all"))) == [3, 2, 1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from([*V, None]), st.integers(0, 30)), max_size=40, unique=True),
    limit=st.integers(1, 7),
    tab=st.sampled_from(["all", "flagged"]),
)
def test_pages_join_to_the_whole_forwards_and_backwards(db: Database, rows, limit: int, tab: str) -> None:
    with db.begin() as session:
        session.execute(delete(Study))
    add(db, *rows)
    wanted = Filter(tab=tab)
    with db.read() as session:
        whole = [row.study.id for row in worklist.page(session, wanted, limit=1000).rows]
        pages, cursor = [], ""
        while True:
            pages.append(worklist.page(session, wanted, cursor, limit))
            if not (cursor := pages[-1].older):
                break
        backwards = [pages[-1]]
        while backwards[0].newer:
            backwards.insert(0, worklist.page(session, wanted, backwards[0].newer, limit))
    assert [row.study.id for page in pages for row in page.rows] == whole
    assert [row.study.id for page in backwards for row in page.rows] == whole


def test_a_queue_worked_from_the_top_skips_nobody(db: Database) -> None:
    add(db, *((V.NON_COMPLIANT, at) for at in range(10)))
    wanted = Filter(tab="flagged")
    with db.begin() as session:
        first = worklist.page(session, wanted, limit=4)
        session.execute(
            update(Study).where(Study.id.in_([row.study.id for row in first.rows])).values(decision=Decision.CONFIRM)
        )
        assert minutes(worklist.page(session, wanted, first.older, 4)) == [4, 5, 6, 7]


@pytest.mark.parametrize("tab", ["flagged", "all"])
def test_the_page_before_is_empty_when_a_colleague_cleared_it_and_the_queue_goes_on(db: Database, tab: str) -> None:
    add(db, *((V.NON_COMPLIANT, at) for at in range(10)))
    wanted = Filter(tab=tab)
    with db.begin() as session:
        first = worklist.page(session, wanted, limit=4)
        second = worklist.page(session, wanted, first.older, 4)
        session.execute(delete(Study).where(Study.id.in_([row.study.id for row in first.rows])))
        assert minutes(worklist.page(session, wanted, second.newer, 4)) == minutes(second)


@pytest.mark.parametrize("tab", ["flagged", "all"])
def test_from_behind_the_last_page_a_way_leads_back(db: Database, tab: str) -> None:
    add(db, *((V.NON_COMPLIANT, at) for at in range(10)))
    wanted = Filter(tab=tab)
    with db.begin() as session:
        second = worklist.page(session, wanted, worklist.page(session, wanted, limit=4).older, 4)
        last = worklist.page(session, wanted, second.older, 4)
        session.execute(delete(Study).where(Study.id.in_([row.study.id for row in last.rows])))
        behind = worklist.page(session, wanted, second.older, 4)
        assert (behind.rows, behind.older) == ([], "")
        assert minutes(worklist.page(session, wanted, behind.newer, 4)) == minutes(second)


@pytest.mark.parametrize("damage", ["x", "é", "e30", "WzFd", "////", "W10", "0" * 500])
def test_a_damaged_cursor_is_refused(db: Database, damage: str) -> None:
    with db.read() as session, pytest.raises(Conflict):
        worklist.page(session, Filter(), damage)


def test_a_cursor_serves_its_own_filter_only(db: Database) -> None:
    add(db, *((V.NON_COMPLIANT, at) for at in range(5)))
    with db.read() as session:
        cursor = worklist.page(session, Filter(), limit=2).older
        with pytest.raises(Conflict):
            worklist.page(session, Filter(station="US-01"), cursor)


def test_filters(db: Database) -> None:
    add(db, (V.NON_COMPLIANT, 1), patient_name="DOE^Jane", patient_id="44182", station="A", institution="North")
    add(db, (V.COMPLIANT, 2), patient_name="100%^X", accession_number="A-7", operator="O", institution="South")
    for wanted, found in [
        (Filter(text="jane"), [1]),
        (Filter(text="441"), [1]),
        (Filter(text="182"), []),
        (Filter(text="A-7"), [2]),
        (Filter(text="jan do"), [1]),
        (Filter(text="doe, jane"), [1]),
        (Filter(text="oe"), []),
        (Filter(text="%"), []),
        (Filter(text="100% x"), [2]),
        (Filter(text="' & ! | x:* <-> ("), []),
        (Filter(station="A"), [1]),
        (Filter(operator="O"), [2]),
        (Filter(site="South"), [2]),
        (Filter(verdict=V.COMPLIANT), [2]),
        (Filter(since=MIDNIGHT + timedelta(minutes=2)), [2]),
        (Filter(until=MIDNIGHT + timedelta(minutes=2)), [1]),
    ]:
        with db.read() as session:
            assert minutes(worklist.page(session, wanted)) == found, wanted
            assert worklist.count(session, wanted) == len(found)


def test_who_holds_a_study_is_told_by_the_hospitals_clock(db: Database, hospital_in: Callable[[str], None]) -> None:
    hospital_in("Asia/Kolkata")
    add(db, (V.NON_COMPLIANT, 1))
    with db.begin() as session:
        ann, bob = (users.create_user(session, name, Role.REVIEWER) for name in ("ann", "bob"))
        held = reviews.hold(session, session.get_one(Study, 1), ann)
        held.since = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
        with pytest.raises(Conflict, match="ann holds this study since 17:30"):
            reviews.hold(session, session.get_one(Study, 1), bob)


def test_mine_are_the_studies_i_hold(db: Database) -> None:
    add(db, (V.NON_COMPLIANT, 1), (V.NON_COMPLIANT, 2))
    with db.begin() as session:
        ann, bob = (users.create_user(session, name, Role.REVIEWER) for name in ("ann", "bob"))
        reviews.hold(session, session.get_one(Study, 2), ann)
        assert minutes(worklist.page(session, Filter(tab="mine", holder=ann.id))) == [2]
        assert minutes(worklist.page(session, Filter(tab="mine", holder=bob.id))) == []


def test_neighbours_and_place_in_the_queue(db: Database) -> None:
    add(db, *((V.NON_COMPLIANT, at) for at in (1, 2, 3)))
    wanted = Filter(tab="flagged")
    with db.read() as session:
        middle = worklist.page(session, wanted).rows[1].study
        before, after = worklist.neighbours(session, wanted, middle)
        assert (before, after) == ("1.2.1.1", "1.2.3.1")
        assert worklist.position(session, wanted, middle) == 1


def test_counts_stop_at_five_hundred_and_one(db: Database) -> None:
    add(db, *((V.NON_COMPLIANT, at) for at in range(510)))
    with db.read() as session:
        assert worklist.count(session, Filter()) == worklist.COUNT_TO + 1


def test_of_a_verdict_only_the_ranks_are_read_that_it_can_have(db: Database) -> None:
    with db.begin() as session:
        for number, verdict in enumerate([*Verdict, *Verdict]):
            decision = Decision.CONFIRM if number < len(Verdict) else None
            session.add(Study(study_instance_uid=f"1.2.{number}", verdict=verdict, decision=decision, settled=True))
    with db.read() as session:
        for verdict in Verdict:
            wanted = worklist.Filter(verdict=verdict)
            found = [row.study for row in worklist.page(session, wanted).rows]
            assert [study.verdict for study in found] == [verdict, verdict]
            assert [study.decision for study in found] == [None, Decision.CONFIRM]
            assert worklist.count(session, wanted) == 2
        assert worklist.page(session, worklist.Filter(tab="flagged", verdict=Verdict.COMPLIANT)).rows == []
        assert worklist.count(session, worklist.Filter(tab="flagged", verdict=Verdict.COMPLIANT)) == 0


def test_a_page_takes_as_many_statements_whatever_it_holds(db: Database) -> None:
    """Also where the rule book that found something missing is not kept, and is looked for in vain."""
    said: list[str] = []

    def statements() -> int:
        said.clear()
        with db.read() as session:
            assert all(row.lacking for row in worklist.page(session, Filter()).rows)
        return len(said)

    event.listen(db.engine, "before_cursor_execute", lambda *call: said.append(call[2]))
    ward.admit(db, 1, rulebook="lost@1+0123456789ab")
    of_one = statements()
    for number in range(2, 12):
        ward.admit(db, number, rulebook="lost@1+0123456789ab")
    assert statements() == of_one
