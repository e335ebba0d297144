"""Storage commitment: only what is on disk with the right digest and in the database is ever confirmed."""

import json
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import P_DATA
from sqlalchemy import select, update

from service.archive.store import ArchiveStore
from service.db import commitments
from service.db.session import Database
from service.db.tables import Commitment, CommitmentState, now
from service.receive.commitment import MOST_REFERENCES, MOST_WAITING, PUSH_MODEL_INSTANCE
from service.receive.contexts import STORAGE_COMMITMENT
from service.settings import Settings
from tests.interoperability.senders import Missing, install_dcmjs
from tests.ports import free_port
from tests.receive.conftest import US_IMAGE, RunningReceiver, StartReceiver, instances, ultrasound
from tests.receive.test_attacks import MANY_DESCRIPTORS
from tests.receive.test_cstore import archived

NOT_STORED, OTHER_CLASS, DAMAGED = 0x0112, 0x0119, 0x0110


class Cart:
    """A peer that asks for commitment and hears the reports on a port of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heard: list[tuple[int, Dataset]] = []
        self.syntaxes: set[str] = set()  # that reports come in
        self._came = threading.Event()
        self._server: Any = None

    def listen(self, tls: ssl.SSLContext | None = None) -> "Cart":
        ae = AE(ae_title="US01")
        ae.add_supported_context(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        here, handlers = ("127.0.0.1", self.port), self.handlers()
        self._server = ae.start_server(here, block=False, evt_handlers=handlers, ssl_context=tls)
        return self

    def handlers(self) -> list[Any]:
        return [(evt.EVT_N_EVENT_REPORT, self._hear)]

    def hear_after(self, seconds: float) -> Callable[[Any], tuple[int, None]]:
        """A handler that takes its time to answer."""

        def hear(event: Any) -> tuple[int, None]:
            time.sleep(seconds)
            return self._hear(event)

        return hear

    def _hear(self, event: Any) -> tuple[int, None]:
        self.syntaxes.update(event.assoc.requestor.requested_contexts[0].transfer_syntax)
        self.heard.append((event.event_type, event.event_information))
        self._came.set()
        return 0x0000, None

    def report(self, timeout: float = 30) -> tuple[int, Dataset]:
        assert self._came.wait(timeout), "no report came"
        self._came.clear()
        return self.heard[-1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()


def ask(
    receiver: RunningReceiver,
    references: list[tuple[str, str]],
    cart: Cart | None = None,
    hold_s: float = 0,
    **more: Any,
) -> int | None:
    """N-ACTION of one list; the status of its answer."""
    ae = AE(ae_title="US01")
    ae.add_requested_context(STORAGE_COMMITMENT)
    handlers = cart.handlers() if cart is not None else []
    there = {"addr": "127.0.0.1", "port": receiver.port, "ae_title": "SONOMARK"}
    association = ae.associate(**there, evt_handlers=handlers, tls_args=more.get("tls"))
    assert association.is_established
    request = request_for(references, more.get("transaction", generate_uid()))
    status, _ = association.send_n_action(
        request, more.get("action", 1), STORAGE_COMMITMENT, more.get("instance", PUSH_MODEL_INSTANCE)
    )
    deadline = time.monotonic() + hold_s
    while cart is not None and not cart.heard and time.monotonic() < deadline:
        time.sleep(0.05)
    association.release()
    return status.get("Status")


def request_for(references: list[tuple[str, str]], transaction: str) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = Sequence()
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        request.ReferencedSOPSequence.append(item)
    return request


@pytest.fixture
def cart() -> Iterator[Cart]:
    cart = Cart(free_port())
    yield cart
    cart.stop()


def test_a_door_with_a_thousand_connections_reports(start_receiver: StartReceiver, cart: Cart) -> None:
    """Its own call then has a descriptor that `select` does not know."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this machine allows fewer descriptors")
    receiver = start_receiver(before=MANY_DESCRIPTORS, PEERS=f"US01@127.0.0.1;port={cart.port}")
    cart.listen()
    image = ultrasound()
    assert receiver.store(image) == [0]
    assert ask(receiver, [(US_IMAGE, image.SOPInstanceUID)]) == 0
    event_type, information = cart.report()
    assert event_type == 1 and "FailedSOPSequence" not in information


