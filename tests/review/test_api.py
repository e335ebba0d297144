"""The HTTP of the API: what it returns, whom it denies, and how it says no."""

import re
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydicom import dcmread, examples
from sqlalchemy import update

from service.db import audit
from service.db.session import Database
from service.db.tables import AnalysisState, Annotation, Role, Verdict
from tests.review import ward
from tests.review.test_roles import routes
from tests.tiny_network import write_weights

PROBLEM = "application/problem+json"


def is_problem(answer, status: int) -> bool:
    told = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM and told["status"] == status and told["title"] and told["type"]
    return True


def test_without_a_token_nothing_is_told(client: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    for path in ("/api/flow", "/api/studies", f"/api/studies/{uid}", f"/api/instances/{uid}.1.1/frames/1/image"):
        answer = client.get(path)
        assert is_problem(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
        assert is_problem(client.get(path, headers={"Authorization": "Bearer wrong"}), 401)


def test_flow_adds_up(token: Callable[..., TestClient], db: Database) -> None:
    ward.admit(db, 1)
    ward.admit(db, 2, None, pictures=[ward.Picture(ward.rgb().path, state=AnalysisState.QUEUED)])
    ward.admit(db, 3, pictures=[ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="x")])
    flow = token().get("/api/flow").json()
    assert (flow["acknowledged"], flow["terminal"], flow["in_flight"], flow["quarantined"]) == (3, 2, 1, 1)
    assert flow["oldest_in_flight_s"] >= 0


def test_studies_page_by_cursor(token: Callable[..., TestClient], db: Database) -> None:
    uids = {ward.admit(db, number) for number in range(1, 6)}
    program, seen, cursor = token(), [], None
    while True:
        told = program.get("/api/studies", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [study["study_instance_uid"] for study in told["studies"]]
        if not (cursor := told["next_cursor"]):
            break
    assert len(seen) == 5 and set(seen) == uids
    first = program.get("/api/studies").json()["studies"][0]
    assert first["missing"][0]["requirement"] == "breast-body-marker" and first["last_received_at"].endswith("Z")


def test_studies_filter(token: Callable[..., TestClient], db: Database) -> None:
    ward.admit(db, 1, Verdict.COMPLIANT, station="US-01", name="ROE^Ann")
    ward.admit(db, 2, Verdict.NON_COMPLIANT, station="US-02")
    program = token()

    def found(**params: str) -> list[str]:
        told = program.get("/api/studies", params=params).json()
        return [study["accession_number"] for study in told["studies"]]

    assert found(verdict="compliant") == ["A-1"] == found(station="US-01") == found(q="roe")
    assert found(to="2020-01-01") == [] and found(**{"from": "2020-01-01T00:00:00Z"}) == ["A-2", "A-1"]


@pytest.mark.parametrize(
    "query",
    [
        "verdict=maybe",
        "limit=0",
        "limit=501",
        "limit=x",
        "tab=none",
        "from=yesterday",
        "to=2026-13-01",
        "q=" + "x" * 400,
    ],
)
def test_a_wrong_filter_is_a_422(token: Callable[..., TestClient], query: str) -> None:
    answer = token().get(f"/api/studies?{query}")
    assert is_problem(answer, 422) and answer.json()["errors"]


def test_a_foreign_cursor_is_a_409(token: Callable[..., TestClient]) -> None:
    assert is_problem(token().get("/api/studies?cursor=abc"), 409)


def test_a_study_tells_everything(token: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1, pictures=[ward.rgb(), ward.cine()])
    told = token().get(f"/api/studies/{uid}").json()
    assert told["verdict"] == "non_compliant" and told["version"] == 1 and told["decision"] is None
    assert {each["state"] for each in told["findings"]} == {"missing", "met"}
    assert [each["number_of_frames"] for each in told["instances"]] == [1, 30]
    assert [mark.pop("id") > 0 for mark in told["annotations"]] == [True]
    assert told["annotations"] == [
        {
            "sop_instance_uid": f"{uid}.1.1",
            "frame": 1,
            "kind": "caliper",
            "score": 0.94,
            "box": [60, 80, 90, 40],
            "pixels": 130,
            "source": "network",
            "found_in": "pixels",
            "text": "",
            "text_score": None,
        }
    ]
    assert told["verdicts"][0]["superseded_at"] is None and told["reviews"] == []


def test_an_instance_tells_where_it_stands(token: Callable[..., TestClient], db: Database) -> None:
    held = ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder.", cure="Install one.")
    uid = ward.admit(db, 1, pictures=[held])
    told = token().get(f"/api/instances/{uid}.1.1").json()
    assert (told["state"], told["attempts"], told["reason"]) == ("quarantined", 1, "No decoder.")
    assert told["study_instance_uid"] == uid and told["versions"] == [told["sha256"]]


def test_a_mark_tells_where_it_was_found_and_what_was_read(token: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        session.execute(update(Annotation).values(kind="text", source="overlay", text="RT 10:00", text_score=0.9))
    (mark,) = token().get(f"/api/instances/{uid}.1.1").json()["annotations"]
    assert (mark["found_in"], mark["text"], mark["text_score"]) == ("overlay", "RT 10:00", 0.9)


def test_unknown_things_are_404(token: Callable[..., TestClient], db: Database) -> None:
    uid, program = ward.admit(db, 1), token()
    for path in ("/api/studies/1.2.3", "/api/instances/1.2.3", f"/api/instances/{uid}.1.1/frames/2/image", "/api/x"):
        assert is_problem(program.get(path), 404)
    assert is_problem(program.get("/api/studies/..%2Fetc"), 404)
    assert is_problem(program.get("/api/studies/abc"), 422)
    assert is_problem(program.get(f"/api/instances/{uid}.1.1/frames/0/image"), 422)


def test_the_image_is_the_frame_exactly(token: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    answer = token().get(f"/api/instances/{uid}.1.1/frames/1/image")
    assert answer.headers["content-type"] == "image/png" and answer.headers["cache-control"] == "no-store"
    shown = np.asarray(Image.open(BytesIO(answer.content)))
    np.testing.assert_array_equal(shown, dcmread(examples.get_path("rgb_color")).pixel_array)


def test_a_cine_shows_any_of_its_frames_and_small_ones(token: Callable[..., TestClient], db: Database) -> None:
    uid, program = ward.admit(db, 1, pictures=[ward.cine()]), token()
    answer = program.get(f"/api/instances/{uid}.1.1/frames/30/image")
    data_set = dcmread(examples.get_path("ybr_color"))
    last = data_set.pixel_array[29].astype(int)  # pydicom decodes to RGB
    shown = np.asarray(Image.open(BytesIO(answer.content))).astype(int)
    assert np.abs(shown - last).mean() < 4  # JPEG decoders differ by a level or two
    small = program.get(f"/api/instances/{uid}.1.1/frames/30/image?width=96&webp=1")
    assert small.headers["content-type"] == "image/webp" and Image.open(BytesIO(small.content)).size == (96, 72)


def test_the_mask_names_the_kind_by_its_index(token: Callable[..., TestClient], db: Database) -> None:
    uid, program = ward.admit(db, 1, pictures=[ward.rgb(), ward.cine()]), token()
    mask = Image.open(BytesIO(program.get(f"/api/instances/{uid}.1.1/frames/1/mask").content))
    assert mask.mode == "P" and set(np.unique(np.asarray(mask))) == {0, 2} and mask.info["transparency"] == 0
    empty = Image.open(BytesIO(program.get(f"/api/instances/{uid}.1.2/frames/1/mask").content))
    assert not np.asarray(empty).any()
    assert is_problem(program.get(f"/api/instances/{uid}.1.2/frames/2/mask"), 404)


def test_a_review_grows_the_version_and_a_stale_one_is_refused(token: Callable[..., TestClient], db: Database) -> None:
    uid, program = ward.admit(db, 1), token()
    path = f"/api/studies/{uid}/reviews"
    done = program.post(path, json={"decision": "override", "reason": "present_missed", "note": "n", "version": 1})
    assert done.status_code == 201 and done.json()["version"] == 2
    assert is_problem(program.post(path, json={"decision": "confirm", "version": 1}), 409)
    study = program.get(f"/api/studies/{uid}").json()
    assert (study["decision"], study["version"], len(study["reviews"])) == ("override", 2, 1)
    back = program.post(path, json={"decision": "withdraw", "version": 2})
    assert back.status_code == 201 and back.json()["version"] == 3
    assert program.get(f"/api/studies/{uid}").json()["decision"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"decision": "override", "version": 1},
        {"decision": "override", "reason": "because", "version": 1},
        {"decision": "override", "reason": "other", "version": 1},
        {"decision": "delete", "version": 1},
        {"decision": "confirm"},
        {"decision": "confirm", "version": -1},
        {"decision": "confirm", "version": 1, "note": "x" * 5000},
    ],
)
def test_a_wrong_review_is_a_422(token: Callable[..., TestClient], db: Database, body: dict[str, object]) -> None:
    uid = ward.admit(db, 1)
    answer = token().post(f"/api/studies/{uid}/reviews", json=body)
    assert is_problem(answer, 422) and "xxxx" not in answer.text


def test_roles_and_scopes_both_limit(token: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    path, body = f"/api/studies/{uid}/reviews", {"decision": "confirm", "version": 1}
    for role, scope in [(Role.VIEWER, "admin"), (Role.AUDITOR, "review"), (Role.ADMIN, "read")]:
        program = token(role, scope)
        assert program.get(f"/api/studies/{uid}").status_code == 200
        assert is_problem(program.post(path, json=body), 403)


def test_an_account_of_one_site_finds_nothing_of_another(token: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1, institution="South")
    north = token(site="North")
    assert north.get("/api/studies").json()["studies"] == []
    for path in (f"/api/studies/{uid}", f"/api/instances/{uid}.1.1", f"/api/instances/{uid}.1.1/frames/1/image"):
        assert is_problem(north.get(path), 404)
    assert is_problem(north.post(f"/api/studies/{uid}/reviews", json={"decision": "confirm", "version": 1}), 404)


def test_views_and_changes_are_audited(token: Callable[..., TestClient], db: Database) -> None:
    uid, program = ward.admit(db, 1), token()
    program.get("/api/studies")
    program.get(f"/api/studies/{uid}")
    program.get(f"/api/instances/{uid}.1.1/frames/1/image")
    program.post(f"/api/studies/{uid}/reviews", json={"decision": "confirm", "version": 1})
    with db.read() as session:
        told = [(event.action, event.subject) for event in reversed(audit.search(session))]
        assert audit.verify(session).whole
    assert told == [
        ("worklist.view", ""),
        ("study.view", uid),
        ("instance.view", f"{uid}.1.1"),
        ("review.confirm", uid),
    ]


def test_health_and_readiness(client: TestClient, db: Database, monkeypatch: pytest.MonkeyPatch, house) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"ready": True, "checks": {"database": "ok", "archive": "ok"}}
    monkeypatch.setattr(house, "role_set", "receive,review")
    waiting = client.get("/readyz")
    assert waiting.status_code == 503 and set(waiting.json()["checks"]) == {"database", "archive", "receive", "review"}


def test_metrics_tell_the_queue(client: TestClient, db: Database) -> None:
    ward.admit(db, 1, None, pictures=[ward.Picture(ward.rgb().path, state=AnalysisState.QUEUED)])
    told = client.get("/metrics").text
    assert "sonomark_in_flight 1.0" in told and "DOE" not in told


def test_the_description_is_complete(client: TestClient) -> None:
    told = client.get("/openapi.json").json()
    assert {"/api/flow", "/api/studies", "/api/studies/{study_instance_uid}/reviews"} <= set(told["paths"])
    described = {
        f"{method.upper()} {path}": operation
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/api")
    }
    assert set(described) == {route for route in routes() if route.split(" ")[1].startswith("/api")}
    for route, operation in described.items():
        assert {"401", "403", "422"} <= set(operation["responses"]), route
        assert operation["security"] and operation["description"] and operation["tags"], route
        for code, answer in operation["responses"].items():
            if code.startswith("2") and code != "204":
                kinds = answer["content"]
                assert kinds and kinds.get("application/json", {"schema": "none"})["schema"], f"{route} {code}"
    page = client.get("/docs")
    assert page.status_code == 200 and all(path.split("{")[0] in page.text for path in told["paths"])
    assert 'href="#schema-"' not in page.text and "one of several" not in page.text
    assert '<a href="#schema-DoubleReadState">DoubleReadState</a> or null' in page.text
    assert '<a href="#schema-NewReview">NewReview</a>' in page.text
    for answers in page.text.split('<ul class="answers">')[1:]:
        codes = re.findall(r"<li><strong>(\d+)", answers.partition("</ul>")[0])
        assert codes == sorted(codes) != []


def test_the_restoration_and_what_it_removed(
    token: Callable[..., TestClient], db: Database, house, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "network", str(write_weights(tmp_path / "tiny")))
    uid, program = ward.admit(db, 1), token()

    def shown(what: str) -> np.ndarray:
        answer = program.get(f"/api/instances/{uid}.1.1/frames/1/{what}")
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(BytesIO(answer.content))).astype(int)

    frame, residual = shown("image"), shown("residual")
    assert shown("restoration").shape == frame.shape and residual.shape == frame.shape[:2]
    yellowish = (frame[:, :, :2] > 200).all(axis=2) & (frame[:, :, 2] < 60)
    assert residual.any() and (residual[~yellowish] == 0).all()


def test_without_a_network_the_restoration_says_what_to_do(
    token: Callable[..., TestClient], db: Database, house, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(house, "network", str(tmp_path / "none"))
    uid = ward.admit(db, 1)
    assert is_problem(token().get(f"/api/instances/{uid}.1.1/frames/1/restoration"), 503)
