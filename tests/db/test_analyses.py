"""The queue's truth, on SQLite and on a real PostgreSQL."""

import threading
from dataclasses import replace

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from service.db import analyses
from service.db.analyses import Claim
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Base, Instance, Series, Study
from service.errors import LeaseLost

LEASE_S = 20.0


@pytest.fixture
def queue(any_db: Database) -> Database:
    return any_db


def add_instances(session: Session, count: int, prefix: str = "1.2") -> list[Instance]:
    study = Study(study_instance_uid=f"{prefix}.9")
    series = Series(study=study, series_instance_uid=f"{prefix}.8")
    session.add(series)
    session.flush()
    rows = [
        Instance(
            study_id=study.id,
            series_id=series.id,
            sop_instance_uid=f"{prefix}.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256="0" * 64,
            size=1,
            archive_key="none",
        )
        for number in range(count)
    ]
    session.add_all(rows)
    session.flush()
    return rows


def fill(db: Database, count: int) -> list[int]:
    with db.begin() as session:
        return [analyses.add(session, instance).id for instance in add_instances(session, count)]


def claim(db: Database, limit: int = 1) -> list[Claim]:
    with db.begin() as session:
        return analyses.claim(session, limit, LEASE_S)


def test_the_most_urgent_is_claimed_first_and_then_the_oldest(queue: Database) -> None:
    ids = fill(queue, 4)
    with queue.begin() as session:
        session.get_one(Analysis, ids[2]).priority = -1
    assert [held.analysis_id for held in claim(queue, 3)] == sorted([ids[2], ids[0], ids[1]])
    assert [held.analysis_id for held in claim(queue, 3)] == [ids[3]]
    assert claim(queue) == []


def test_two_claimers_never_get_the_same_row(queue: Database) -> None:
    ids = fill(queue, 120)
    taken: list[int] = []

    def drain() -> None:
        while held := claim(queue, 7):
            taken.extend(one.analysis_id for one in held)

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == ids


def test_an_attempt_is_counted_before_the_work(queue: Database) -> None:
    fill(queue, 1)
    for attempt in (1, 2, 3):
        (held,) = claim(queue)
        assert held.attempt == attempt
        with queue.begin() as session:
            assert analyses.hand_back(session, held, "why", "cure")


def test_one_that_failed_before_is_claimed_alone(queue: Database) -> None:
    first, *others = fill(queue, 4)
    (held,) = claim(queue)
    with queue.begin() as session:
        analyses.hand_back(session, held, "why", "cure")
    assert [held.analysis_id for held in claim(queue, 3)] == [first]
    with queue.begin() as session:
        session.get_one(Analysis, others[1]).attempts = 1
    assert [held.analysis_id for held in claim(queue, 3)] == [others[0], others[2]]
    assert [held.analysis_id for held in claim(queue, 3)] == [others[1]]


def test_workers_share_what_is_not_enough_for_all(queue: Database) -> None:
    ids = fill(queue, 12)

    def share(*, fresh: bool = False) -> list[int]:
        with queue.begin() as session:
            return [held.analysis_id for held in analyses.claim(session, 4, LEASE_S, fresh=fresh, sharers=2)]

    assert share() == ids[:4]
    assert share(fresh=True) == ids[4:8]  # eight waited: enough for both
    assert share(fresh=True) == []
    assert [share() for _ in range(4)] == [ids[8:10], ids[10:11], ids[11:], []]


def test_what_the_house_did_wrong_is_not_counted(queue: Database) -> None:
    fill(queue, 1)
    for _ in range(5):
        (held,) = claim(queue)
        assert held.attempt == 1
        with queue.begin() as session:
            analyses.hand_back(session, held, "the disk is full", "free space", counted=False)


def test_only_the_holder_of_the_token_may_write(queue: Database) -> None:
    fill(queue, 1)
    (held,) = claim(queue)
    stranger = replace(held, token="0" * 32)
    with pytest.raises(LeaseLost), queue.begin() as session:
        analyses.finish(session, stranger)
    with queue.begin() as session:
        assert not analyses.hand_back(session, stranger, "", "")
        assert not analyses.quarantine(session, stranger, "", "")
        analyses.renew(session, [stranger], 3600)
        assert analyses.leases(session)[0].token == held.token
        analyses.finish(session, held, network="n@1")
    with pytest.raises(LeaseLost), queue.begin() as session:
        analyses.finish(session, held)


def test_a_lease_that_moved_is_not_taken_away(queue: Database) -> None:
    fill(queue, 1)
    (held,) = claim(queue)
    with queue.begin() as session:
        (seen,) = analyses.leases(session)
        analyses.renew(session, [held], LEASE_S)
    with queue.begin() as session:
        assert not analyses.take_away(session, seen, "silent")
        assert not analyses.quarantine(session, seen, "silent", "")
        (moved,) = analyses.leases(session)
        assert analyses.take_away(session, moved, "silent")
    with pytest.raises(LeaseLost), queue.begin() as session:
        analyses.finish(session, held)