def test_what_is_safe_is_committed_and_the_rest_is_named(
    start_receiver: StartReceiver, db: Database, house: Settings, cart: Cart
) -> None:
    receiver = start_receiver(PEERS=f"US01@127.0.0.1;port={cart.port}")
    cart.listen()
    sent = [ultrasound() for _ in range(4)]
    assert receiver.store(*sent) == [0] * 4
    assert len(archived(house)) == 4
    archive = ArchiveStore(house.data_dir / "archive")
    rows = {row.sop_instance_uid: row for row in instances(db)}
    damaged = archive.path(rows[str(sent[1].SOPInstanceUID)].archive_key)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    archive.path(rows[str(sent[2].SOPInstanceUID)].archive_key).unlink()
    unknown = generate_uid()
    references = [(US_IMAGE, str(d.SOPInstanceUID)) for d in sent[:3]]
    references += [("1.2.840.10008.5.1.4.1.1.7", str(sent[3].SOPInstanceUID)), (US_IMAGE, unknown)]
    assert ask(receiver, references) == 0
    event_type, information = cart.report()
    assert event_type == 2
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == [sent[0].SOPInstanceUID]
    failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in information.FailedSOPSequence}
    assert failed == {
        sent[1].SOPInstanceUID: DAMAGED,
        sent[2].SOPInstanceUID: DAMAGED,
        sent[3].SOPInstanceUID: OTHER_CLASS,
        unknown: NOT_STORED,
    }


def test_an_instance_still_in_the_journal_is_committed(start_receiver: StartReceiver, cart: Cart) -> None:
    receiver = start_receiver(PEERS=f"US01;port={cart.port}", FAILPOINTS="filing.before_copy=sleep:20000")
    cart.listen()
    dataset = ultrasound()
    receiver.store(dataset)
    assert ask(receiver, [(US_IMAGE, str(dataset.SOPInstanceUID))]) == 0
    event_type, information = cart.report()
    assert event_type == 1
    assert "FailedSOPSequence" not in information
    assert cart.syntaxes == {ImplicitVRLittleEndian}  # every peer reads it, which cannot be said of others


def test_killed_before_a_report(start_receiver: StartReceiver, db: Database, cart: Cart) -> None:
    """What was examined and not told is owed by the next receiver, and nothing of it is forgotten."""
    receiver = start_receiver(PEERS=f"US01;port={cart.port}", FAILPOINTS="receive.before_report=kill@1")
    cart.listen()
    dataset = ultrasound()
    receiver.store(dataset)
    assert ask(receiver, [(US_IMAGE, str(dataset.SOPInstanceUID))]) == 0
    receiver.process.wait(30)
    assert not cart.heard
    with db.read() as session:
        owed = session.scalars(select(Commitment)).one()
        assert owed.state is not CommitmentState.REPORTED


def test_a_report_waits_for_a_peer_that_is_away_and_outlives_a_crash(
    start_receiver: StartReceiver, db: Database, cart: Cart
) -> None:
    receiver = start_receiver(PEERS=f"US01;port={cart.port}")
    dataset = ultrasound()
    receiver.store(dataset)
    transaction = generate_uid()
    assert ask(receiver, [(US_IMAGE, str(dataset.SOPInstanceUID))], transaction=transaction) == 0
    receiver.wait_for("commitment not reported")
    receiver.kill()
    cart.listen()
    receiver.start()
    event_type, information = cart.report()
    assert (event_type, information.TransactionUID) == (1, transaction)
    deadline = time.monotonic() + 10
    while True:
        with db.read() as session:
            [row] = session.scalars(select(Commitment))
        if row.state == CommitmentState.REPORTED or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert (row.state, row.committed, row.failed) == (CommitmentState.REPORTED, 1, 0)


def test_a_report_on_the_association_that_asked(start_receiver: StartReceiver, cart: Cart) -> None:
    receiver = start_receiver(PEERS=f"US01;reports=same;port={cart.port}")
    dataset = ultrasound()
    receiver.store(dataset)
    assert ask(receiver, [(US_IMAGE, str(dataset.SOPInstanceUID))], cart, hold_s=15) == 0
    assert [event_type for event_type, _ in cart.heard] == [1]
    assert receiver.store(ultrasound()) == [0]


def test_a_cart_goes_on_storing_while_a_report_is_due(start_receiver: StartReceiver, cart: Cart) -> None:
    """Its data set is in the middle when the report is made, and it stores more before it answers the report."""
    receiver = start_receiver(PEERS=f"US01;reports=same;port={cart.port}")
    first, second, third, fourth = [ultrasound() for _ in range(4)]
    association = receiver.associate((US_IMAGE, ExplicitVRLittleEndian), (STORAGE_COMMITMENT, ExplicitVRLittleEndian))
    association.bind(evt.EVT_N_EVENT_REPORT, cart.hear_after(2))
    assert association.send_c_store(first).Status == 0
    status, _ = association.send_n_action(
        request_for([(US_IMAGE, str(first.SOPInstanceUID))], generate_uid()), 1, STORAGE_COMMITMENT, PUSH_MODEL_INSTANCE
    )
    assert status.Status == 0
    send, halves = association.dul.send_pdu, count(1)

    def sent_with_a_pause(primitive: P_DATA) -> None:
        send(primitive)
        if next(halves) == 1:
            time.sleep(3)  # the report is made a second after the request

    association.dul.send_pdu = sent_with_a_pause  # type: ignore[method-assign]
    for dataset in (second, third, fourth):
        assert association.send_c_store(dataset).get("Status") == 0
    assert [event_type for event_type, _ in [cart.report()]] == [1]
    association.release()
    receiver.wait_for("commitment reported.*committed=1")
    assert "not reported" not in receiver.log.read_text()


