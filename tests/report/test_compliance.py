"""The compliance report: what is counted, for whom, as of when; and the files it is written to."""

import base64
import csv
import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from service.db import reports
from service.db.behind import studies_behind
from service.db.session import Database
from service.db.tables import (
    Decision,
    Finding,
    FindingState,
    Instance,
    Review,
    Series,
    Severity,
    Study,
    User,
    Verdict,
    VerdictRecord,
)
from service.report.compliance import Report, Row, UnknownGrouping, report
from service.report.files import as_file, harmless
from service.report.pdf import sentence_of

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
END = datetime(2026, 4, 6, tzinfo=UTC)
LATER = datetime(2026, 5, 1, tzinfo=UTC)


def study(
    session: Session, verdict: Verdict | None, day: int = 0, at: timedelta = timedelta(hours=9), **columns: object
) -> Study:
    received = START + timedelta(days=day) + at
    number = session.query(Study).count() + 1
    given = {"operator": "A", "station": "US01", "description": "US BREAST", **columns}
    row = Study(study_instance_uid=f"1.{number}", first_received_at=received, verdict=verdict, **given)
    session.add(row)
    session.flush()
    if verdict is not None:
        judged(session, row, verdict, received + timedelta(minutes=1))
    return row


def judged(
    session: Session, of: Study, verdict: Verdict, at: datetime, requirements: tuple[str, ...] = ("marker",)
) -> VerdictRecord:
    for former in session.query(VerdictRecord).filter_by(study_id=of.id, superseded_at=None):
        former.superseded_at = at
    session.flush()
    record = VerdictRecord(study_id=of.id, verdict=verdict, rulebook="r", code_version="1", created_at=at)
    state = {"compliant": "met", "non_compliant": "missing", "indeterminate": "uncertain"}.get(verdict)
    for name in requirements if state else ():
        finding = Finding(requirement=name, state=FindingState(state), severity=Severity.MAJOR, sentence="s")
        record.findings.append(finding)
    session.add(record)
    session.flush()
    return record


def decide(session: Session, of: Study, decision: Decision, at: datetime) -> None:
    user = session.query(User).first() or User(name="reader")
    session.add(user)
    session.flush()
    seen = session.query(VerdictRecord.id).filter_by(study_id=of.id, superseded_at=None).scalar()
    given = {"decision": decision, "study_version": 1, "created_at": at}
    session.add(Review(study_id=of.id, user_id=user.id, verdict_id=seen, **given))
    session.flush()


def image(session: Session, of: Study, at: datetime) -> None:
    series = Series(study_id=of.id, series_instance_uid=of.study_instance_uid)
    session.add(series)
    session.flush()
    session.add(
        Instance(
            study_id=of.id,
            series_id=series.id,
            sop_instance_uid=f"{of.study_instance_uid}.9",
            sop_class_uid="1",
            transfer_syntax_uid="1",
            sha256=f"{of.id:064}",
            size=1,
            archive_key="k",
            received_at=at,
        )
    )
    session.flush()


def rows(found: Report) -> dict[str, Row]:
    return {" ".join(row.key): row for row in found.rows}


GOOD, BAD, OPEN, NOT = Verdict.COMPLIANT, Verdict.NON_COMPLIANT, Verdict.INDETERMINATE, Verdict.NOT_APPLICABLE


