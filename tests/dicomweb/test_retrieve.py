"""QIDO-RS and WADO-RS, asked by dicomweb-client: what is stored is found, and comes back as it was."""

import hashlib
import math
import os
from http.client import HTTPConnection, IncompleteRead
from io import BytesIO
from urllib.parse import quote, urlsplit

import cv2
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread, examples
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    JPEG2000MCLossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from requests import HTTPError
from sqlalchemy import select

from service.archive.store import archive
from service.db import audit, double_reads, retention, users
from service.db.session import Database
from service.db.tables import Instance, Reading, Release, Role, Series, Study, Verdict
from service.dicomweb import retrieve
from tests.archive.conftest import S3Server
from tests.dicomweb.conftest import Server, whole
from tests.receive.conftest import instances, ultrasound


@pytest.fixture
def stored(client: DICOMwebClient) -> list[Dataset]:
    """Two images of one study, one of another."""
    study, series = generate_uid(), generate_uid()
    common = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "InstitutionName": "North"}
    sent = [
        ultrasound(**common, InstanceNumber=1, StudyDate="20260301", AccessionNumber="A1"),
        ultrasound(**common, InstanceNumber=2, StudyDate="20260301", AccessionNumber="A1"),
        ultrasound(InstitutionName="South", StudyDate="20260401", AccessionNumber="B_1", PatientName="Other^Person"),
    ]
    sent = [whole(each) for each in sent]
    client.store_instances(sent)
    return sent


def test_studies_are_found_by_their_attributes(client: DICOMwebClient, stored: list[Dataset]) -> None:
    first, last = stored[0].StudyInstanceUID, stored[2].StudyInstanceUID

    def found(**filters: str) -> list[str]:
        return [each["0020000D"]["Value"][0] for each in client.search_for_studies(search_filters=filters)]

    assert found() == [last, first]
    assert found(StudyDate="20260301") == [first]
    assert found(StudyDate="20260302-") == [last]
    assert found(StudyDate="-20260331") == [first]
    assert found(PatientName="canary*") == [first]
    assert found(PatientName="Oth?r^P*") == [last]
    assert found(AccessionNumber="B_*") == [last] and found(AccessionNumber="_1") == []
    assert found(StudyInstanceUID=f"{first},{last}") == [last, first]
    assert found(ModalitiesInStudy="US") == [last, first] and found(ModalitiesInStudy="CT") == []
    assert found(**{"00100010": "Other^Person"}) == [last]
    assert [len(client.search_for_studies(limit=1, offset=offset)) for offset in (0, 1, 2)] == [1, 1, 0]
    study = client.search_for_studies(search_filters={"AccessionNumber": "A1"})[0]
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([1], [2])
    assert study["00080061"]["Value"] == ["US"]


def test_series_and_instances(client: DICOMwebClient, stored: list[Dataset]) -> None:
    study, series = stored[0].StudyInstanceUID, stored[0].SeriesInstanceUID
    (found,) = client.search_for_series(study)
    assert found["0020000E"]["Value"] == [series] and found["00201209"]["Value"] == [2]
    assert len(client.search_for_series()) == 2
    images = client.search_for_instances(study, series)
    assert [each["00200013"]["Value"][0] for each in images] == [1, 2]
    assert images[0]["00280010"]["Value"] == [32]
    assert len(client.search_for_instances()) == 3
    assert len(client.search_for_instances(study, search_filters={"InstanceNumber": "2"})) == 1
    with pytest.raises(HTTPError) as unknown:
        client.search_for_studies(search_filters={"PatientBirthName": "x"})
    assert unknown.value.response.status_code == 400
    with pytest.raises(HTTPError) as nothing:
        client.search_for_series("1.2.3")
    assert nothing.value.response.status_code == 404


def test_series_and_instances_of_studies_that_hold_a_modality(client: DICOMwebClient, server: Server) -> None:
    """The image is not of that modality itself; its study holds a series that is."""
    study = generate_uid()
    image, capture = (whole(ultrasound(StudyInstanceUID=study, Modality=each)) for each in ("US", "OT"))
    client.store_instances([image, capture, whole(ultrasound())])
    asked = {"ModalitiesInStudy": "OT", "Modality": "US"}
    session = server.session()
    for level in ("series", "instances"):
        found = session.get(f"{server.url}/{level}", params=asked, timeout=10).json()
        assert [each["0020000E"]["Value"] for each in found] == [[image.SeriesInstanceUID]]


