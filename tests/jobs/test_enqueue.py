"""Rows in the receiver's transaction, bells after it."""

import socket
from collections.abc import Callable, Iterator

import pytest

from service.db.session import Database, database
from service.db.tables import Analysis, AnalysisState, Instance
from service.jobs import enqueue
from service.jobs.app import app
from service.jobs.sweep import waiting_messages
from service.settings import settings

Rows = Callable[[int], list[Instance]]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    enqueue._silent_until = 0.0
    yield
    enqueue._silent_until = 0.0


def test_the_row_comes_and_goes_with_the_transaction(db: Database, instance_rows: Rows) -> None:
    first, second = instance_rows(2)
    with db.begin() as session:
        kept = enqueue.enqueue(session, session.merge(first)).id
    with pytest.raises(RuntimeError), db.begin() as session:
        enqueue.enqueue(session, session.merge(second))
        raise RuntimeError
    with db.read() as session:
        rows = session.query(Analysis).all()
    assert [(row.id, row.instance_id, row.state) for row in rows] == [(kept, first.id, AnalysisState.QUEUED)]


def test_a_bell_carries_an_id_and_nothing_else(db: Database) -> None:
    assert enqueue.ring([7, 8])
    with app().connection_for_read() as connection:
        messages = connection.SimpleQueue("analyses")
        bodies = [messages.get(timeout=1).payload for _ in range(2)]
    assert [body[:2] for body in bodies] == [[[7], {}], [[8], {}]]


def test_preparing_rings_for_nobody_and_a_bell_after_it_for_one(db: Database) -> None:
    enqueue.prepare()
    assert not waiting_messages()
    assert enqueue.ring([7]) and waiting_messages() == 1


def test_a_broker_that_is_away_is_told_of_and_left_alone(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SONOMARK_BROKER_URL", f"redis://127.0.0.1:{closed.getsockname()[1]}/0")
        settings.cache_clear()
        assert not enqueue.ring([1])
        assert waiting_messages() is None
    # For a while nobody even tries, whatever the broker.
    monkeypatch.delenv("SONOMARK_BROKER_URL")
    settings.cache_clear()
    assert not enqueue.ring([2])
    enqueue._silent_until = 0.0
    assert enqueue.ring([3]) and waiting_messages() == 1
    database().dispose()
