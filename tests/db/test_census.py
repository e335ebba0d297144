"""The house counted for /metrics: queue, steps, verdicts, scores and machines, as the rows have them."""

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import telemetry
from service.compliance.outcome import Verdict
from service.db import analyses, census
from service.db.session import Database
from service.db.tables import AnalysisState, Frame, Instance, PeerActivity, Series, Study, VerdictRecord, now


@pytest.fixture(autouse=True)
def clean() -> None:
    telemetry.RECENT_STEP.clear()


def _add_study(db: Database, images: int, uid: str = "1.2.3", station: str = "US01") -> list[int]:
    """Analyses of a study of that many images, queued and not claimed."""
    with db.begin() as session:
        study = Study(study_instance_uid=uid, station=station, settles_at=now() + timedelta(minutes=1))
        series = Series(study=study, series_instance_uid=f"{uid}.1")
        session.add_all([study, series])
        session.flush()
        found = []
        for number in range(images):
            instance = Instance(
                study=study,
                series_id=series.id,
                sop_instance_uid=f"{uid}.1.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{uid}{number}".ljust(64, "0"),
                size=1,
                archive_key=f"instances/{uid}{number}",
            )
            found.append(analyses.add(session, instance).id)
    return found


def _measured(db: Database) -> dict[tuple[str, ...], float]:
    """Every sample of the house: (name, label values…) → value."""
    with db.read() as session:
        census.take(session)
    families = text_string_to_metric_families(telemetry.house_exposition().decode())
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_empty_house_is_all_zero(db: Database) -> None:
    found = _measured(db)
    for gauge in ("in_flight", "queued", "oldest_queued_seconds", "quarantined", "oldest_unjudged_seconds"):
        assert found[f"sonomark_{gauge}",] == 0


def test_the_queue_is_counted_by_state(db: Database) -> None:
    _add_study(db, 5)
    with db.begin() as session:
        first, second, *_ = analyses.claim(session, 3, lease_s=60)
        analyses.finish(session, first, milliseconds={"restore": 40.0})
        analyses.quarantine(session, second, "the pixels are damaged", "ask for the image again")
    found = _measured(db)
    assert found["sonomark_queued",] == 2
    assert found["sonomark_in_flight",] == 3
    assert found["sonomark_quarantined",] == 1
    assert found["sonomark_recent_analyses", "done"] == 1
    assert found["sonomark_recent_analyses", "quarantined"] == 1
    assert found["sonomark_oldest_in_flight_seconds",] >= found["sonomark_oldest_queued_seconds",] >= 0


def test_a_lease_that_nobody_took_back_is_overdue(db: Database) -> None:
    _add_study(db, 1)
    with db.begin() as session:
        analyses.claim(session, 1, lease_s=-5)
    assert _measured(db)["sonomark_overdue_leases",] == 1


def test_steps_have_their_quantiles(db: Database) -> None:
    _add_study(db, 20)
    with db.begin() as session:
        for number, held in enumerate(analyses.claim(session, 20, lease_s=60), start=1):
            analyses.finish(session, held, milliseconds={"restore": number * 100.0})
    found = _measured(db)
    assert found["sonomark_recent_step_seconds", "0.5", "restore"] == pytest.approx(1.05)
    assert found["sonomark_recent_step_seconds", "0.95", "restore"] == pytest.approx(1.905)
    assert ("sonomark_recent_step_seconds", "0.95", "receive_to_verdict") in found


def test_the_mean_score_is_per_station_and_leaves_self_tests_out(db: Database) -> None:
    scores = {"US01": [0.2, 0.4], "US02": [0.9], "TEST": [0.0]}
    for number, (station, values) in enumerate(scores.items()):
        ids = _add_study(db, len(values), uid=f"1.2.{number + 4}", station=station)
        with db.begin() as session:
            held = analyses.claim(session, len(values), lease_s=60)
            for claim, value in zip(held, values, strict=True):
                session.add(
                    Frame(analysis_id=claim.analysis_id, number=1, rows=8, columns=8, scores={"caliper": value})
                )
                analyses.finish(session, claim)
            if station == "TEST":
                session.get_one(Instance, ids[0]).study.synthetic = True
    found = _measured(db)
    assert found["sonomark_mean_score", "caliper", "US01"] == pytest.approx(0.3)
    assert found["sonomark_mean_score", "caliper", "US02"] == pytest.approx(0.9)
    assert found["sonomark_scored_frames", "US01"] == 2
    assert not [key for key in found if "TEST" in key]


def test_verdicts_on_studies_are_counted_and_overdue_ones_seen(db: Database) -> None:
    _add_study(db, 1)
    with db.begin() as session:
        study = session.get_one(Study, 1)
        study.settles_at = now() - timedelta(seconds=90)
        session.add(
            VerdictRecord(study_id=1, verdict=Verdict.NON_COMPLIANT, rulebook="default@1", code_version="0.1.0")
        )
    found = _measured(db)
    assert found["sonomark_recent_verdicts", "non_compliant"] == 1
    assert found["sonomark_oldest_unjudged_seconds",] == pytest.approx(90, abs=30)


def test_a_peer_is_one_series_wherever_it_calls_from(db: Database) -> None:
    with db.begin() as session:
        session.add(
            PeerActivity(ae_title="US01", address="10.0.0.1", refused=2, last_seen_at=now() - timedelta(days=1))
        )
        session.add(PeerActivity(ae_title="US01", address="10.0.0.2", refused=3))
    found = _measured(db)
    assert found["sonomark_peer_refused", "US01"] == 5
    assert found["sonomark_peer_last_seen_timestamp_seconds", "US01"] == pytest.approx(now().timestamp(), abs=60)


def test_gone_series_disappear(db: Database) -> None:
    _add_study(db, 1)
    with db.begin() as session:
        (held,) = analyses.claim(session, 1, lease_s=60)
        analyses.finish(session, held, milliseconds={"restore": 40.0})
    assert ("sonomark_recent_step_seconds", "0.5", "restore") in _measured(db)
    with db.begin() as session:
        held_row = session.get_one(Instance, 1).analyses[-1]
        assert held_row.state is AnalysisState.DONE
        held_row.finished_at = now() - timedelta(hours=2)
    assert ("sonomark_recent_step_seconds", "0.5", "restore") not in _measured(db)
