"""The lean path against pynetdicom's own: equal bytes in any fragmentation give equal statuses and files."""

import hashlib
import os
from io import BytesIO
from typing import NamedTuple

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


class Message(NamedTuple):
    """A C-STORE request, and where its command and its data set are cut into fragments."""

    data: bytes
    uid: str
    command_cuts: list[int]
    data_cuts: list[int]


def store(association: Association, messages: list[Message], together: int) -> list[tuple[int, str]]:
    """C-STORE, none waiting for the one before, ``together`` fragments in one PDU; status and error comment of each."""
    context_id = association.accepted_contexts[0].context_id
    values = [value for number, message in enumerate(messages, 1) for value in fragments(context_id, number, message)]
    association._reactor_checkpoint.clear()
    for start in range(0, len(values), together):
        pdu = P_DATA()
        pdu.presentation_data_value_list = [list(value) for value in values[start : start + together]]
        association.dul.send_pdu(pdu)
    answers = []
    for number, _ in enumerate(messages, 1):
        _, response = association.dimse.get_msg(block=True)
        assert response is not None and response.MessageIDBeingRespondedTo == number
        answers.append((response.Status, response.ErrorComment or ""))
    association._reactor_checkpoint.set()
    return answers


def fragments(context_id: int, number: int, message: Message) -> list[tuple[int, bytes]]:
    """Of one message, those of its command first."""
    request = C_STORE()
    request.MessageID, request.Priority = number, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = US_IMAGE, message.uid
    request.DataSet = BytesIO(b"x")
    encoder = C_STORE_RQ()
    encoder.primitive_to_message(request)
    [first, *_] = encoder.encode_msg(context_id, 16384)
    command = first.presentation_data_value_list[0][1][1:]
    found = []
    for kind, whole, cuts in ((1, command, message.command_cuts), (0, message.data, message.data_cuts)):
        pieces = cut(whole, cuts)
        found += [bytes([kind | (2 if place == len(pieces) else 0)]) + piece for place, piece in enumerate(pieces, 1)]
    return [(context_id, fragment) for fragment in found]


def cut(whole: bytes, cuts: list[int]) -> list[bytes]:
    """Cut there, and wherever a piece would be too long for a PDU of four."""
    places = sorted({0, *(at % max(len(whole), 1) for at in cuts)})
    pieces = [whole[a:b] for a, b in zip(places, [*places[1:], len(whole)], strict=True)]
    return [piece[at : at + 30_000] for piece in pieces for at in range(0, max(len(piece), 1), 30_000)]


def test_both_paths_agree(start_receiver: StartReceiver, db: Database) -> None:
    lean, oracle = start_receiver(), start_receiver(LEAN_RECEIVING="0")
    associations = [_associate(lean), _associate(oracle)]

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(
        damages=st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3),
        pixels=st.integers(1, 150_000),
        command_cuts=st.just([]) | st.lists(st.integers(0, 200), max_size=2),
        data_cuts=st.lists(st.integers(0, 400_000), max_size=6),
        together=st.integers(1, 4),
    )
    def compare(damages: list[str], pixels: int, command_cuts: list[int], data_cuts: list[int], together: int) -> None:
        uids = [generate_uid() for _ in damages]
        sent = [data_set(damage, pixels, uid) for damage, uid in zip(damages, uids, strict=True)]
        messages = [Message(data, uid, command_cuts, data_cuts) for data, uid in zip(sent, uids, strict=True)]
        answers = []
        for association in associations:
            answers.append(store(association, messages, together))
            kept = {row.sop_instance_uid: row.sha256 for row in instances(db) if row.sop_instance_uid in uids}
            stored = [message for message, (status, _) in zip(messages, answers[-1], strict=True) if status == 0]
            assert kept == {message.uid: hashlib.sha256(message.data).hexdigest() for message in stored}
        assert answers[0] == answers[1]
        assert [status == 0 for status, _ in answers[0]] == [damage == "none" for damage in damages]

    compare()
    for association in associations:
        association.release()


def _associate(receiver: RunningReceiver) -> Association:
    association = receiver.associate()
    assert association.is_established
    return association
