"""Verdicts under several writers at once, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import func, select

from service.compliance.outcome import Finding as Said
from service.compliance.outcome import FindingState, Outcome, Severity, Verdict
from service.db import verdicts
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Finding, Instance, Series, Study, VerdictRecord, now
from service.db.verdicts import Judged, Versions


def outcome(number: int) -> Outcome:
    said = Said("r", FindingState.MISSING, Severity.MAJOR, f"Sentence {number}.", {"images": {"missing": number}})
    return Outcome(Verdict.NON_COMPLIANT, (said,))


def versions(rulebook: str = "r@1") -> Versions:
    return Versions.of(["n@1"], ["t"], rulebook)


def study(db: Database, **columns: object) -> int:
    with db.begin() as session:
        row = Study(study_instance_uid=f"1.{session.scalar(select(func.count(Study.id)))}", **columns)
        row.series.append(Series(series_instance_uid="1"))
        session.add(row)
        session.flush()
        return row.id


def test_writers_at_once_leave_one_standing_verdict(any_db: Database) -> None:
    of = study(any_db)

    def write(number: int) -> None:
        for again in range(5):
            with any_db.begin() as session:
                verdicts.lock(session, of)
                verdicts.record(session, of, None, outcome(10 * number + again), versions())

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    with any_db.read() as session:
        assert session.scalar(select(func.count(VerdictRecord.id))) == 20
        standing = select(VerdictRecord).where(VerdictRecord.superseded_at.is_(None))
        assert len(session.scalars(standing).all()) == 1


def test_the_same_said_again_is_not_written(any_db: Database) -> None:
    of = study(any_db)
    with any_db.begin() as session:
        assert verdicts.record(session, of, None, outcome(1), versions())
        assert not verdicts.record(session, of, None, outcome(1), versions())
        assert verdicts.record(session, of, None, outcome(2), versions())
        assert verdicts.record(session, of, None, outcome(2), versions("r@2"))
        assert session.scalar(select(func.count(Finding.id))) == 3
        found = verdicts.standing(session, of)
        assert found is not None and found.rulebook == "r@2"
        assert found.findings[0].evidence == {"images": {"missing": 2}}


def test_many_at_once_keep_their_findings_apart(any_db: Database) -> None:
    studies = [study(any_db) for _ in range(30)]
    with any_db.begin() as session:
        judged = [Judged(of, None, outcome(of), versions()) for of in studies]
        assert verdicts.record_all(session, judged) == judged
        assert verdicts.record_all(session, judged) == []
        assert verdicts.record_all(session, []) == []
    with any_db.read() as session:
        for of in studies:
            found = verdicts.standing(session, of)
            assert found is not None
            assert [finding.sentence for finding in found.findings] == [f"Sentence {of}."]


def test_studies_that_are_due(any_db: Database) -> None:
    past, later = now() - timedelta(seconds=5), now() + timedelta(hours=1)
    waiting, busy = study(any_db, settles_at=past), study(any_db, settles_at=past)
    study(any_db, settles_at=later)
    study(any_db, settles_at=past, settled=True)
    with any_db.begin() as session:
        series = session.scalar(select(Series.id).where(Series.study_id == busy))
        image = Instance(
            study_id=busy, series_id=series, sop_instance_uid="1", sop_class_uid="1", transfer_syntax_uid="1",
            sha256="0", size=1, archive_key="k",
        )  # fmt: skip
        session.add(Analysis(instance=image, state=AnalysisState.QUEUED))
        session.flush()
        assert [study_id for _, study_id in verdicts.due(session)] == [waiting]
        session.query(Analysis).update({"superseded": True})
        assert [study_id for _, study_id in verdicts.due(session)] == [waiting, busy]
        assert [study_id for _, study_id in verdicts.due(session, limit=1)] == [waiting]


def test_several_networks_share_a_name_that_fits() -> None:
    both = Versions.of(["a" * 96, "b" * 96], ["1", "2"], "r")
    assert len(both.network) <= 96 and len(both.thresholds) <= 16
    assert both == Versions.of(["a" * 96, "b" * 96], ["1", "2"], "r")
    assert both != Versions.of(["a" * 96, "c" * 96], ["1", "2"], "r")
    assert Versions.of([], [], "r").network == ""