def test_a_person_may_queue_quarantined_work_again(queue: Database) -> None:
    first, second = fill(queue, 2)
    (held,) = claim(queue)
    with queue.begin() as session:
        analyses.quarantine(session, held, "it hangs", "send it again")
        assert analyses.flow(session)["quarantined"] == 1
        assert analyses.requeue(session, [first, second]) == [first]
        row = session.get_one(Analysis, first)
        assert (row.state, row.attempts, row.reason) == (AnalysisState.QUEUED, 0, "")


def test_a_second_run_of_an_instance_supersedes_the_first(queue: Database) -> None:
    with queue.begin() as session:
        (instance,) = add_instances(session, 1)
        analyses.add(session, instance)
        analyses.add(session, instance)
        assert analyses.flow(session)["acknowledged"] == 1


def test_claiming_uses_the_index_of_the_queue(queue: Database) -> None:
    if queue.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL chooses by the table's statistics")
    with create_engine(queue.url).connect() as connection:
        plan = connection.execute(
            text("explain query plan select id from analyses where state = 'queued' order by priority, id limit 1")
        ).all()
    assert "ix_analyses_queue" in str(plan) and "TEMP B-TREE" not in str(plan)


@pytest.mark.parametrize(
    ("state", "index"),
    [
        (AnalysisState.QUEUED, "ix_analyses_queue"),
        (AnalysisState.CLAIMED, "ix_analyses_lease"),
        (AnalysisState.QUARANTINED, "ix_analyses_quarantine"),
    ],
)
def test_counting_what_stands_reads_no_finished_work(queue: Database, state: AnalysisState, index: str) -> None:
    if queue.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL chooses by the table's statistics")
    said = []
    event.listen(queue.engine, "before_cursor_execute", lambda *call: said.append(call[2:4]))
    with queue.read() as session:
        assert analyses.standing(session, state) == (0, None)
        (statement, values) = next(each for each in said if "FROM analyses" in each[0])
        plan = session.connection().exec_driver_sql(f"explain query plan {statement}", values).all()
    assert index in str(plan)


class Queue(RuleBasedStateMachine):
    """Whatever happens to the queue: every instance is either terminal or in flight, and attempts stay bounded."""

    max_attempts = 3

    def __init__(self) -> None:
        super().__init__()
        self.db = Database("sqlite://")
        Base.metadata.create_all(self.db.engine)
        self.held: list[Claim] = []
        self.added = 0

    def teardown(self) -> None:
        self.db.dispose()

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        with self.db.begin() as session:
            for instance in add_instances(session, count, prefix=f"1.{self.added}"):
                analyses.add(session, instance)
        self.added += count

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        with self.db.begin() as session:
            self.held += analyses.claim(session, limit, LEASE_S)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), end=st.sampled_from(["finish", "hand back", "quarantine", "forget", "twice"]))
    def end(self, data: st.DataObject, end: str) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        with self.db.begin() as session:
            if end in ("finish", "twice"):
                analyses.finish(session, held)
            elif end == "quarantine" or (end == "hand back" and held.attempt >= self.max_attempts):
                analyses.quarantine(session, held, "reason", "cure")
            elif end == "hand back":
                analyses.hand_back(session, held, "reason", "cure")
        if end == "twice":
            with pytest.raises(LeaseLost), self.db.begin() as session:
                analyses.finish(session, held)

    @rule()
    def take_from_the_silent(self) -> None:
        with self.db.begin() as session:
            for lease in analyses.leases(session):
                if lease.attempts >= self.max_attempts:
                    analyses.quarantine(session, lease, "silent", "look")
                else:
                    analyses.take_away(session, lease, "silent")
        for held in self.held:
            with pytest.raises(LeaseLost), self.db.begin() as session:
                analyses.finish(session, held)
        self.held.clear()

    @invariant()
    def nothing_is_lost(self) -> None:
        with self.db.read() as session:
            flow = analyses.flow(session)
            waiting, _ = analyses.standing(session, AnalysisState.QUEUED)
            leases = analyses.leases(session)
        assert flow["acknowledged"] == self.added == flow["terminal"] + flow["in_flight"]
        assert flow["in_flight"] == waiting + len(leases)
        assert all(1 <= lease.attempts <= self.max_attempts for lease in leases)


TestQueue = Queue.TestCase
TestQueue.settings = hypothesis_settings(max_examples=25, stateful_step_count=20, deadline=None, derandomize=True)


def test_what_the_house_cannot_do_now_keeps_nobody_from_the_others(queue: Database) -> None:
    """An object that is missing in a bucket is tried again uncounted, and once was first in the queue for ever."""
    missing, *others = fill(queue, 4)
    came = []
    while len(came) < 7:
        (held,) = claim(queue)
        came.append(held.analysis_id)
        with queue.begin() as session:
            if held.analysis_id == missing:
                assert analyses.hand_back(session, held, "It is not in the bucket.", "", counted=False)
            else:
                analyses.finish(session, held)
    assert came == [missing, *others, missing, missing, missing]
    with queue.read() as session:
        assert session.get_one(Analysis, missing).attempts == 0
