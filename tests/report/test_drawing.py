"""What is drawn on paper: every group once, those outside their limits as squares with their names."""

from datetime import UTC, datetime, timedelta

from reportlab.graphics.shapes import Circle, Drawing, Rect, String

from service.db.session import Database
from service.db.tables import Study, Verdict, VerdictRecord
from service.report.compliance import Report, report
from service.report.drawing import MOST_TIMES, SIGNAL, drawing
from service.report.files import as_file

START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)


def reported(db: Database, by: str) -> Report:
    """Seventy weeks; eighty operators of ten studies who miss one, and one who misses nine."""
    with db.begin() as session:
        for number in range(810):
            operator, place = divmod(number, 10)
            missed = place < (9 if operator == 0 else 1)
            at = START + timedelta(days=7 * (number % 70))
            study = Study(study_instance_uid=f"1.{number}", operator=f"Operator^{operator}", first_received_at=at)
            session.add(study)
            session.flush()
            verdict = Verdict.NON_COMPLIANT if missed else Verdict.COMPLIANT
            session.add(
                VerdictRecord(study_id=study.id, verdict=verdict, rulebook="r", code_version="1", created_at=at)
            )
    with db.read() as session:
        return report(session, [by], START, END)


def points(of: Drawing) -> list[Circle | Rect]:
    return [shape for shape in of.contents if isinstance(shape, Circle) or getattr(shape, "fillColor", 0) == SIGNAL]


def texts(of: Drawing) -> list[str]:
    return [shape.text for shape in of.contents if isinstance(shape, String)]


def test_a_funnel_holds_every_group_and_names_the_outlier(db: Database) -> None:
    made = drawing(reported(db, "operator"))
    assert len(points(made)) == 81
    assert [type(each) for each in points(made)].count(Rect) == 1
    assert [text for text in texts(made) if text.startswith("OPERATOR")] == ["OPERATOR, 0"]
    assert all(0 <= each.cy <= made.height for each in points(made) if isinstance(each, Circle))


def test_over_time_the_last_ones_are_drawn_and_that_is_said(db: Database) -> None:
    found = reported(db, "week")
    assert len(found.rows) == 70
    assert len(points(drawing(found))) == MOST_TIMES
    assert texts(drawing(found))[-1] >= "2026"
    assert as_file(found, "pdf") == as_file(found, "pdf")


def test_nothing_to_draw(db: Database) -> None:
    for by in ("operator", "week"):
        with db.read() as session:
            assert points(drawing(report(session, [by], START, END))) == []