def test_instances_come_back_as_they_were(client: DICOMwebClient, stored: list[Dataset], db: Database) -> None:
    study, series = stored[0].StudyInstanceUID, stored[0].SeriesInstanceUID
    for found in (client.retrieve_study(study), client.retrieve_series(study, series)):
        assert [each.PixelData for each in found] == [each.PixelData for each in stored[:2]]
    one = client.retrieve_instance(study, series, stored[1].SOPInstanceUID)
    assert one == stored[1]
    told = client.retrieve_study_metadata(study)
    assert [each["00080018"]["Value"][0] for each in told] == [str(each.SOPInstanceUID) for each in stored[:2]]
    assert Dataset.from_json(told[0]).Rows == 32
    with db.read() as session:
        seen = audit.search(session, action="dicomweb.retrieve")
    assert {event.subject for event in seen} >= {study, series, stored[1].SOPInstanceUID}


def test_the_stored_bytes_stream_whole(server: Server, stored: list[Dataset], db: Database) -> None:
    row = instances(db)[0]
    address = f"{server.url}/studies/{stored[0].StudyInstanceUID}/series/{stored[0].SeriesInstanceUID}"
    answer = server.session().get(
        f"{address}/instances/{row.sop_instance_uid}", headers={"Accept": "application/dicom"}, timeout=10
    )
    assert answer.headers["content-type"] == "application/dicom"
    assert (
        answer.headers["x-content-type-options"] == "nosniff" and "attachment" in answer.headers["content-disposition"]
    )
    data = answer.content
    assert hashlib.sha256(data[-row.size :]).hexdigest() == row.sha256


def test_frames_native_and_compressed(client: DICOMwebClient, server: Server) -> None:
    native, compressed = dcmread(examples.get_path("rgb_color")), dcmread(examples.get_path("ybr_color"))
    compressed.SOPClassUID = compressed.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    client.store_instances([native, compressed])
    of = native.StudyInstanceUID, native.SeriesInstanceUID, native.SOPInstanceUID
    assert client.retrieve_instance_frames(*of, [1]) == [native.PixelData]
    of = compressed.StudyInstanceUID, compressed.SeriesInstanceUID, compressed.SOPInstanceUID
    syntax = str(compressed.file_meta.TransferSyntaxUID)
    frames = client.retrieve_instance_frames(*of, [1, 30], media_types=(("image/jpeg", syntax),))
    assert len(frames) == 2 and all(frame[:2] == b"\xff\xd8" for frame in frames) and frames[0] != frames[1]
    with pytest.raises(HTTPError) as refused:
        client.retrieve_instance_frames(*of, [1], media_types=(("application/octet-stream", "1.2.840.10008.1.2.1"),))
    assert refused.value.response.status_code == 406
    with pytest.raises(HTTPError) as beyond:
        client.retrieve_instance_frames(*of, [31])
    assert beyond.value.response.status_code == 404
    picture = client.retrieve_instance_rendered(*of, media_types=("image/png",))
    shown = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape[:2] == (compressed.Rows, compressed.Columns)
    third = client.retrieve_instance_frames_rendered(*of, [3], media_types=("image/jpeg",))
    assert third[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("syntax", "media_type"),
    [
        (JPEGBaseline8Bit, "image/jpeg"),
        (JPEGLSLossless, "image/jls"),
        (JPEG2000MCLossless, "image/jpx"),
        (HTJ2KLossless, "image/jphc"),
        (HTJ2K, "image/jphc"),
        (UID("1.2.840.10008.1.2.4.110"), "image/jxl"),
        (UID("1.2.840.10008.1.2.4.112"), "image/jxl"),
        (RLELossless, "image/dicom-rle"),
    ],
)
def test_a_compressed_frame_has_the_media_type_of_its_syntax(syntax: UID, media_type: str) -> None:
    assert retrieve._media_type(syntax) == media_type


def test_frames_whose_pixels_share_their_colour(client: DICOMwebClient) -> None:
    """Native YBR_FULL_422, as ultrasound machines do send it, has two octets a pixel and not three."""
    frames = [os.urandom(32 * 48 * 2) for _ in range(3)]
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    sent = whole(ultrasound(**colour, NumberOfFrames="3", PixelData=b"".join(frames)))
    client.store_instances([sent])
    of = sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID
    assert client.retrieve_instance_frames(*of, [2, 3]) == frames[1:]


def test_pixel_data_that_is_damaged_is_said_by_the_status(client: DICOMwebClient, db: Database) -> None:
    """And not by an answer that breaks off."""
    short, sizeless, lost = whole(ultrasound(PixelData=bytes(100))), ultrasound(), whole(ultrasound())
    del sizeless.Rows
    sent = [short, whole(sizeless), lost]
    client.store_instances(sent)
    archive().path(instances(db)[-1].archive_key).unlink()
    statuses = []
    for each in sent:
        of = each.StudyInstanceUID, each.SeriesInstanceUID, each.SOPInstanceUID
        with pytest.raises(HTTPError) as refused:
            client.retrieve_instance_frames(*of, [1])
        statuses.append(refused.value.response.status_code)
    assert statuses == [422, 422, 404]


