"""A second reader learns nothing of the first answer from any route, and everything once their own is in."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import select

from service.db import double_reads, reevaluations, studies, users
from service.db.session import Database, database
from service.db.tables import DoubleReadState, Role, Study, User
from service.review import auth, changes, watch
from service.review.deps import Account
from service.settings import Settings
from tests.jobs.test_reevaluate import draft
from tests.review import ward
from tests.review.test_roles import ROUTES, STREAMS

SignIn = Callable[..., TestClient]

FIRST, NOTE = "ophelia", "none to be seen"
# What the first reader said, as pages, answers, charts and the trail put it.
SECRETS = (
    FIRST,
    NOTE,
    "laterality",
    "Wrong side or label",
    '"decision":"retake"',
    '"decision": "retake"',
    "review.retake",
    "Retake asked",
    "asked for a retake",
    '"kind":"rejection"',
    '"kind": "arrow"',
    '"kind":"arrow"',
    "annotation.draw",
    "<td>retake</td>",
)
REPORT = {"group_by": "operator", "key": "SONO^Grapher"}
QUESTIONS = {
    "/reports/studies": (REPORT, {**REPORT, "counted": "flagged_reviewed"}),
    "/api/reports/compliance/studies": (REPORT, {**REPORT, "counted": "flagged_reviewed"}),
    "/api/reports/compliance": tuple(
        {"group_by": "operator,station,exam,day", "format": kind} for kind in ("json", "csv", "xlsx", "pdf")
    ),
    "/worklist": tuple({"tab": tab} for tab in ("flagged", "uncertain", "mine", "decided", "all")),
    "/api/studies": ({}, {"q": "DOE"}, {"tab": "decided"}),
    "/audit": ({}, {"actor": FIRST}, {"action": "review"}, {"verify": "true"}),
    "/reports": ({"group_by": "operator"}, {"group_by": "day"}),
    "/api/reports/chart": ({"group_by": "day"}, {"group_by": "operator"}),
}
# What shows the first answer to anybody who may see it, so that the test would notice a filter that hides all.
SHOWN = ("/api/studies/{study_instance_uid}", "/studies/{study_instance_uid}", "/api/corrections", "/api/studies")

LISTS = (
    "/worklist",
    "/api/studies",
    "/api/corrections",
    "/api/deliveries",
    "/api/reevaluations",
    "/api/reevaluations/{number}",
    "/api/what-if/{number}",
    "/what-if/{number}",
    "/audit",
    "/reports/studies",
    "/api/reports/compliance/studies",
)


@pytest.fixture
def drawn(db: Database, client: TestClient, house: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """A flagged study in the sample, which nobody has answered, with a re-evaluation that names it."""
    monkeypatch.setattr(house, "rejections_to", "PACS@127.0.0.1:11190")
    client.app.state.attempts = auth.Attempts(10_000)
    uid = ward.admit(db, 1)
    with db.begin() as session:
        double_reads.draw(session, studies.brief(session, uid), 1.0)
        asked = reevaluations.ask(session, draft(session), reevaluations.Range(), "somebody", records=False)
        asked.changes = {"compliant>non_compliant": {"count": 1, "studies": [uid]}}
    return uid


def answer_first(browser: TestClient, uid: str) -> None:
    """A box on the frame, and a retake with its reason and note."""
    box = {"kind": "arrow", "box": [5, 5, 40, 40]}
    assert browser.post(f"/api/instances/{uid}.1.1/frames/1/corrections", json=box).status_code == 201
    said = {"decision": "retake", "reason": "laterality", "note": NOTE, "version": version_of(browser, uid)}
    assert browser.post(f"/api/studies/{uid}/reviews", json=said).status_code == 201


def version_of(browser: TestClient, uid: str) -> int:
    return int(browser.get(f"/api/studies/{uid}").json()["version"])


def asked(uid: str, role: Role) -> Iterator[tuple[str, str]]:
    """Every route that shows anything to this role, with its address."""
    for route in sorted(ROUTES):
        method, path = route.split(" ", 1)
        if method != "GET" or route in STREAMS or path.startswith("/sign-in") or path == "/metrics":
            continue
        address = path
        for name, value in {
            "{study_instance_uid}": uid,
            "{sop_instance_uid}": f"{uid}.1.1",
            "{study}": uid,
            "{series}": f"{uid}.1",
            "{instance}": f"{uid}.1.1",
            "{numbers}": "1",
            "{number}": "1",
            "{accession_number:path}": "A-1",
            "{name}": role.value,
        }.items():
            address = address.replace(name, value)
        for question in QUESTIONS.get(path, ({},)):
            yield path, f"{address}?{urlencode(question)}" if question else address


def told(answer: Response) -> str:
    return answer.text + json.dumps(dict(answer.headers))


def everything(browser: TestClient, uid: str, role: Role) -> dict[str, str]:
    """What every route says to this reader, and both streams."""
    found = {address: told(browser.get(address)) for _, address in asked(uid, role)}
    return found | {"stream": streamed(uid, role)}


def streamed(uid: str, role: Role) -> str:
    """The message of the live worklist and that of the study's own page."""
    with database().read() as session:
        user = session.scalars(select(User).where(User.name == role.value)).one()
        number = session.scalars(select(Study.id).where(Study.study_instance_uid == uid)).one()
        account = Account(user, users.sessions_of(session, user)[0], "", "")
    return changes.Change({number}).message(account, {"tab": "all"}) + watch.state(account, uid)


