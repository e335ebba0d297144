"""Registering instances: one row for the same bytes, two in conflict for others, a study that re-opens."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from service.db import facts, instances, verdicts
from service.db.instances import (
    Arrival,
    known_keys,
    register,
    register_all,
)
from service.db.session import Database
from service.db.statement import Cursor
from service.db.tables import Instance, Series, Study
from service.dicom.header import Header
from service.errors import DatabaseAway

SETTLE = timedelta(seconds=30)


def arrival(sha256: str = "a" * 64, sop: str = "1.2.3", study: str = "1.2", **study_fields: Any) -> Arrival:
    header = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
        sop_instance_uid=sop,
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study={"patient_id": "P", **study_fields},
        series={"modality": "US"},
        instance={"rows": 4, "columns": 6, "number_of_frames": 1},
        facts={"modality": "US"},
    )
    return Arrival(header, sha256, 24, f"instances/{sha256}.dcm", "US01", "c1")


def test_first_instance_makes_study_series_and_instance(db: Database) -> None:
    with db.begin() as session:
        registration = register(session, arrival(), SETTLE)
        assert registration.created
        assert not registration.conflict
    with db.read() as session:
        study = session.scalars(select(Study)).one()
        assert (study.version, study.settled, study.patient_id) == (1, False, "P")
        assert study.settles_at - study.last_received_at == SETTLE
        assert session.scalars(select(Series)).one().modality == "US"
        instance = session.scalars(select(Instance)).one()
        assert instance.header == {"modality": "US"}
        assert (instance.sop_instance_uid, instance.sha256) == ("1.2.3", "a" * 64)
        assert instance.archive_key == f"instances/{'a' * 64}.dcm"
        assert known_keys(session, [f"instances/{'a' * 64}.dcm", "other"]) == {f"instances/{'a' * 64}.dcm"}


def test_the_same_bytes_again_change_nothing(db: Database) -> None:
    with db.begin() as session:
        first = register(session, arrival(), SETTLE).instance_id
    with db.begin() as session:
        session.scalars(select(Study)).one().settled = True
    with db.begin() as session:
        again = register(session, arrival(), SETTLE)
        assert not again.created
        assert again.instance_id == first
    with db.read() as session:
        study = session.scalars(select(Study)).one()
        assert study.settled
        assert study.version == 1


def test_other_bytes_under_the_same_uid_flag_both_versions_and_their_studies(db: Database) -> None:
    with db.begin() as session:
        register(session, arrival(), SETTLE)
    with db.begin() as session:
        assert register(session, arrival("b" * 64, study="9.9"), SETTLE).conflict
    with db.read() as session:
        assert [i.conflict for i in session.scalars(select(Instance))] == [True, True]
        assert [s.conflict for s in session.scalars(select(Study))] == [True, True]


def test_a_study_whose_image_comes_otherwise_in_another_one_is_to_be_judged_again(any_db: Database) -> None:
    def conflict_of(sop: str, sha256: str, study: str) -> None:
        with any_db.begin() as session:
            session.execute(update(Study).values(settled=True))
            assert register(session, arrival(sha256, sop=sop, study=study), SETTLE).conflict

    def first() -> tuple[bool, bool, int]:
        with any_db.read() as session:
            study = session.scalars(select(Study).where(Study.study_instance_uid == "1.2")).one()
            return study.settled, study.conflict, study.version

    with any_db.begin() as session:
        for sha256, sop in (("a" * 64, "1.2.3"), ("b" * 64, "1.2.4")):
            register(session, arrival(sha256, sop=sop), timedelta())
    conflict_of("1.2.3", "c" * 64, "9.9")
    assert first() == (False, True, 3)
    with any_db.read() as session:
        (first_id,) = session.scalars(select(Study.id).where(Study.study_instance_uid == "1.2"))
        assert first_id in [study_id for _, study_id in verdicts.due(session)]
    conflict_of("1.2.4", "d" * 64, "9.9")  # in conflict already, but not by this image
    assert first() == (False, True, 4)
    conflict_of("1.2.4", "e" * 64, "9.8")  # nothing new
    assert first() == (True, True, 4)


def test_a_late_instance_reopens_its_study(db: Database) -> None:
    with db.begin() as session:
        register(session, arrival(), SETTLE)
    with db.begin() as session:
        study = session.scalars(select(Study)).one()
        study.settled = True
        settled_at = study.settles_at
    with db.begin() as session:
        register(session, arrival("b" * 64, sop="1.2.4"), SETTLE)
    with db.read() as session:
        study = session.scalars(select(Study)).one()
        assert not study.settled
        assert study.version == 2
        assert study.settles_at > settled_at


def test_empty_study_fields_are_filled_by_later_instances(db: Database) -> None:
    with db.begin() as session:
        register(session, arrival(description=""), SETTLE)
        register(session, arrival("b" * 64, sop="1.2.4", description="Breast", patient_id="Q"), SETTLE)
    with db.read() as session:
        study = session.scalars(select(Study)).one()
        assert (study.description, study.patient_id) == ("Breast", "P")


def test_a_series_is_of_the_part_that_the_first_of_its_images_names_that_names_any(any_db: Database) -> None:
    def of_part(number: int, part: str, series: str = "1") -> Arrival:
        made = arrival(f"{number:064}", sop=f"1.2.{number}", body_part=part)
        of_series = {"series_instance_uid": f"1.2.{series}", "series": {"modality": "US", "body_part": part}}
        return made._replace(header=made.header._replace(**of_series))

    with any_db.begin() as session:
        parts = enumerate(["", "THYROID" * 20, "BREAST"], 10)
        came = [of_part(1, "BREAST", series="2"), *(of_part(number, part) for number, part in parts)]
        ids = [register(session, each, SETTLE).instance_id for each in came]
        register(session, came[2], SETTLE)
    with any_db.read() as session:
        found = {series.series_instance_uid: series.body_part for series in session.scalars(select(Series))}
        assert found == {"1.2.2": "BREAST", "1.2.1": ("THYROID" * 20)[:64]}
        silent = facts.of_instances(session, ids[1:2])[0][0]
        assert silent.facts.words["body_part"] == (found["1.2.1"],), "not the study's first"


def test_values_longer_than_their_columns_are_cut(db: Database) -> None:
    with db.begin() as session:
        register(session, arrival(description="x" * 1000), SETTLE)
    with db.read() as session:
        assert session.scalars(select(Study)).one().description == "x" * 256


@pytest.mark.parametrize("versions", [1, 3])
def test_eight_threads_at_once(db: Database, versions: int) -> None:
    def once(number: int) -> bool:
        with db.begin() as session:
            return register(session, arrival(f"{number % versions:064d}"), SETTLE).created

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(once, range(24)))
    assert sum(created) == versions
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == versions
        assert session.scalar(select(func.count()).select_from(Study)) == 1
        assert session.scalars(select(Study)).one().version >= versions


def test_a_receiver_and_a_worker_never_wait_for_each_other_in_a_circle(
    any_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers lock the studies of a batch by their ids; receivers did by UID, and PostgreSQL felled one of them."""
    later, earlier = arrival("1" * 64, "1.1", "2.1"), arrival("2" * 64, "1.2", "2.9")
    for one in (earlier, later):
        with any_db.cursor() as cursor:
            register_all(cursor, [one], lambda _: timedelta(0))
    with any_db.read() as session:
        ids = {study.study_instance_uid: study.id for study in session.scalars(select(Study))}
    assert ids["2.9"] < ids["2.1"]
    lock, begun, failed = instances._lock, threading.Event(), []

    def slowly(cursor: Cursor, uid: str) -> None:
        lock(cursor, uid)
        begun.set()
        time.sleep(0.5)

    def work() -> None:
        begun.wait(10)
        try:
            with any_db.begin() as session:
                verdicts.lock_all(session, ids.values())
        except DatabaseAway as error:
            failed.append(error)

    monkeypatch.setattr(instances, "_lock", slowly)
    worker = threading.Thread(target=work)
    worker.start()
    again = [later._replace(sha256="3" * 64), earlier._replace(sha256="4" * 64)]
    with any_db.cursor() as cursor:
        register_all(cursor, again, lambda _: timedelta(0))
    worker.join(20)
    assert not failed