def test_numerator_denominator_uncertain_and_excluded(any_db: Database) -> None:
    with any_db.begin() as session:
        for verdict in (GOOD, GOOD, GOOD, BAD, OPEN, OPEN, NOT, None):
            study(session, verdict)
        study(session, BAD, operator="B")
        study(session, BAD, synthetic=True)
        study(session, BAD, day=-1)
        study(session, BAD, day=35)
        found = report(session, ["operator"], START, END, LATER)
    one = rows(found)["A"]
    assert (one.numerator, one.denominator, one.non_compliant, one.indeterminate, one.excluded) == (3, 4, 1, 2, 2)
    assert one.rate == 0.75
    assert one.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert rows(found)["B"].rate == 0.0
    assert (found.total.numerator, found.total.denominator) == (3, 5)


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        (["day"], {"2026-03-02", "2026-03-08", "2026-03-09", "2026-04-05"}),
        (["week"], {"2026-03-02", "2026-03-09", "2026-03-30"}),
        (["month"], {"2026-03", "2026-04"}),
        (["station"], {"US01"}),
        (["institution"], {""}),
        (["exam"], {"US BREAST"}),
        (["requirement"], {"marker"}),
        (["requirement", "month"], {"marker 2026-03", "marker 2026-04"}),
    ],
)
def test_groups(any_db: Database, by: list[str], keys: set[str]) -> None:
    with any_db.begin() as session:
        for day in (0, 6, 7, 34):
            study(session, GOOD, day=day, at=timedelta(hours=23, minutes=59))
        found = report(session, by, START, END, LATER)
    assert set(rows(found)) == keys
    assert found.total.denominator == 4


@pytest.mark.parametrize(
    ("zone", "keys"),
    [
        ("UTC", ["2026-03-31", "2026-03-31", "2026-04-01"]),
        ("Europe/Berlin", ["2026-03-31", "2026-04-01", "2026-04-01"]),
        ("America/New_York", ["2026-03-31", "2026-03-31", "2026-03-31"]),
    ],
)
def test_days_weeks_and_months_are_the_hospitals(
    any_db: Database, hospital_in: Callable[[str], None], zone: str, keys: list[str]
) -> None:
    hospital_in(zone)
    came = [datetime(2026, 3, 31, 21, 30), datetime(2026, 3, 31, 22, 30), datetime(2026, 4, 1, 3, 30)]
    with any_db.begin() as session:
        for moment in came:
            study(session, GOOD, at=moment.replace(tzinfo=UTC) - START)
        for by, length in (("day", 10), ("month", 7)):
            found = rows(report(session, [by], START, END, LATER))
            assert {key: row.numerator for key, row in found.items()} == Counter(key[:length] for key in keys)
            for key, row in found.items():
                behind = studies_behind(session, (by,), (key,), reports.Period(START, END, LATER))
                assert len(behind) == row.numerator, "the studies behind a day are those that it counts"


def test_a_decision_outranks_the_verdict(any_db: Database) -> None:
    at = START + timedelta(days=1)
    with any_db.begin() as session:
        overridden, confirmed, undone, retaken = (study(session, verdict) for verdict in (BAD, OPEN, BAD, BAD))
        decide(session, overridden, Decision.OVERRIDE, at)
        decide(session, confirmed, Decision.CONFIRM, at)
        decide(session, undone, Decision.OVERRIDE, at)
        decide(session, undone, Decision.WITHDRAW, at + timedelta(hours=1))
        decide(session, retaken, Decision.RETAKE, at)
        total = report(session, ["station"], START, END, LATER).total
        before = report(session, ["station"], START, END, at - timedelta(minutes=1)).total
        between = report(session, ["station"], START, END, at + timedelta(minutes=1)).total
        by_requirement = report(session, ["requirement"], START, END, LATER).total
    assert (total.numerator, total.non_compliant, total.indeterminate) == (1, 3, 0)
    assert (total.overridden, total.flagged_reviewed) == (1, 3)
    assert total.override_rate == pytest.approx(1 / 3)
    assert (before.numerator, before.non_compliant, before.indeterminate) == (0, 3, 1)
    assert between.numerator == 2
    assert (by_requirement.numerator, by_requirement.non_compliant) == (1, 3)


