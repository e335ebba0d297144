"""The lean path against pynetdicom's own: equal bytes in any fragmentation give equal statuses and files."""

import hashlib
import os
from io import BytesIO

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from service.db.session import Database
from tests.receive.conftest import US_IMAGE, RunningReceiver, StartReceiver, instances, ultrasound

DAMAGES = ["none", "truncated", "garbage", "other class", "other uid", "bad uid", "empty"]


def data_set(damage: str, pixels: int, uid: str) -> bytes:
    elements = {"other class": {"SOPClassUID": "1.2.3"}, "other uid": {"SOPInstanceUID": "1.2.3"}}.get(damage, {})
    dataset = ultrasound(**{"SOPInstanceUID": uid, "PixelData": os.urandom(pixels * 2), **elements})
    if damage == "bad uid":
        dataset.StudyInstanceUID = "../x"
    whole = encode(dataset, False, True)
    assert whole is not None
    return {"truncated": whole[: len(whole) // 2], "garbage": os.urandom(200), "empty": b""}.get(damage, whole)


def store(association: Association, data: bytes, uid: str, cuts: list[int], together: int) -> tuple[int, str]:
    """C-STORE in fragments of our choice, ``together`` of them in one PDU; status and error comment."""
    request = C_STORE()
    request.MessageID, request.Priority = 7, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.DataSet = US_IMAGE, uid, BytesIO(b"x")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    context_id = association.accepted_contexts[0].context_id
    [command, *_] = message.encode_msg(context_id, 16384)
    values = list(command.presentation_data_value_list)[:1]
    places = sorted({0, *(cut % max(len(data), 1) for cut in cuts)})
    pieces = [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]
    pieces = [piece[i : i + 60_000] for piece in pieces for i in range(0, max(len(piece), 1), 60_000)]
    values += [
        [context_id, (b"\x02" if number == len(pieces) - 1 else b"\x00") + piece] for number, piece in enumerate(pieces)
    ]
    association._reactor_checkpoint.clear()
    for start in range(0, len(values), together):
        pdu = P_DATA()
        pdu.presentation_data_value_list = [list(value) for value in values[start : start + together]]
        association.dul.send_pdu(pdu)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert response is not None
    return response.Status, response.ErrorComment or ""


def test_both_paths_agree(start_receiver: StartReceiver, db: Database) -> None:
    lean, oracle = start_receiver(), start_receiver(LEAN_RECEIVING="0")
    associations = [_associate(lean), _associate(oracle)]

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(
        damage=st.sampled_from(DAMAGES),
        pixels=st.integers(1, 150_000),
        cuts=st.lists(st.integers(0, 400_000), max_size=6),
        together=st.integers(1, 4),
    )
    def compare(damage: str, pixels: int, cuts: list[int], together: int) -> None:
        uid = generate_uid()
        data = data_set(damage, pixels, uid)
        answers = []
        for association in associations:
            answers.append(store(association, data, uid, cuts, together))
            kept = [row.sha256 for row in instances(db) if row.sop_instance_uid == uid]
            expected = [hashlib.sha256(data).hexdigest()] if answers[-1][0] == 0 else []
            assert kept == expected
        assert answers[0] == answers[1]
        assert (answers[0][0] == 0) == (damage == "none")

    compare()
    for association in associations:
        association.release()


def _associate(receiver: RunningReceiver) -> Association:
    association = receiver.associate()
    assert association.is_established
    return association
