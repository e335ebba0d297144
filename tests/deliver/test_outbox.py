"""The outbox: what is planned, what is sent, and that nothing a receiver refuses is lost."""

import hashlib
import hmac
import json
import socket
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from aiosmtpd.controller import Controller
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.presentation import PresentationContext, build_context
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.archive.store import archive
from service.db import deliveries, retention, reviews, studies, users, verdicts
from service.db.session import Database
from service.db.tables import Decision, Delivery, DeliveryKind, DeliveryState, Release, Role, Verdict, now
from service.deliver import webhook
from service.deliver.outbox import AT_ONCE, Outbox
from service.deliver.webhook import ForbiddenTarget
from service.errors import PeerError
from service.settings import settings
from tests.review import ward

SECRET_NAME = "CANARY^Patient"


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, db: Database):
    def with_settings(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"SONOMARK_{name.upper()}", str(value))
        settings.cache_clear()

    return with_settings


class Node:
    """A DICOM node that answers what it is told and keeps what it took."""

    def __init__(self, contexts: Sequence[PresentationContext] = StoragePresentationContexts) -> None:
        self.status = 0x0000
        self.taken: list[Dataset] = []
        ae = AE("PACS")
        ae.supported_contexts = list(contexts)
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self.address = f"PACS@127.0.0.1:{self._server.socket.getsockname()[1]}"

    def _store(self, event: evt.Event) -> int:
        if self.status == 0x0000:
            self.taken.append(event.dataset)
        return self.status

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.stop()


def judged(db: Database, number: int = 1, verdict: Verdict = Verdict.NON_COMPLIANT) -> str:
    """A study whose verdict has just been planned for delivery."""
    uid = ward.admit(db, number, verdict, name=SECRET_NAME)
    with db.begin() as session:
        study = studies.brief(session, uid)
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        deliveries.plan_verdict(session, study, standing)
    return uid


def rows(session: Session) -> list[Delivery]:
    return deliveries.newest(session)[::-1]


def states(db: Database) -> list[DeliveryState]:
    with db.read() as session:
        return [row.state for row in rows(session)]


def due_again(db: Database) -> None:
    with db.begin() as session:
        for row in rows(session):
            row.next_at = now()


def test_off_by_default(db: Database) -> None:
    judged(db)
    assert not deliveries.wanted() and states(db) == []


def test_a_self_test_goes_nowhere(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address, webhook_url="https://example.org/x")
    uid = ward.admit(db, 1)
    with db.begin() as session:
        study = studies.brief(session, uid)
        study.synthetic = True
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        deliveries.plan_verdict(session, study, standing)
    assert states(db) == []


def test_report_and_masks_reach_the_node(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address, masks_to=node.address)
    judged(db)
    assert Outbox(db).round() == 2
    assert states(db) == [DeliveryState.DELIVERED] * 2
    assert [str(one.Modality) for one in node.taken] == ["SR", "SEG"]


def test_what_a_node_refuses_is_kept_and_sent_as_the_same_object_later(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address)
    node.status = 0xA700
    judged(db)
    outbox = Outbox(db)
    assert outbox.round() == 0
    with db.read() as session:
        (row,) = rows(session)
        assert row.state is DeliveryState.WAITING and row.attempts == 1 and row.next_at > now()
        assert "0xA700" in row.reason and row.cure
        kept = row.objects
    assert outbox.round() == 0  # not its turn yet
    node.status = 0x0000
    due_again(db)
    assert outbox.round() == 1
    with db.read() as session:
        assert rows(session)[0].objects == kept and rows(session)[0].attempts == 2
    assert len(node.taken) == 1


def test_what_was_made_for_a_delivery_goes_when_it_has_ended_for_good(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address, masks_to=node.address)
    node.status = 0xA700
    judged(db)
    outbox = Outbox(db)
    outbox.round()
    with db.read() as session:
        made = [key for row in rows(session) for key in row.objects]
    assert len(made) == 2 and outbox.tidy() == 0
    with db.begin() as session:
        deliveries.cancel(session, rows(session)[1].id)
    node.status = 0x0000
    due_again(db)
    assert outbox.round() == 1 and outbox.tidy() == 0, "somebody may be at it still"
    with db.begin() as session:
        session.execute(update(Delivery).values(ended_at=now() - 2 * deliveries.LEASE))
    assert (outbox.tidy(), outbox.tidy()) == (1, 0)
    assert [archive().exists(key) for key in made] == [False, True]
    with db.read() as session:
        assert [row.objects for row in rows(session)] == [[], made[1:]]