@pytest.mark.parametrize("role", [Role.SONOGRAPHER, Role.REVIEWER, Role.ADMIN])
def test_no_route_tells_a_second_reader_what_the_first_one_said(
    role: Role, db: Database, sign_in: SignIn, drawn: str
) -> None:
    first, second = sign_in(Role.REVIEWER, FIRST), sign_in(role)
    before = everything(second, drawn, role)
    answer_first(first, drawn)
    blinded = everything(second, drawn, role)
    for address, text in blinded.items():
        for secret in SECRETS:  # menus offer every reason, and a list of accounts has every name: neither grows
            assert text.count(secret) <= before[address].count(secret), (address, secret)
    for path, address in asked(drawn, role):
        if path in LISTS:
            assert drawn not in blinded[address].replace("/second-reads/" + drawn, ""), address
    assert f"/second-reads/{drawn}" in second.get("/second-reads").text
    assert drawn in before["/api/reevaluations"] and drawn in before["/what-if/1"]

    assert second.post(f"/second-reads/{drawn}", data={"answer": "incomplete"}).status_code == 303
    afterwards = everything(second, drawn, role)
    for path, address in asked(drawn, role):
        if path in SHOWN and role is not Role.SONOGRAPHER and "decided" not in address:
            assert any(afterwards[address].count(word) > before[address].count(word) for word in SECRETS), address
    assert "Retake asked" in afterwards["stream"] and f"{FIRST} asked for a retake" in afterwards["stream"]


def test_no_change_tells_it_either(db: Database, sign_in: SignIn, drawn: str) -> None:
    first, second = sign_in(Role.REVIEWER, FIRST), sign_in(Role.ADMIN)
    version = version_of(second, drawn)
    first.post(f"/studies/{drawn}/hold")
    answer_first(first, drawn)
    first.post(f"/studies/{drawn}/hold")
    current = version_of(first, drawn)
    review = {"decision": "confirm", "version": version}
    changes = {
        f"/api/studies/{drawn}/reviews": {"json": review},
        f"/studies/{drawn}/reviews": {"data": {"choice": "confirm", "version": version}},
        f"/studies/{drawn}/hold": {},
        f"/api/instances/{drawn}.1.1/frames/1/corrections": {"json": {"kind": "caliper", "box": [1, 1, 9, 9]}},
        "/worklist/decisions": {"json": {"choice": "confirm", "studies": [{"uid": drawn, "version": current}]}},
        "/api/deliveries/1/retry": {},
        "/api/deliveries/1/cancel": {},
    }
    for address, sent in changes.items():
        answer = second.post(address, **sent)
        assert answer.status_code in (403, 404) or answer.json()["done"] == [], address
        assert not any(secret in told(answer) for secret in SECRETS), (address, answer.text)
    answer = second.delete("/api/corrections/1")
    assert answer.status_code == 404 and FIRST not in answer.text
    with db.read() as session:
        found = double_reads.of(session, studies.brief(session, drawn))
        assert found is not None and found.state is DoubleReadState.WAITING and found.second_answer is None


def test_what_a_blinded_reader_types_is_kept_and_a_lesser_token_opens_nothing(
    db: Database, sign_in: SignIn, token: SignIn, drawn: str
) -> None:
    first, second = sign_in(Role.REVIEWER, FIRST), sign_in(Role.REVIEWER)
    answer_first(first, drawn)
    assert second.put(f"/studies/{drawn}/draft", data={"note": "half a thought"}).status_code == 204
    assert token(Role.REVIEWER, "read").get(f"/api/studies/{drawn}").status_code == 403
    assert token(Role.VIEWER, "read").get(f"/api/studies/{drawn}").json()["decision"] == "retake", "never asked to read"


def test_a_report_says_how_many_studies_it_leaves_out(db: Database, sign_in: SignIn, drawn: str) -> None:
    ward.admit(db, 2)
    first, second = sign_in(Role.REVIEWER, FIRST), sign_in(Role.REVIEWER)
    answer_first(first, drawn)
    counted = {name: sum_of(browser) for name, browser in (("first", first), ("second", second))}
    assert counted == {"first": (2, 1, 0), "second": (1, 0, 1)}
    assert "awaiting" in second.get("/reports").text and "awaiting" not in first.get("/reports").text
    second.post(f"/api/double-reads/{drawn}", json={"answer": "incomplete"})
    assert sum_of(second) == (2, 1, 0)


def sum_of(browser: TestClient) -> tuple[int, int, int]:
    """Studies judged, of them reviewed, and left out."""
    found = browser.get("/api/reports/compliance?group_by=day").json()
    return found["total"]["denominator"], found["total"]["flagged_reviewed"], found["withheld"]