def test_metadata_of_numbers_that_are_none(client: DICOMwebClient) -> None:
    """A machine that writes NaN must not hide its whole study from a viewer: JSON has no word for it."""
    region = Dataset()
    region.PhysicalDeltaX, region.PhysicalDeltaY = float("nan"), float("-inf")
    region.ReferencePixelPhysicalValueX = float("inf")
    sent = whole(ultrasound(SequenceOfUltrasoundRegions=[region]))
    client.store_instances([sent])
    [told] = client.retrieve_study_metadata(sent.StudyInstanceUID)
    [item] = told["00186011"]["Value"]
    assert [item[tag]["Value"] for tag in ("0018602C", "0018602E", "00186028")] == [["NaN"], ["-inf"], ["inf"]]
    back = Dataset.from_json(told).SequenceOfUltrasoundRegions[0]
    assert math.isnan(back.PhysicalDeltaX) and back.PhysicalDeltaY == -math.inf


@pytest.mark.parametrize(
    "query",
    [
        "studies?StudyDate=-",
        "instances?InstanceNumber=--5",
        "instances?InstanceNumber=²",
        "studies?PatientName=A%00",
        "studies?StudyInstanceUID=1.2%00",
    ],
)
def test_keys_that_say_nothing_are_refused(server: Server, query: str) -> None:
    assert server.session().get(f"{server.url}/{query}", timeout=10).status_code == 400


