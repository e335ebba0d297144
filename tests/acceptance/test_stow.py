"""P1 and P5 by HTTP: what STOW-RS answered with 200 outlives SIGKILL, and a failed sync is never 200."""

import time
from collections.abc import Callable

import pytest
import requests

from service.dicom.part10 import file_head
from tests.faults import checkers, tracing
from tests.faults.images import Image, image
from tests.faults.ledger import Ledger
from tests.faults.parts import Parts

pytestmark = pytest.mark.acceptance
MakeParts = Callable[..., Parts]
POINTS = (
    "receive.before_fsync",
    "archive.before_rename",
    "archive.before_dirsync",
    "receive.before_commit",
    "receive.after_commit",
)


@pytest.mark.timeout(600)
def test_killed_at_every_point_of_the_way_in(make_parts: MakeParts) -> None:
    house = make_parts()
    ledger = house.new_ledger("stow")
    token = house.token()
    for point in POINTS:
        house.start("review", FAILPOINTS=f"{point}=kill@2")
        batch = [image() for _ in range(3)]
        answers = [_store(house, token, ledger, one) for one in batch]
        assert answers == [200, None, None], f"{point}: {answers}"
        house.gone("review")
        checkers.no_loss(ledger, house.inventory())
        house.start("review")
        again = [_store(house, token, ledger, one) for one in batch]
        assert again == [200] * 3, again
        house.kill("review")
    for part in ("receive", "work", "sweep"):  # the receiver looks at its start for files that no row knows of
        house.start(part)
    checkers.settled(ledger, house.inventory, 120)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["archive", "database"])
def test_a_failing_sync_is_never_200(make_parts: MakeParts, what: str) -> None:
    tracing.require_strace()
    house = make_parts()
    ledger = house.new_ledger("stow-sync")
    token = house.token()
    pid = house.start("review")
    assert _store(house, token, ledger, image()) == 200
    only = [house.data / "sonomark.sqlite-wal"] if what == "database" else []
    trace = house.logs / "trace"
    with tracing.window(pid, "fsync,fdatasync", "error=EIO", only=only, record=trace):
        assert [_store(house, token, ledger, image()) for _ in range(3)] == [503] * 3
    deadline = time.monotonic() + 25
    while (status := _store(house, token, ledger, image())) != 200:
        assert status == 503 and time.monotonic() < deadline, f"{status}; {house.tails()}"
        time.sleep(0.5)
    assert not tracing.synced_again(trace, house.data)
    house.kill("review")
    checkers.no_loss(ledger, house.inventory())


def _store(house: Parts, token: str, ledger: Ledger, one: Image) -> int | None:
    """One instance by STOW-RS, and what became of it; None when no answer came."""
    ledger.invoke(one.version)
    body = b"--b0\r\nContent-Type: application/dicom\r\n\r\n" + file_head(one.sop_class, one.uid, one.syntax)
    try:
        answer = requests.post(
            f"http://127.0.0.1:{house.http_port}/dicomweb/studies",
            data=body + one.data + b"\r\n--b0--\r\n",
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=b0',
            },
            timeout=60,
        )
    except requests.ConnectionError as error:
        ledger.info(one.version, type(error).__name__)
        return None
    if answer.status_code == 200:
        ledger.ok(one.version)
    else:
        ledger.fail(one.version, answer.status_code)
    return answer.status_code