def test_what_is_no_request_is_refused(receiver: RunningReceiver, db: Database) -> None:
    one = [(US_IMAGE, "1.2.3")]
    assert ask(receiver, one, action=2) == 0x0123
    assert ask(receiver, one, instance="1.2.3") == 0x0112
    assert ask(receiver, []) == 0x0115
    assert ask(receiver, [(US_IMAGE, "")]) == 0x0115
    assert ask(receiver, [(US_IMAGE, f"1.2.{n}") for n in range(MOST_REFERENCES + 1)]) == 0x0213
    with db.read() as session:
        assert not list(session.scalars(select(Commitment)))
    assert "Traceback" not in receiver.log.read_text()


def test_more_than_a_hundred_requests_of_one_peer_do_not_wait(receiver: RunningReceiver, db: Database) -> None:
    with db.begin() as session:
        for number in range(MOST_WAITING - 1):
            commitments.add(session, f"1.2.{number}", "US01", "127.0.0.1", [(US_IMAGE, "1.2.3")])
        commitments.add(session, "1.2.3", "US02", "127.0.0.1", [(US_IMAGE, "1.2.3")])
        session.execute(update(Commitment).values(due_at=now() + timedelta(hours=1)))
    assert ask(receiver, [(US_IMAGE, "1.2.3")]) == 0
    assert ask(receiver, [(US_IMAGE, "1.2.3")]) == 0x0213


def test_a_peer_that_is_away_is_tried_once_a_round(start_receiver: StartReceiver, db: Database, cart: Cart) -> None:
    """Each try may take half a minute, in which no other peer hears its report."""
    hung = socket.create_server(("127.0.0.2", 0), backlog=100)
    peers = f"US01@127.0.0.1;port={cart.port},US02@127.0.0.2;port={hung.getsockname()[1]}"
    receiver = start_receiver(before="from service.receive import reports; reports.ANSWER_S = 3", PEERS=peers)
    cart.listen()
    with db.begin() as session:
        for number in range(20):
            commitments.add(session, f"1.2.{number}", "US02", "127.0.0.2", [(US_IMAGE, "1.2.3")])
        last = commitments.add(session, "1.2.3", "US01", "127.0.0.1", [(US_IMAGE, "1.2.3")])
        session.execute(update(Commitment).where(Commitment.id != last).values(due_at=now() - timedelta(minutes=1)))
    assert cart.report(20)[0] == 2
    hung.close()
    assert receiver.log.read_text().count("commitment not reported") >= 20


def test_what_is_asked_again_while_a_report_is_under_way_is_reported_again(
    start_receiver: StartReceiver, cart: Cart
) -> None:
    """Under the same transaction, and with another list: the report that is on its way does not speak of it."""
    receiver = start_receiver(PEERS=f"US01;port={cart.port}", FAILPOINTS="receive.before_report=sleep:3000@1")
    cart.listen()
    dataset, transaction = ultrasound(), generate_uid()
    receiver.store(dataset)
    assert ask(receiver, [(US_IMAGE, "1.2.3")], transaction=transaction) == 0
    time.sleep(2)
    assert ask(receiver, [(US_IMAGE, str(dataset.SOPInstanceUID))], transaction=transaction) == 0
    assert [cart.report()[0] for _ in range(2)] == [2, 1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_transaction_that_is_no_uid_stays_out_of_the_log(receiver: RunningReceiver) -> None:
    assert ask(receiver, [(US_IMAGE, "1.2.3")], transaction="Canary^Patient") == 0
    receiver.wait_for("commitment not reported")
    assert "Canary" not in receiver.log.read_text()


@pytest.mark.acceptance
def test_orthanc_asks_and_hears(start_receiver: StartReceiver, tmp_path: Path) -> None:
    """Orthanc sends, asks for commitment, and believes what it hears."""
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(program).exists():
        pytest.skip("no Orthanc here")
    dicom, http = free_port(), free_port()
    receiver = start_receiver(PEERS=f"ORTHANC;port={dicom}")
    configuration = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "HttpPort": http,
        "Plugins": [],
        "DicomModalities": {"sonomark": ["SONOMARK", "127.0.0.1", receiver.port]},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(configuration))
    with (tmp_path / "orthanc.log").open("wb") as log:
        orthanc = subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    try:
        call = _rest(http)
        dataset = ultrasound()
        dataset.save_as(tmp_path / "one.dcm", enforce_file_format=True)
        stored = call("/instances", (tmp_path / "one.dcm").read_bytes())
        assert call("/modalities/sonomark/store", json.dumps([stored["ID"]]).encode())["FailedInstancesCount"] == 0
        asked = {"Resources": [stored["ID"]], "DicomInstances": [[US_IMAGE, "1.2.3"]]}
        transaction = call("/modalities/sonomark/storage-commitment", json.dumps(asked).encode())
        deadline = time.monotonic() + 30
        while (found := call(transaction["Path"]))["Status"] == "Pending" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert [each["SOPInstanceUID"] for each in found["Success"]] == [dataset.SOPInstanceUID]
        assert [(each["SOPInstanceUID"], each["FailureReason"]) for each in found["Failures"]] == [
            ("1.2.3", NOT_STORED)
        ]
    finally:
        orthanc.terminate()
        orthanc.wait(30)