def test_a_late_image_of_a_released_study_is_reported_without_the_others(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address, masks_to=node.address)
    uid = ward.admit(db, 1, pictures=[ward.rgb(), ward.wide()])
    with db.begin() as session:
        study = studies.find(session, uid)
        gone, late = study.instances
        policy = retention.keep_draft(session, "short", "ab", "", "admin")
        session.add(Release(instance_id=gone.id, policy_id=policy.id, rule="all", deleted_at=now()))
        archive().delete(gone.archive_key)
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        deliveries.plan_verdict(session, study, standing)
    assert Outbox(db).round() == 2
    report = next(one for one in node.taken if one.Modality == "SR")
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert [one.ReferencedSOPInstanceUID for one in evidence.ReferencedSOPSequence] == [late.sop_instance_uid]


def test_a_node_that_knows_implicit_vr_alone_gets_everything(db: Database, configure) -> None:
    old = Node(
        contexts=[build_context(each.abstract_syntax, ImplicitVRLittleEndian) for each in StoragePresentationContexts]
    )
    configure(report_to=old.address, masks_to=old.address)
    judged(db)
    assert Outbox(db).round() == 2
    old.stop()
    report, mask = sorted(old.taken, key=lambda one: one.Modality, reverse=True)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert mask.PixelData.count(0) < len(mask.PixelData)


def test_deliveries_leave_no_folders_behind(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address)
    for number in (1, 2, 3):
        judged(db, number)
    outbox = Outbox(db)
    assert outbox.round() == 3
    with db.begin() as session:
        session.execute(update(Delivery).values(ended_at=now() - timedelta(hours=1)))
    assert outbox.tidy() == 3
    assert len(list((archive().root / "deliveries").iterdir())) == 1


def test_a_node_that_is_away_gets_one_try_a_round(db: Database, configure) -> None:
    configure(report_to="PACS@127.0.0.1:9")
    for number in (1, 2, 3):
        judged(db, number)
    assert Outbox(db).round() == 0
    assert states(db) == [DeliveryState.WAITING] * 3


def test_what_waits_for_a_node_that_is_away_keeps_nothing_else_waiting(db: Database, configure) -> None:
    configure(report_to="PACS@127.0.0.1:9")
    for number in range(1, 2 * AT_ONCE + 2):
        judged(db, number)
    configure(report_to="", webhook_url="http://localhost:9/hook", webhook_hosts="localhost")
    judged(db, 2 * AT_ONCE + 2)
    outbox = Outbox(db)
    assert (outbox.round(), outbox.round()) == (0, 0)
    with db.read() as session:
        assert [row.attempts for row in rows(session) if row.kind is DeliveryKind.WEBHOOK] == [1]


def test_a_node_whose_name_nobody_knows_says_so(db: Database, configure) -> None:
    configure(report_to="PACS@pacs.invalid:104")
    judged(db)
    assert Outbox(db).round() == 0
    with db.read() as session:
        assert [row.reason for row in rows(session)] == ["The name pacs.invalid is not known."]


def test_what_a_node_never_takes_keeps_nothing_else_from_it(db: Database, configure) -> None:
    """A PACS without structured reports: the report waits with its reason, masks and notes go past it."""
    picky = Node(contexts=[build_context(SegmentationStorage)])
    configure(report_to=picky.address, masks_to=picky.address)
    judged(db)
    outbox = Outbox(db)
    assert outbox.round() == 1
    picky.stop()
    assert [str(one.Modality) for one in picky.taken] == ["SEG"]
    with db.read() as session:
        report, masks = rows(session)
        assert masks.state is DeliveryState.DELIVERED
        assert report.state is DeliveryState.WAITING and "refused its SOP class" in report.reason


def test_a_try_that_died_is_taken_up_again(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address)
    judged(db)
    with db.begin() as session:
        assert len(deliveries.claim(session, 9)) == 1
        assert deliveries.claim(session, 9) == []
    due_again(db)
    assert Outbox(db).round() == 1


def test_what_a_clock_that_was_ahead_put_off_goes_out(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address)
    judged(db)
    with db.begin() as session:
        session.execute(update(Delivery).values(next_at=now() + timedelta(minutes=59)))
    assert Outbox(db).round() == 0
    with db.begin() as session:
        session.execute(update(Delivery).values(next_at=now() + timedelta(days=3650)))
    assert Outbox(db).round() == 1