def test_names_are_told_by_their_component_groups(client: DICOMwebClient) -> None:
    groups = {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    for number, group in enumerate(("Alphabetic", "Ideographic", "Phonetic"), 1):
        name = "=".join(list(groups.values())[:number])
        sent = whole(ultrasound(PatientName=name, SpecificCharacterSet="ISO_IR 192", AccessionNumber=group))
        client.store_instances([sent])
        [study] = client.search_for_studies(search_filters={"AccessionNumber": group})
        assert study["00100010"]["Value"] == [dict(list(groups.items())[:number])]


def test_more_than_are_told_are_mentioned(server: Server, stored: list[Dataset]) -> None:
    """PS3.18 section 8.3.4.4.1: a client that pages must hear whether it has all."""
    for path, count in (("studies", 2), ("series", 2), ("instances", 3)):
        some = server.session().get(f"{server.url}/{path}?limit={count - 1}", timeout=10)
        assert len(some.json()) == count - 1 and "additional results" in some.headers["Warning"]
        every = server.session().get(f"{server.url}/{path}?limit={count}", timeout=10)
        assert len(every.json()) == count and "Warning" not in every.headers


def test_other_sites_are_not_there(server: Server, stored: list[Dataset]) -> None:
    south = server.client(Role.REVIEWER, "read", "South")
    north_study, north_series = stored[0].StudyInstanceUID, stored[0].SeriesInstanceUID
    assert [each["0020000D"]["Value"][0] for each in south.search_for_studies()] == [stored[2].StudyInstanceUID]
    assert len(south.search_for_series()) == len(south.search_for_instances()) == 1
    for ask in (
        lambda: south.retrieve_study(north_study),
        lambda: south.retrieve_study_metadata(north_study),
        lambda: south.retrieve_instance(north_study, north_series, stored[0].SOPInstanceUID),
        lambda: south.search_for_instances(north_study),
        lambda: south.retrieve_instance_rendered(north_study, north_series, stored[0].SOPInstanceUID),
    ):
        with pytest.raises(HTTPError) as refused:
            ask()
        assert refused.value.response.status_code == 404


@pytest.mark.parametrize("what", ["*", "{study},{other}", "{study}\\{other}", "%20", "?"])
def test_an_address_names_one_study_series_and_instance(server: Server, stored: list[Dataset], what: str) -> None:
    """Matching is for searches: every instance of the house came by ``*``, under one look in the audit trail."""
    of, other = stored[0], stored[2]
    uids = of.StudyInstanceUID, of.SeriesInstanceUID, of.SOPInstanceUID
    several = quote(what.format(study=of.StudyInstanceUID, other=other.StudyInstanceUID), safe="")
    reader = server.session(Role.VIEWER, "read")
    for place, kind in enumerate(("studies", "series", "instances")):
        at = [*uids[:place], several]
        address = "/".join(f"{kinds}/{uid}" for kinds, uid in zip(("studies", "series", "instances"), at, strict=False))
        below = ("", "/metadata", "/frames/1", "/rendered", "/frames/1/rendered") if kind == "instances" else ("",)
        more = {"studies": ("/metadata", "/series", "/instances"), "series": ("/metadata", "/instances")}
        for path in (*below, *more.get(kind, ())):
            answer = reader.get(f"{server.url}/{address}{path}", timeout=10)
            assert answer.status_code in (404, 422), (address, path, answer.status_code)
    with server.db.read() as session:
        assert not audit.search(session, action="dicomweb.retrieve")


def test_what_an_address_leaves_out_is_not_asked_beside_it(server: Server, stored: list[Dataset]) -> None:
    """The audit trail names what came: of a whole study, the study."""
    study = stored[0].StudyInstanceUID
    address = f"{server.url}/studies/{study}/metadata?series=*&instance={stored[1].SOPInstanceUID}"
    assert len(server.session().get(address, timeout=10).json()) == 2
    with server.db.read() as session:
        assert [event.subject for event in audit.search(session, action="dicomweb.retrieve")] == [study]


def release(db: Database, rows: list[Instance]) -> None:
    with db.begin() as session:
        policy = retention.keep_draft(session, "p", "0" * 64, "", "boss")
        for row in rows:
            session.add(Release(instance_id=row.id, policy_id=policy.id, rule="r"))


def test_released_bytes_are_said_to_be_gone(server: Server, stored: list[Dataset], db: Database) -> None:
    """PS3.18 table 10.4.3-1: 410 where the target was deleted."""
    release(db, instances(db)[:2])
    client = server.client()
    assert client.search_for_instances(stored[0].StudyInstanceUID)[0]["00080056"]["Value"] == ["OFFLINE"]
    for path in ("", "/metadata"):
        answer = server.session().get(f"{server.url}/studies/{stored[0].StudyInstanceUID}{path}", timeout=10)
        assert answer.status_code == 410 and "retention" in answer.json()["detail"]


def test_a_study_of_which_some_is_there_is_partial_content(
    server: Server, client: DICOMwebClient, stored: list[Dataset], db: Database
) -> None:
    """PS3.18 table 10.4.3-1: 206 where the payload has some of the target, not all. It broke off behind a 200."""
    study, series = stored[0].StudyInstanceUID, stored[0].SeriesInstanceUID
    third, fourth = (whole(ultrasound(StudyInstanceUID=study, SeriesInstanceUID=series)) for _ in range(2))
    client.store_instances([third, fourth])
    rows = {row.sop_instance_uid: row for row in instances(db)}
    archive().path(rows[stored[1].SOPInstanceUID].archive_key).unlink()
    release(db, [rows[third.SOPInstanceUID]])
    address = f"{server.url}/studies/{study}"
    for path in ("", f"/series/{series}", "/metadata", f"/series/{series}/metadata"):
        answer = server.session().get(address + path, timeout=10)
        assert answer.status_code == 206
        assert answer.headers["Warning"] == (
            '299 sonomark "2 of 4 instances are left out: 1 released by the retention policy, 1 not in the archive"'
        )
    found = client.retrieve_study(study)
    assert [each.SOPInstanceUID for each in found] == [stored[0].SOPInstanceUID, fourth.SOPInstanceUID]
    told = client.retrieve_study_metadata(study)
    assert [each["00080018"]["Value"][0] for each in told] == [each.SOPInstanceUID for each in found]
    gone = f"{address}/series/{series}/instances/{stored[1].SOPInstanceUID}"
    for path in ("", "/metadata", "/frames/1", "/rendered"):
        answer = server.session().get(gone + path, timeout=10)
        assert answer.status_code == 404 and "not" in answer.json()["detail"]
    released = f"{address}/series/{series}/instances/{third.SOPInstanceUID}"
    assert server.session().get(released, timeout=10).status_code == 410
    with db.read() as session:
        seen = [event for event in audit.search(session, action="dicomweb.retrieve") if event.subject == study]
    assert seen[0].detail == {"instances": 2, "left_out": 2}


def test_a_bucket_that_lost_an_instance_or_is_away_is_said_by_the_status(
    s3: S3Server, server: Server, client: DICOMwebClient, stored: list[Dataset], db: Database
) -> None:
    study = f"{server.url}/studies/{stored[0].StudyInstanceUID}"
    session = server.session()
    assert archive().drain(20) and session.get(study, timeout=20).status_code == 200
    s3.client().delete_object(Bucket="house", Key=f"sonomark/{instances(db)[0].archive_key}")
    answer = session.get(study, timeout=20)
    assert answer.status_code == 206 and "1 of 2 instances are left out" in answer.headers["Warning"]
    assert [each.SOPInstanceUID for each in client.retrieve_study(stored[0].StudyInstanceUID)] == [
        stored[1].SOPInstanceUID
    ]
    s3.stop()
    try:
        assert session.get(study, timeout=60).status_code == 503
    finally:
        s3.start()


def test_a_whole_study_says_its_length(server: Server, stored: list[Dataset]) -> None:
    address = f"{server.url}/studies/{stored[0].StudyInstanceUID}"
    for path in ("", f"/series/{stored[0].SeriesInstanceUID}/instances/{stored[0].SOPInstanceUID}"):
        for accepted in ("multipart/related", "application/dicom"):
            answer = server.session().get(address + path, headers={"Accept": accepted}, timeout=10)
            assert answer.status_code == 200 and "Warning" not in answer.headers
            assert int(answer.headers["Content-Length"]) == len(answer.content) > 1000


@pytest.mark.parametrize("happens", ["vanishes", "is cut off", "is replaced by a longer one"])
def test_what_happens_to_a_file_under_way_breaks_the_connection_off(
    server: Server, client: DICOMwebClient, db: Database, happens: str
) -> None:
    """An answer that ended here as if it were whole would be a study with an image less."""
    study = generate_uid()
    large = ultrasound(StudyInstanceUID=study, InstanceNumber=1, Rows=4096, Columns=8192, PixelData=bytes(4096 * 8192))
    client.store_instances([whole(large)])
    client.store_instances([whole(ultrasound(StudyInstanceUID=study, InstanceNumber=2))])
    of_last = archive().path(instances(db)[-1].archive_key)
    address = urlsplit(server.url)
    connection = HTTPConnection(address.netloc, timeout=20)
    headers = {"Authorization": f"Bearer {server.token()}"}
    connection.request("GET", f"{address.path}/studies/{study}", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    data = of_last.read_bytes()
    of_last.unlink()
    if happens != "vanishes":
        of_last.write_bytes(data[:900] if happens == "is cut off" else data + bytes(1 << 20))
    with pytest.raises(IncompleteRead):
        answer.read()


def test_no_name_leaks_into_errors(server: Server, stored: list[Dataset]) -> None:
    answer = server.session().get(f"{server.url}/studies?Canary^Patient=1", timeout=10)
    assert answer.status_code == 400
    assert BytesIO(answer.content).read().count(b"CANARY-ID") == 0


def test_a_second_reader_gets_the_images_and_no_note_on_them(server: Server, stored: list[Dataset]) -> None:
    """A rejection note that the PACS sent back would tell what the first reader said."""
    shown, note = stored[0], stored[1]
    with server.db.begin() as session:
        kept = session.scalars(select(Instance).where(Instance.sop_instance_uid == note.SOPInstanceUID)).one()
        kept.number_of_frames = 0
        series = Series(study_id=kept.study_id, series_instance_uid="1.2.3", modality="KO")
        session.add(series)
        session.flush()
        kept.series_id = series.id
        study = session.get_one(Study, kept.study_id)
        study.verdict = Verdict.NON_COMPLIANT
        double_reads.draw(session, study, 1.0)
        first = users.create_user(session, "ophelia", Role.REVIEWER)
        double_reads.answer(session, study, first, Reading.INCOMPLETE)
    whole_house, second = server.client(Role.VIEWER), server.client(Role.REVIEWER)

    def told(client: DICOMwebClient) -> tuple[object, ...]:
        (study,) = client.search_for_studies(search_filters={"StudyInstanceUID": shown.StudyInstanceUID})
        counts = study["00201206"]["Value"], study["00201208"]["Value"], study["00080061"]["Value"]
        of_study = client.search_for_instances(shown.StudyInstanceUID), client.search_for_series(shown.StudyInstanceUID)
        return (*counts, *map(len, of_study), len(client.retrieve_study(shown.StudyInstanceUID)))

    assert told(whole_house) == ([2], [2], ["KO", "US"], 2, 2, 2)
    assert told(second) == ([1], [1], ["US"], 1, 1, 1)
    with pytest.raises(HTTPError, match="404"):
        second.retrieve_instance(note.StudyInstanceUID, "1.2.3", note.SOPInstanceUID)
    with server.db.begin() as session:
        reader = users.find_user(session, "reviewer-admin")
        assert reader is not None
        double_reads.answer(session, session.get_one(Study, kept.study_id), reader, Reading.COMPLETE)
    assert told(second) == told(whole_house)