DCMJS = """
const { Client, Server, Scp, Dataset, requests, responses, constants } = require('dcmjs-dimse');
const [theirs, ours, sopClass, ...uids] = process.argv.slice(2);
const pushModel = '1.2.840.10008.1.20.1';
class Cart extends Scp {
  associationRequested(association) {
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      context.setResult(constants.PresentationContextResult.Accept, context.getTransferSyntaxUids()[0]);
    }
    this.sendAssociationAccept();
  }
  nEventReportRequest(request, callback) {
    const said = request.getDataset().getElements();
    const uidsOf = (items) => [].concat(items || []).map((item) => item.ReferencedSOPInstanceUID);
    console.log(JSON.stringify({
      type: request.getEventTypeId(),
      committed: uidsOf(said.ReferencedSOPSequence),
      failed: uidsOf(said.FailedSOPSequence),
    }));
    const response = responses.NEventReportResponse.fromRequest(request);
    response.setStatus(constants.Status.Success);
    callback(response);
  }
  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
    setTimeout(() => process.exit(0), 500);
  }
}
new Server(Cart).listen(Number(ours));
const asked = new requests.NActionRequest(pushModel, '1.2.840.10008.1.20.1.1', 1);
asked.setDataset(new Dataset({
  TransactionUID: '2.25.4711',
  ReferencedSOPSequence: uids.map((uid) => ({ ReferencedSOPClassUID: sopClass, ReferencedSOPInstanceUID: uid })),
}));
const client = new Client();
client.addRequest(asked);
client.send('127.0.0.1', Number(theirs), 'US01', 'SONOMARK');
setTimeout(() => process.exit(1), 40000);
"""


@pytest.mark.acceptance
def test_dcmjs_asks_and_hears(start_receiver: StartReceiver, tmp_path: Path) -> None:
    """A second independent stack: it asks, accepts our association and reads the report."""
    try:
        install_dcmjs(tmp_path)
    except Missing as missing:
        pytest.skip(f"a peer is missing: {missing}")
    port = free_port()
    receiver = start_receiver(PEERS=f"US01;port={port}")
    dataset = ultrasound()
    assert receiver.store(dataset) == [0]
    (tmp_path / "ask.js").write_text(DCMJS)
    command = ["node", "ask.js", str(receiver.port), str(port), US_IMAGE, str(dataset.SOPInstanceUID), "1.2.3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    heard = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert heard == [{"type": 2, "committed": [dataset.SOPInstanceUID], "failed": ["1.2.3"]}], done.stdout + done.stderr
    receiver.wait_for("commitment reported.*committed=1.*failed=1")


def _rest(port: int) -> Callable[..., Any]:
    def call(path: str, body: bytes | None = None) -> Any:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=20) as answer:
                    return json.load(answer)
            except (ConnectionError, urllib.error.URLError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return call


def test_what_a_clock_that_was_ahead_put_off_is_due(db: Database) -> None:
    with db.begin() as session:
        commitments.add(session, "1.2.3", "US01", "127.0.0.1", [("1.2", "1.3")])
        session.execute(update(Commitment).values(due_at=now() + timedelta(minutes=59)))
        assert commitments.claim(session, 10, 60) == []
        session.execute(update(Commitment).values(due_at=now() + timedelta(days=3650)))
        assert len(commitments.claim(session, 10, 60)) == 1
        assert commitments.claim(session, 10, 60) == []