def test_a_newer_verdict_overtakes(db: Database, configure) -> None:
    configure(report_to="PACS@127.0.0.1:9", webhook_url="https://example.org/x")
    uid = judged(db)
    with db.begin() as session:
        study = studies.brief(session, uid)
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        standing.verdict = Verdict.COMPLIANT
        deliveries.plan_verdict(session, study, standing)
    waiting, overtaken = DeliveryState.WAITING, DeliveryState.OVERTAKEN
    assert states(db) == [overtaken, overtaken, waiting]  # a pass is reported and notifies nobody


def ten_seconds_later(db: Database) -> None:
    with db.begin() as session:
        session.execute(update(Delivery).values(next_at=Delivery.created_at))


def test_a_retake_rejects_and_its_undo_does_not(db: Database, configure, node: Node) -> None:
    configure(rejections_to=node.address)
    for number in (1, 2):
        uid = ward.admit(db, number)
        with db.begin() as session:
            study = studies.brief(session, uid)
            user = users.find_user(session, "anna") or users.create_user(session, "anna", Role.REVIEWER)
            reviews.decide(session, study, user, Decision.RETAKE, "body_marker", "", study.version)
            if number == 2:
                session.refresh(study)
                reviews.withdraw(session, study, user)
    assert states(db) == [DeliveryState.WAITING, DeliveryState.OVERTAKEN]
    assert Outbox(db).round() == 0, "it waits, so that an undo is one"
    ten_seconds_later(db)
    assert Outbox(db).round() == 1
    (note,) = node.taken
    assert note.Modality == "KO" and note.ConceptNameCodeSequence[0].CodeValue == "113001"


class TestWebhook:
    @pytest.fixture
    def receiver(self) -> Iterator[HTTPServer]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.server.seen.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
                self.send_response(self.server.status)  # type: ignore[attr-defined]
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        server.seen, server.status = [], 204  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()

    def test_signed_and_without_patient_data(self, db: Database, configure, receiver) -> None:
        url = f"http://127.0.0.1:{receiver.server_port}/hook?a=1"
        configure(webhook_url=url, webhook_hosts="127.0.0.1", webhook_secret="key", public_url="https://sono/")
        uid = judged(db)
        assert Outbox(db).round() == 1
        ((path, headers, body),) = receiver.seen
        assert path == "/hook?a=1"
        assert headers["X-Sonomark-Signature"] == "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()
        told = json.loads(body)
        assert told["missing"] == [{"requirement": "breast-body-marker", "severity": "major"}]
        assert told["link"] == f"https://sono/studies/{uid}"
        for secret in ("CANARY", "P00001", "A-1", "1968", "SONO^Grapher"):
            assert secret not in body.decode()

    def test_one_that_is_refused_holds_up_no_other(self, db: Database, configure, receiver) -> None:
        receiver.status = 422
        configure(webhook_url=f"http://127.0.0.1:{receiver.server_port}/", webhook_hosts="127.0.0.1")
        for number in (1, 2):
            judged(db, number)
        assert Outbox(db).round() == 0
        assert len(receiver.seen) == 2

    @pytest.mark.parametrize("status", [301, 307, 404, 500])
    def test_a_redirect_or_an_error_is_a_refusal(self, db: Database, configure, receiver, status: int) -> None:
        receiver.status = status
        configure(webhook_url=f"http://127.0.0.1:{receiver.server_port}/", webhook_hosts="127.0.0.1")
        judged(db)
        assert Outbox(db).round() == 0
        assert len(receiver.seen) == 1 and states(db) == [DeliveryState.WAITING]

    @pytest.mark.parametrize(
        ("url", "allowed"),
        [
            ("http://127.0.0.1/", ""),
            ("https://evil.example/", "good.example"),
            ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
            ("http://[::ffff:169.254.169.254]/", "::ffff:169.254.169.254"),
            ("http://0.0.0.0/", "0.0.0.0"),
            ("file:///etc/passwd", ""),
            ("gopher://127.0.0.1/", "127.0.0.1"),
            ("http://user@good.example@127.0.0.1/", "good.example"),
        ],
    )
    def test_where_it_may_not_go(self, url: str, allowed: str) -> None:
        with pytest.raises(ForbiddenTarget):
            webhook.post(url, {}, number=1, allowed=allowed, secret="")

    def test_a_name_that_leads_to_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = [(2, 1, 6, "", ("127.0.0.1", 443))]
        monkeypatch.setattr(webhook.socket, "getaddrinfo", lambda *_, **__: answer)
        with pytest.raises(ForbiddenTarget, match="this machine"):
            webhook.post("https://good.example/", {}, number=1, allowed="good.example", secret="")

    def test_a_receiver_that_is_away(self) -> None:
        with pytest.raises(PeerError):
            webhook.post("http://127.0.0.1:9/", {}, number=1, allowed="127.0.0.1", secret="")


