"""The broker in a folder."""

import multiprocessing
import stat
from pathlib import Path

import pytest
from kombu import Connection

from service.jobs import spool

QUEUE = "bells"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"spool://{tmp_path / 'spool'}"


def connect(url: str) -> Connection:
    return Connection(url, transport_options={"folder": spool.folder(url)})


def put(url: str, messages: list[object]) -> None:
    with connect(url) as connection:
        queue = connection.SimpleQueue(QUEUE)
        for message in messages:
            queue.put(message)


def take_all(url: str) -> list[object]:
    taken = []
    with connect(url) as connection:
        queue = connection.SimpleQueue(QUEUE)
        while True:
            try:
                message = queue.get(block=True, timeout=0.5)
            except queue.Empty:
                return taken
            taken.append(message.payload)
            message.ack()


def take_into(url: str, taken: "multiprocessing.Queue[list[object]]") -> None:
    taken.put(take_all(url))


def test_messages_come_in_the_order_they_were_put(url: str) -> None:
    put(url, [{"n": n} for n in range(20)])
    assert take_all(url) == [{"n": n} for n in range(20)]


def test_each_message_is_taken_once_by_readers_that_race_the_writers(url: str) -> None:
    put(url, [])
    context = multiprocessing.get_context("spawn")
    taken: multiprocessing.Queue[list[object]] = context.Queue()
    writers = [context.Process(target=put, args=(url, list(range(n * 100, n * 100 + 100)))) for n in range(3)]
    readers = [context.Process(target=take_into, args=(url, taken)) for _ in range(2)]
    for process in (*writers, *readers):
        process.start()
    found = taken.get(timeout=60) + taken.get(timeout=60)
    for process in (*writers, *readers):
        process.join(30)
    found += take_all(url)
    assert sorted(found) == list(range(300))


def test_only_the_owner_may_look(url: str) -> None:
    put(url, [1])
    folders = [spool.folder(url), *(path for path in spool.folder(url).iterdir() if path.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff\xfe", b"[]", b'{"body": 1}'])
def test_what_is_no_message_is_dropped_and_the_next_one_comes(url: str, junk: bytes) -> None:
    put(url, ["first"])
    (spool.folder(url) / QUEUE / "0-junk.json").write_bytes(junk)
    assert take_all(url) == ["first"]
    assert list((spool.folder(url) / QUEUE).iterdir()) == []


def test_a_folder_that_was_deleted_comes_back(url: str, tmp_path: Path) -> None:
    with connect(url) as connection:
        queue = connection.SimpleQueue(QUEUE)
        queue.put("lost")
        for path in sorted((tmp_path / "spool").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        queue.put("kept")
        assert queue.get(timeout=1).payload == "kept"


def test_a_message_that_was_not_acknowledged_returns(url: str) -> None:
    with connect(url) as connection:
        queue = connection.SimpleQueue(QUEUE)
        queue.put("again")
        queue.get(timeout=1)
    assert take_all(url) == ["again"]
