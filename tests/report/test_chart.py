"""A report's rates as columns for a chart."""

from datetime import UTC, datetime

from service.db.session import Database
from service.db.tables import Study, Verdict, VerdictRecord
from service.report.chart import chart
from service.report.compliance import report
from service.report.statistics import p_limits

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)


def fill(db: Database) -> None:
    """Ninety good studies of A in January and ten in February; B's thirty, two of three bad, in February."""
    with db.begin() as session:
        for number in range(130):
            month = 1 if number < 90 else 2
            received = datetime(2026, month, 3, tzinfo=UTC)
            operator = "A" if number < 100 else "B"
            study = Study(study_instance_uid=f"1.{number}", operator=operator, first_received_at=received)
            session.add(study)
            session.flush()
            verdict = Verdict.NON_COMPLIANT if operator == "B" and number % 3 else Verdict.COMPLIANT
            record = VerdictRecord(
                study_id=study.id, verdict=verdict, rulebook="r", code_version="1", created_at=received
            )
            session.add(record)


def test_a_p_chart_over_time(db: Database) -> None:
    fill(db)
    with db.read() as session:
        told = chart(report(session, ["month"], START, END, END))
    assert told["kind"] == "p" and told["curve"] is None
    assert told["x"] == [1767225600, 1769904000]  # the first of each month, seconds since 1970
    assert told["n"] == [90, 40] and told["numerator"] == [90, 20]
    assert told["centre"] == 110 / 130
    assert [told["limit_low"][1], told["limit_high"][1]] == list(p_limits(110 / 130, 40) or ())
    assert told["signal"] == ["above", "below"]
    assert len({len(told[name]) for name in ("groups", "x", "n", "rate", "signal", "small", "interval_low")}) == 1


def test_a_funnel_by_size(db: Database) -> None:
    fill(db)
    with db.read() as session:
        told = chart(report(session, ["operator"], START, END, END))
    assert told["kind"] == "funnel"
    assert told["groups"] == [{"operator": "B"}, {"operator": "A"}]
    assert told["x"] == [30, 100] and told["signal"] == ["below", "above"] and told["small"] == [True, False]
    curve = told["curve"]
    assert curve["n"][-1] == 105 and len(curve["limit_low"]) == len(curve["n"]) == len(curve["limit_high"])
    assert curve["limit_low"] == sorted(curve["limit_low"])


def test_nothing_to_draw(db: Database) -> None:
    with db.read() as session:
        assert chart(report(session, ["week"], START, END, END))["x"] == []
        assert chart(report(session, ["station"], START, END, END))["curve"]["n"] == []
