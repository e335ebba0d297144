"""What a notification tells."""

from collections.abc import Callable
from datetime import UTC, datetime

from service.db.tables import Study, VerdictRecord
from service.deliver import notice


def test_a_mail_tells_time_by_the_hospitals_clock(hospital_in: Callable[[str], None]) -> None:
    hospital_in("Asia/Kolkata")
    study = Study(study_instance_uid="1.2", station="US-03", first_received_at=datetime(2026, 3, 2, 9, 15, tzinfo=UTC))
    _, text = notice.as_text(study, VerdictRecord(findings=[]), "https://house.example/")
    assert "A study from US-03, received at 14:45, lacks" in text and "https://house.example/studies/1.2" in text


def test_a_station_of_several_lines_is_one_in_a_subject() -> None:
    """A header may hold what the standard forbids, and a mail whose subject ends a line can be sent by nobody."""
    study = Study(study_instance_uid="1.2", station="US\r\n03", first_received_at=datetime(2026, 3, 2, tzinfo=UTC))
    subject, _ = notice.as_text(study, VerdictRecord(findings=[]), "")
    assert subject == "Sonomark: 0 missing on a study from US 03"