@pytest.mark.parametrize(
    ("seen", "decision", "then", "lacking"),
    [
        (BAD, Decision.RETAKE, GOOD, ("marker",)),  # the image was taken again
        (BAD, Decision.OVERRIDE, GOOD, ("marker",)),  # the rule book was corrected
        (OPEN, Decision.OVERRIDE, BAD, ("marker",)),
        (GOOD, Decision.CONFIRM, BAD, ("marker",)),
        (BAD, Decision.OVERRIDE, BAD, ("marker", "calipers")),
    ],
)
def test_a_decision_is_about_the_verdict_that_its_reviewer_saw(
    any_db: Database, seen: Verdict, decision: Decision, then: Verdict, lacking: tuple[str, ...]
) -> None:
    at = START + timedelta(days=1)
    with any_db.begin() as session:
        decided, plain = study(session, seen), study(session, seen, operator="B")
        decide(session, decided, decision, at)
        first = report(session, ["station"], START, END, at + timedelta(hours=1)).as_json()
        for each in (decided, plain):
            judged(session, each, then, at + timedelta(hours=2), lacking)
        found = rows(report(session, ["operator"], START, END, LATER))
        assert (found["A"].numerator, found["A"].non_compliant) == (found["B"].numerator, found["B"].non_compliant)
        assert found["A"].flagged_reviewed == found["A"].overridden == 0
        behind = studies_behind(session, ["operator"], ("A",), reports.Period(START, END, LATER))
        assert [(each.decision, each.outcome) for each in behind] == [(None, then)]
        assert report(session, ["station"], START, END, at + timedelta(hours=1)).as_json() == first
        decide(session, decided, Decision.RETAKE, at + timedelta(hours=3))
        assert report(session, ["operator"], START, END, LATER).total.non_compliant == 1 + (then is BAD)


def test_a_decision_stands_while_nothing_more_is_lacking(any_db: Database) -> None:
    at = START + timedelta(days=1)
    with any_db.begin() as session:
        decided = study(session, None)
        judged(session, decided, BAD, at, ("marker", "calipers"))
        decide(session, decided, Decision.OVERRIDE, at)
        judged(session, decided, BAD, at + timedelta(hours=2), ("marker",))
        record = judged(session, decided, BAD, at + timedelta(hours=3), ("marker", "hint"))
        record.findings[1].severity = Severity.INFO
        session.flush()
        assert report(session, ["operator"], START, END, LATER).total.numerator == 1


def test_a_report_as_of_a_day_stays_what_it_was(any_db: Database) -> None:
    then = START + timedelta(days=2)
    with any_db.begin() as session:
        late = study(session, BAD)
        study(session, GOOD)
        first = report(session, ["operator"], START, END, then).as_json()
        judged(session, late, GOOD, then + timedelta(days=1))
        decide(session, late, Decision.CONFIRM, then + timedelta(days=2))
        study(session, BAD, day=5)
        assert report(session, ["operator"], START, END, then).as_json() == first
        assert report(session, ["operator"], START, END, LATER).total.numerator == 2


def test_minutes_to_correction(any_db: Database) -> None:
    with any_db.begin() as session:
        for minutes in (4, 6, 60):
            corrected = study(session, BAD)
            image(session, corrected, START + timedelta(hours=9, minutes=minutes))
            judged(session, corrected, GOOD, START + timedelta(hours=9, minutes=1 + minutes))
        study(session, BAD)
        row = report(session, ["operator"], START, END, LATER).rows[0]
    assert (row.minutes_to_correction, row.corrected) == (6.0, 3)


def test_who_stands_out(any_db: Database) -> None:
    with any_db.begin() as session:
        for operator, good, bad in (("A", 60, 2), ("B", 60, 2), ("C", 20, 20), ("D", 2, 0)):
            for _ in range(good):
                study(session, GOOD, operator=operator)
            for _ in range(bad):
                study(session, BAD, operator=operator)
        found = rows(report(session, ["operator"], START, END, LATER))
    assert [found[name].signal for name in "ABCD"] == [None, None, "below", None]
    assert [found[name].small for name in "ABCD"] == [False, False, False, True]


def test_a_changed_rule_book_corrects_no_study(any_db: Database) -> None:
    with any_db.begin() as session:
        judged(session, study(session, BAD), GOOD, START + timedelta(days=3))
        assert report(session, ["operator"], START, END, LATER).rows[0].corrected == 0


