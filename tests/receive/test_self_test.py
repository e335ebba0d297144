"""The house's self-test is let in from another machine while one is under way, with its study and nothing else."""

import socket

import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE

from service.db import selftests
from service.db.session import Database
from service.db.tables import now
from tests.receive.conftest import US_IMAGE, StartReceiver, instances, ultrasound


@pytest.fixture
def elsewhere() -> str:
    """This machine's address as others see it, so that a sender on it is none on the receiver's loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route; nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_a_self_test_comes_in_from_another_machine(start_receiver: StartReceiver, db: Database, elsewhere: str) -> None:
    receiver = start_receiver(PEERS="US01", DICOM_HOST="0.0.0.0")
    ae = AE("SONOMARK_TEST")
    ae.add_requested_context(US_IMAGE)
    refused = ae.associate(elsewhere, receiver.port, ae_title="SONOMARK")
    assert refused.is_rejected, "none is under way"
    uid = str(generate_uid())
    with db.begin() as session:
        number = selftests.begin(session, "a test", uid).id
    association = ae.associate(elsewhere, receiver.port, ae_title="SONOMARK")
    assert association.is_established
    own, foreign = ultrasound(StudyInstanceUID=uid), ultrasound()
    try:
        assert [association.send_c_store(one).Status for one in (own, foreign)] == [0x0000, 0x0124]
    finally:
        association.release()
    (stored,) = instances(db)
    assert stored.sop_instance_uid == own.SOPInstanceUID
    with db.begin() as session:
        selftests.get(session, number).finished_at = now()
    assert ae.associate(elsewhere, receiver.port, ae_title="SONOMARK").is_rejected
