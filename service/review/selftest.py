"""The self-test: a synthetic study through the whole house, step by step, at the press of a button; and what the house
stands on."""

from datetime import timedelta
from threading import Lock, Thread
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service import doctor, logs
from service.db import audit, selftests
from service.db.session import database
from service.db.tables import SelfTest, now
from service.deliver import selftest
from service.errors import Conflict
from service.review.deps import Admin
from service.review.pages import render
from service.review.words import VERDICTS
from service.settings import settings

router = APIRouter(prefix="/self-test", include_in_schema=False)
log = logs.get(__name__)

LONGEST = timedelta(minutes=5)  # one that is older and has no end lost its process
WORDS = {
    "C-STORE": "C-STORE accepted",
    "archived": "archived and committed",
    "claimed": "claimed by a worker",
    "decoded": "decoded",
    "network": "seen by the network",
    "judged": "judged",
    "worklist": "on the worklist",
    "removed": "removed again",
}
CHECKS = ("version", "database", "broker", "disk", "clock", "certificates")  # of those of `sonomark doctor`
_one_at_a_time = Lock()


def told(step: dict[str, Any]) -> str:
    """What a step says of itself, a verdict in the words of the worklist."""
    word = next((words[0] for verdict, words in VERDICTS.items() if verdict and verdict.value == step["told"]), "")
    return word.lower() or str(step["told"])


@router.get("")
def selftest_page(request: Request, account: Admin, machine: bool = False) -> Response:
    """The last self-tests; the steps of one that runs appear as they end.

    What the house stands on (``machine``) is asked for behind the page: who does not answer must not hold it up.
    """
    fragment = request.headers.get("hx-request") == "true"
    checks = list(doctor.examine(settings(), only=CHECKS)) if machine else []
    if fragment and machine:
        return render(request, "selftest_machine.html", {"checks": checks})
    with database().read() as session:
        tests = selftests.newest(session)
    running = bool(tests) and runs(tests[0])
    context = {"tests": tests, "running": running, "words": WORDS, "told": told, "checks": checks}
    return render(request, "selftest_now.html" if fragment else "selftest.html", context)


@router.post("")
def start(account: Admin) -> Response:
    """Begin a self-test, unless one runs."""
    with _one_at_a_time, database().read() as session:
        if any(runs(test) for test in selftests.newest(session, 1)):
            raise Conflict("A self-test is running already.", cure="Wait for its end.")
        number = selftest.begin(account.user.name)
    with database().begin() as session:
        audit.record(session, account.user.name, "selftest.run", str(number), account.address)
    Thread(target=_run, args=(number,), name="self-test", daemon=True).start()
    return RedirectResponse("/self-test", status_code=303)


def runs(test: SelfTest) -> bool:
    """Whether a self-test is under way."""
    return test.finished_at is None and test.begun_at > now() - LONGEST


def _run(number: int) -> None:
    try:
        passed = selftest.run(number)
        log.info("self-test ended", number=number, passed=passed)
    except Exception as error:  # noqa: BLE001 - a thread of its own: nobody else would hear of it
        log.error("self-test broke", number=number, error=type(error).__name__)