def test_the_studies_behind_each_number_are_as_many_as_it_says(any_db: Database) -> None:
    with any_db.begin() as session:
        study(session, BAD, operator="B")
        for verdict in (GOOD, BAD, OPEN, NOT, None):
            study(session, verdict)
        decide(session, study(session, BAD), Decision.OVERRIDE, START + timedelta(days=1))
        decide(session, study(session, GOOD), Decision.OVERRIDE, START + timedelta(days=1))
        study(session, BAD, day=9)
        period = reports.Period(START, END, LATER)
        for by in (["operator"], ["requirement", "week"], ["month"], ["day"], ["exam", "institution"]):
            for row in report(session, by, START, END, LATER).rows:
                for counted, number in (
                    ("compliant", row.numerator),
                    ("non_compliant", row.non_compliant),
                    ("indeterminate", row.indeterminate),
                    ("excluded", row.excluded),
                    ("flagged_reviewed", row.flagged_reviewed),
                    ("overridden", row.overridden),
                    ("corrected", row.corrected),
                ):
                    assert len(studies_behind(session, by, row.key, period, counted)) == number, (by, row.key, counted)


def test_the_studies_behind_a_number_newest_first_a_page_at_a_time(any_db: Database) -> None:
    with any_db.begin() as session:
        for day in range(5):
            study(session, BAD, day=day)
        period = reports.Period(START, END, LATER)
        first = studies_behind(session, ["operator"], ("A",), period, limit=3)
        rest = studies_behind(session, ["operator"], ("A",), period, before=first[-1].study_id)
    assert [each.study_instance_uid for each in first + rest] == ["1.5", "1.4", "1.3", "1.2", "1.1"]
    assert first[0].exam == "US BREAST" and first[0].outcome is BAD


def test_an_override_of_a_pass_is_a_lack_that_was_missed(any_db: Database) -> None:
    with any_db.begin() as session:
        decide(session, study(session, GOOD), Decision.OVERRIDE, START + timedelta(days=1))
        decide(session, study(session, GOOD), Decision.CONFIRM, START + timedelta(days=1))
        total = report(session, ["station"], START, END, LATER).total
    assert (total.numerator, total.non_compliant, total.flagged_reviewed, total.overridden) == (1, 1, 0, 0)


def test_what_it_cannot_group_by(any_db: Database) -> None:
    with any_db.read() as session:
        for by in (["operator", "shoe_size"], []):
            with pytest.raises(UnknownGrouping):
                report(session, by, START, END)


def test_by_requirement_the_whole_counts_judgements_and_says_so(any_db: Database) -> None:
    """Two studies judged by two requirements each are four judgements."""
    with any_db.begin() as session:
        for verdict in (GOOD, BAD):
            of = study(session, verdict)
            record = session.query(VerdictRecord).filter_by(study_id=of.id).one()
            also_met = {"state": FindingState.MET, "severity": Severity.MINOR, "sentence": "s"}
            session.add(Finding(verdict_id=record.id, requirement="caliper", **also_met))
        session.flush()
        by_requirement = report(session, ["requirement", "station"], START, END, LATER)
        by_station = report(session, ["station"], START, END, LATER)
    assert (by_requirement.counted, by_requirement.total.numerator, by_requirement.total.denominator) == (
        "judgements", 3, 4,
    )  # fmt: skip
    assert {row.denominator for row in by_requirement.rows} == {2}, "rows count studies"
    assert (by_station.counted, by_station.total.numerator, by_station.total.denominator) == ("studies", 1, 2)
    assert by_requirement.as_json()["counted"] == "judgements"
    assert by_requirement.studies == by_station.total == by_station.studies
    assert "50.0 % of the studies compliant (9.5–90.5), n 2" in sentence_of(by_requirement)
    assert "75.0 % of the judgements met" in sentence_of(by_requirement)
    assert "judgement" not in sentence_of(by_station)


def words_of(paper: bytes) -> list[str]:
    """Every piece of text that a PDF of reportlab sets, in its order."""
    streams = [each.strip().removesuffix(b"~>") for each in re.findall(rb"stream\r?\n(.*?)endstream", paper, re.DOTALL)]
    pages = b"\n".join(zlib.decompress(base64.a85decode(each)) for each in streams)
    pieces = re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", pages)
    return [re.sub(r"\\([()\\])", r"\1", piece.decode("latin-1")) for piece in pieces]