class TestMail:
    class Box:
        def __init__(self) -> None:
            self.mails: list[Message] = []
            self.refuse = False
            self.tries = 0

        async def handle_DATA(self, server, session, envelope) -> str:
            self.tries += 1
            if self.refuse:
                return "554 5.7.1 no"
            self.mails.append(envelope.content.decode())
            return "250 OK"

    @pytest.fixture
    def box(self) -> Iterator[tuple[Box, int]]:
        box = self.Box()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        controller = Controller(box, hostname="127.0.0.1", port=port)
        controller.start()
        yield box, port
        controller.stop()

    def test_a_flag_reaches_the_room_without_patient_data(self, db: Database, configure, box) -> None:
        received, port = box
        configure(mail_to="room@h.example, lead@h.example", smtp_host=f"127.0.0.1:{port}", smtp_security="none")
        judged(db)
        assert Outbox(db).round() == 2
        assert [mail.split("To: ")[1].split("\r\n")[0] for mail in received.mails] == [
            "room@h.example",
            "lead@h.example",
        ]
        assert "The body marker is missing on image 1" in received.mails[0] and "US-03" in received.mails[0]
        for secret in ("CANARY", "P00001", "A-1", "1968", "SONO^Grapher"):
            assert secret not in received.mails[0]

    def test_a_refused_mail_is_tried_again(self, db: Database, configure, box) -> None:
        received, port = box
        received.refuse = True
        configure(mail_to="room@h.example", smtp_host=f"127.0.0.1:{port}", smtp_security="none")
        judged(db)
        assert Outbox(db).round() == 0
        received.refuse = False
        due_again(db)
        assert Outbox(db).round() == 1 and len(received.mails) == 1

    def test_one_that_is_refused_holds_up_no_other(self, db: Database, configure, box) -> None:
        received, port = box
        received.refuse = True
        configure(mail_to="room@h.example", smtp_host=f"127.0.0.1:{port}", smtp_security="none")
        for number in (1, 2):
            judged(db, number)
        assert Outbox(db).round() == 0
        assert received.tries == 2

    def test_a_pass_sends_nothing(self, db: Database, configure) -> None:
        configure(mail_to="room@h.example", smtp_host="127.0.0.1:9")
        judged(db, verdict=Verdict.COMPLIANT)
        assert states(db) == []


def test_a_person_cancels_and_asks_again(db: Database, configure, node: Node) -> None:
    configure(report_to=node.address)
    judged(db)
    with db.begin() as session:
        (row,) = rows(session)
        deliveries.cancel(session, row.id)
    assert Outbox(db).round() == 0 and states(db) == [DeliveryState.CANCELLED]
    with db.begin() as session:
        deliveries.retry(session, row.id)
    assert Outbox(db).round() == 1
    with db.begin() as session:
        deliveries.retry(session, row.id)
    assert states(db) == [DeliveryState.DELIVERED]


def test_nothing_of_the_patient_is_logged_or_warned_of(
    db: Database, configure, node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(report_to=node.address, masks_to="PACS@127.0.0.1:9")
    judged(db)
    with warnings.catch_warnings(record=True) as warned:
        Outbox(db).round()
    seen = "".join(capfd.readouterr()) + " ".join(str(each.message) for each in warned)
    for secret in ("CANARY", "CompressedSamples"):
        assert secret not in seen


def test_what_is_withdrawn_while_others_are_being_sent_stays_here(db: Database, configure, node: Node) -> None:
    """Deliveries are claimed many at a time, and one may take a minute: a person may undo the others meanwhile."""
    configure(report_to=node.address)
    judged(db, 1)
    judged(db, 2)

    def cancel_the_other(event: evt.Event) -> int:
        with db.begin() as session:
            deliveries.cancel(session, rows(session)[1].id)
        return node._store(event)

    node._server.bind(evt.EVT_C_STORE, cancel_the_other)
    assert Outbox(db).round() == 1
    assert states(db) == [DeliveryState.DELIVERED, DeliveryState.CANCELLED] and len(node.taken) == 1