class TestFiles:
    EVIL = '=HYPERLINK("http://x","y")'

    @pytest.fixture
    def found(self, db: Database) -> Report:
        with db.begin() as session:
            for operator in ("Meyer^Eva", self.EVIL, "王^小明"):
                study(session, GOOD, operator=operator)
                study(session, BAD, operator=operator, day=8)
            return report(session, ["operator", "week"], START, END, LATER)

    def test_json(self, found: Report) -> None:
        told = json.loads(as_file(found, "json"))
        assert told["total"]["rate"] == 0.5
        assert told["rows"][0]["group"] == {"operator": self.EVIL, "week": "2026-03-02"}

    def test_csv_holds_no_formula(self, found: Report) -> None:
        text = as_file(found, "csv").decode("utf-8-sig")
        lines = list(csv.DictReader(io.StringIO(text)))
        assert lines[0]["operator"] == f"'{self.EVIL}"
        assert {line["denominator"] for line in lines} == {"1"}
        assert len(lines) == 6

    def test_xlsx_holds_no_formula(self, found: Report) -> None:
        with zipfile.ZipFile(io.BytesIO(as_file(found, "xlsx"))) as book:
            sheet = book.read("xl/worksheets/sheet1.xml").decode()
        assert "<f>" not in sheet
        assert "HYPERLINK" in sheet and "王" in sheet

    def test_xlsx_shows_minutes_as_minutes_and_shares_as_shares(self, db: Database) -> None:
        with db.begin() as session:
            corrected = study(session, BAD)
            image(session, corrected, START + timedelta(hours=9, minutes=1, seconds=15))
            judged(session, corrected, GOOD, START + timedelta(hours=9, minutes=1, seconds=30))
            told = report(session, ["operator"], START, END, LATER)
        assert told.rows[0].minutes_to_correction == 0.5
        with zipfile.ZipFile(io.BytesIO(as_file(told, "xlsx"))) as book:
            sheet = book.read("xl/worksheets/sheet1.xml").decode()
        minutes, rate = (re.search(f'<c r="{cell}2"([^>]*)><v>([^<]*)<', sheet) for cell in "QD")
        assert minutes is not None and (minutes[1], minutes[2]) == ("", "0.5")
        assert rate is not None and 's="' in rate[1] and rate[2] == "1"

    def test_pdf(self, found: Report) -> None:
        paper = as_file(found, "pdf")
        assert paper.startswith(b"%PDF-")
        assert paper == as_file(found, "pdf")

    def test_paper_speaks_of_requirements_as_the_page_does(self, db: Database) -> None:
        """A name that two requirements share has the id beside, one that stands alone has not."""
        with db.begin() as session:
            for id_ in ("body-marker", "doppler-color-box", "doppler-colour-box"):
                met = {"state": FindingState.MET, "severity": Severity.MINOR, "sentence": "s"}
                record = session.query(VerdictRecord).filter_by(study_id=study(session, GOOD).id).one()
                session.add(Finding(verdict_id=record.id, requirement=id_, **met))
            session.flush()
            words = words_of(as_file(report(session, ["requirement"], START, END, LATER), "pdf"))
        assert {word for word in words if "ody" in word or "oppler" in word} == {
            "Body marker", "Doppler colour box (doppler-color-box)", "Doppler colour box (doppler-colour-box)",
        }  # fmt: skip

    @pytest.mark.parametrize("kind", ["json", "csv", "xlsx", "pdf"])
    def test_an_empty_report_is_a_file_too(self, db: Database, kind: str) -> None:
        with db.read() as session:
            assert as_file(report(session, ["day"], START, END, LATER), kind)

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\uff1d1"])
    def test_harmless(self, text: str) -> None:
        assert harmless(text) == f"'{text}"
        assert harmless("Meyer^Eva") == "Meyer^Eva"
