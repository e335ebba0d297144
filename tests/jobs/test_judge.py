"""From facts in the database to verdicts in the database."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.db import double_reads, facts, remarks, rulebooks, verdicts
from service.db.analyses import Claim, Seen, keep_frames
from service.db.session import Database
from service.db.tables import (
    Analysis,
    AnalysisState,
    Annotation,
    Decision,
    Finding,
    Frame,
    Instance,
    RulebookVersion,
    Series,
    Study,
    Verdict,
    VerdictRecord,
    now,
)
from service.dicom.remarks import Remark
from service.errors import NotFound
from service.jobs.judge import judge_instance, judge_study
from service.settings import Settings, settings

BANDS = {"body_marker": [0.3, 0.6], "caliper": [0.3, 0.6], "color_box": [0.3, 0.6]}


def study(session: Session, description: str = "US BREAST", settled_s: float = 1.0) -> Study:
    row = Study(
        study_instance_uid=f"1.2.{len(session.scalars(select(Study.id)).all())}",
        description=description,
        settles_at=now() - timedelta(seconds=settled_s),
    )
    row.series.append(Series(series_instance_uid="1.3", modality="US"))
    session.add(row)
    session.flush()
    return row


def image(
    session: Session,
    of: Study,
    number: int,
    body_marker: float = 0.9,
    state: AnalysisState = AnalysisState.DONE,
    **columns: object,
) -> Instance:
    values: dict[str, object] = {
        "sop_instance_uid": f"{of.study_instance_uid}.{number}",
        "sha256": f"{number:064d}",
        "number_of_frames": 1,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.6.1",
        **columns,
    }
    row = Instance(
        study_id=of.id,
        series_id=of.series[0].id,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        size=1,
        archive_key=f"instances/{number}",
        instance_number=number,
        **values,
    )
    session.add(row)
    analysis = Analysis(instance=row, state=state, network="n@1", thresholds="t1", bands=BANDS)
    if state is AnalysisState.QUARANTINED:
        analysis.reason, analysis.cure = "It cannot be decoded.", "Send it uncompressed."
    if state is AnalysisState.DONE:
        scores = {"body_marker": body_marker, "caliper": 0.0, "color_box": 0.0}
        analysis.frames.append(Frame(number=1, rows=9, columns=9, scores=scores))
    session.add(analysis)
    session.flush()
    return row


def history(session: Session, of: Study) -> list[VerdictRecord]:
    query = select(VerdictRecord).where(VerdictRecord.study_id == of.id, VerdictRecord.instance_id.is_(None))
    return list(session.scalars(query.order_by(VerdictRecord.id)))


def test_an_image_and_its_settled_study(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        shown = image(session, breast, 1, body_marker=0.1)
        assert judge_instance(session, shown.id) is Verdict.NON_COMPLIANT
    with db.read() as session:
        of_image = verdicts.standing(session, breast.id, shown.id)
        of_study = verdicts.standing(session, breast.id)
        assert of_image is not None and of_study is not None
        assert of_image.network == of_study.network == "n@1"
        assert of_image.thresholds == "t1"
        assert of_image.rulebook == of_study.rulebook == rulebooks.of_settings().label
        assert of_study.findings[0].sentence.startswith("Body marker is missing on image 1, frame 1")
        assert of_study.findings[0].evidence["frames"][0]["sop_instance_uid"] == shown.sop_instance_uid
        row = session.get_one(Study, breast.id)
        assert (row.verdict, row.settled, row.version) == (Verdict.NON_COMPLIANT, True, 2)


def test_judging_again_changes_nothing(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        shown = image(session, breast, 1)
        judge_instance(session, shown.id)
    with db.begin() as session:
        judge_instance(session, shown.id)
        judge_study(session, breast.id)
        assert len(session.scalars(select(VerdictRecord)).all()) == 2
        assert session.get_one(Study, breast.id).version == 2


def test_a_study_that_has_not_settled_waits(db: Database) -> None:
    with db.begin() as session:
        breast = study(session, settled_s=-60)
        shown = image(session, breast, 1)
        assert judge_instance(session, shown.id) is Verdict.COMPLIANT
        assert judge_study(session, breast.id) is None
        assert history(session, breast) == []
        assert verdicts.due(session) == []


def test_a_study_waits_for_its_last_image_and_that_one_judges_it(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        image(session, breast, 1)
        last = image(session, breast, 2, state=AnalysisState.CLAIMED)
        assert judge_study(session, breast.id) is None
        assert verdicts.due(session) == []
    with db.begin() as session:
        session.execute(update(Analysis).where(Analysis.instance_id == last.id).values(state=AnalysisState.QUARANTINED))
        assert judge_instance(session, last.id) is Verdict.INDETERMINATE
        assert session.get_one(Study, breast.id).verdict is Verdict.INDETERMINATE


def test_a_quarantined_image_says_why(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        image(session, breast, 1)
        image(session, breast, 2, state=AnalysisState.QUARANTINED)
        assert [study_id for _, study_id in verdicts.due(session)] == [breast.id]
        judge_study(session, breast.id)
        (record,) = history(session, breast)
        assert record.findings[0].sentence == (
            "Image 2 could not be assessed, so that no verdict rests on it. It cannot be decoded. Send it uncompressed."
        )


def test_a_late_image_clears_the_verdict_and_the_old_one_is_kept(db: Database) -> None:
    with db.begin() as session:
        thyroid = study(session, "ECHO LESION")
        judge_instance(session, image(session, thyroid, 1).id)
        assert thyroid.verdict is Verdict.NON_COMPLIANT  # no calipers
        thyroid.settled = False
        thyroid.decision = Decision.CONFIRM
        late = image(session, thyroid, 2)
        session.execute(
            update(Frame)
            .where(Frame.analysis_id.in_(select(Analysis.id).where(Analysis.instance_id == late.id)))
            .values(scores={"caliper": 1.0})
        )
        judge_instance(session, late.id)
        session.refresh(thyroid)
        assert (thyroid.verdict, thyroid.settled, thyroid.version) == (Verdict.COMPLIANT, True, 3)
        assert thyroid.decision is None  # it was about the verdict that no longer stands
        first, second = history(session, thyroid)
        assert first.superseded_at is not None and second.superseded_at is None


def test_two_versions_of_one_instance_go_to_a_person(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        image(session, breast, 1, body_marker=0.0, conflict=True, received_at=now() - timedelta(seconds=9))
        image(session, breast, 1, sha256="f" * 64, conflict=True)
        assert judge_study(session, breast.id) is Verdict.INDETERMINATE
        (record,) = history(session, breast)
        assert [finding.requirement for finding in record.findings] == ["one-version", "breast-body-marker"]


def test_the_newest_analysis_stands(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        shown = image(session, breast, 1, body_marker=0.0)
        session.execute(update(Analysis).values(superseded=True))
        analysis = Analysis(instance=shown, state=AnalysisState.DONE, network="n@2", bands=BANDS)
        analysis.frames.append(Frame(number=1, rows=9, columns=9, scores={"body_marker": 1.0}))
        session.add(analysis)
        session.flush()
        assert judge_instance(session, shown.id) is Verdict.COMPLIANT
        assert history(session, breast)[0].network == "n@2"


def test_a_study_without_a_date_is_of_the_hospitals_day_on_which_it_came(
    db: Database, hospital_in: Callable[[str], None]
) -> None:
    hospital_in("Europe/Berlin")
    with db.begin() as session:
        night = study(session)
        night.first_received_at = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
        image(session, night, 1)
        (shown,) = facts.of_studies(session, [night.id])[night.id].facts.instances
    assert shown.study_date == date(2026, 2, 1)


def test_what_a_person_drew_is_a_fact(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        shown = image(session, breast, 1, body_marker=0.0)
        drawn = session.scalars(select(Frame)).one()
        mark = Annotation(kind="body_marker", score=1.0, x=1, y=2, width=3, height=4, pixels=12, source="person")
        drawn.annotations.append(mark)
        session.flush()
        assert judge_instance(session, shown.id) is Verdict.COMPLIANT
        record = facts.of_studies(session, [breast.id])[breast.id]
        assert record.facts.instances[0].frames[0].annotations[0].box == (1, 2, 3, 4)


def test_several_networks_share_one_name_that_fits_the_column(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        image(session, breast, 1)
        image(session, breast, 2)
        for row in session.scalars(select(Analysis)):
            row.network, row.thresholds = f"{'n' * 80}@{row.id}", f"{row.id:016d}"
        session.flush()
        judge_study(session, breast.id)
        (record,) = history(session, breast)
        assert record.network.startswith("2:") and len(record.thresholds) <= 16


def test_a_changed_rule_book_is_a_new_verdict_and_both_versions_are_kept(
    db: Database, house: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    rule = '[[requirement]]\nid = "r"\ntitle = "R"\nexpect = { annotation = "body_marker" }\n'
    monkeypatch.setenv("SONOMARK_RULEBOOK", str(file))
    settings.cache_clear()
    with db.begin() as session:
        breast = study(session)
        image(session, breast, 1)
        file.write_text(f'name = "mine"\nversion = "1"\n{rule}')
        judge_study(session, breast.id)
        file.write_text(f'name = "mine"\nversion = "22"\n{rule}')
        judge_study(session, breast.id)
        labels = [record.rulebook.split("+")[0] for record in history(session, breast)]
        assert labels == ["mine@1", "mine@22"]
        assert [row.version for row in session.scalars(select(RulebookVersion))] == ["1", "22"]


def test_what_does_not_exist(db: Database) -> None:
    with db.begin() as session:
        with pytest.raises(NotFound):
            judge_instance(session, 99)
        with pytest.raises(NotFound):
            judge_study(session, 99)


MEASURED = """
name = "mine"
version = "1"
[[requirement]]
id = "measured"
title = "Measured and seen"
agree = [{ measurements = 1 }, { annotation = "caliper", found_in = "pixels" }]
[[requirement]]
id = "calipers"
title = "Calipers"
expect = { annotation = "caliper" }
"""


def test_what_a_report_measures_counts_and_is_held_against_the_pixels(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(MEASURED)
    monkeypatch.setenv("SONOMARK_RULEBOOK", str(tmp_path / "mine.toml"))
    settings.cache_clear()
    with db.begin() as session:
        breast = study(session)
        shown = image(session, breast, 1)
        report = image(session, breast, 2, number_of_frames=0)
        other = Remark("sr", "9.9", "caliper", None, None, "Length", 3.0, "mm")
        of_image = Remark("sr", shown.sop_instance_uid, "caliper", None, (1, 1, 5, 5), "Length", 21.0, "mm")
        remarks.keep(session, report.id, [of_image, other])
        remarks.keep(session, report.id, [of_image])  # a second run replaces the first
        assert judge_instance(session, report.id) is Verdict.NOT_APPLICABLE
        assert judge_study(session, breast.id) is Verdict.INDETERMINATE
        found = states(session, breast)
    assert found == {"measured": "uncertain", "calipers": "met"}


@pytest.fixture
def measuring(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule book that asks every image for a measurement in a report."""
    rule = '[[requirement]]\nid = "measured"\ntitle = "Measured"\nexpect = { measurements = 1 }\n'
    (tmp_path / "mine.toml").write_text(f'name = "mine"\nversion = "1"\n{rule}')
    monkeypatch.setenv("SONOMARK_RULEBOOK", str(tmp_path / "mine.toml"))
    settings.cache_clear()


@pytest.mark.usefixtures("measuring")
def test_a_report_that_could_not_be_read_makes_nothing_missing(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        one, two = image(session, breast, 1), image(session, breast, 2)
        good = report(session, breast, 3)
        remarks.keep(session, good.id, [length_on(one)])
        bad = report(session, breast, 4, state=AnalysisState.QUARANTINED)
        assert judge_instance(session, two.id) is Verdict.INDETERMINATE
        assert judge_study(session, breast.id) is Verdict.INDETERMINATE
        assert states(session, breast) == {"image-assessed": "uncertain", "measured": "uncertain"}
        session.execute(update(Analysis).where(Analysis.instance_id == bad.id).values(state=AnalysisState.DONE))
        assert judge_study(session, breast.id) is Verdict.NON_COMPLIANT  # it was read, and says nothing of image 2


@pytest.mark.usefixtures("measuring")
def test_only_the_newest_version_of_a_report_counts(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        shown = image(session, breast, 1)
        earlier = now() - timedelta(seconds=9)
        former = report(session, breast, 2, received_at=earlier, sha256="f" * 64, conflict=True)
        remarks.keep(session, former.id, [length_on(shown)])
        judge_study(session, breast.id)
        assert states(session, breast) == {"one-version": "uncertain", "measured": "met"}
        newest = report(session, breast, 2, conflict=True)
        remarks.keep(session, newest.id, [replace(length_on(shown), sop_instance_uid="9.9")])
        assert judge_study(session, breast.id) is Verdict.NON_COMPLIANT
        assert states(session, breast) == {"one-version": "uncertain", "measured": "missing"}


@pytest.mark.usefixtures("measuring")
def test_what_comes_later_and_speaks_of_an_image_counts_for_the_image_too(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        shown, other = image(session, breast, 1), image(session, breast, 2)
        first = report(session, breast, 3)
        remarks.keep(session, first.id, [length_on(other)])
        for one in (shown, other):
            judge_instance(session, one.id)
        assert verdict_on(session, shown) is Verdict.NON_COMPLIANT
        later = report(session, breast, 4)
        remarks.keep(session, later.id, [length_on(shown)])
        assert judge_instance(session, later.id) is Verdict.NOT_APPLICABLE
        assert session.get_one(Study, breast.id, populate_existing=True).verdict is Verdict.COMPLIANT
        assert verdict_on(session, shown) is Verdict.COMPLIANT
        of_other = select(VerdictRecord).where(VerdictRecord.instance_id == other.id)
        assert len(session.scalars(of_other).all()) == 1  # it is as it was, and nothing was written


@pytest.mark.usefixtures("measuring")
def test_a_report_that_came_again_whole_leaves_nothing_open(db: Database) -> None:
    with db.begin() as session:
        breast = study(session)
        shown = image(session, breast, 1)
        earlier = now() - timedelta(seconds=9)
        former = {"received_at": earlier, "sha256": "f" * 64, "conflict": True}
        report(session, breast, 2, state=AnalysisState.QUARANTINED, **former)
        remarks.keep(session, report(session, breast, 2, conflict=True).id, [length_on(shown)])
        other = image(session, breast, 3)
        judge_study(session, breast.id)
        assert states(session, breast) == {"one-version": "uncertain", "measured": "missing"}
        assert verdict_on(session, shown) is Verdict.COMPLIANT
        assert verdict_on(session, other) is Verdict.NON_COMPLIANT


def report(session: Session, of: Study, number: int, **columns: object) -> Instance:
    return image(session, of, number, number_of_frames=0, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33", **columns)


def states(session: Session, of: Study) -> dict[str, str]:
    return {finding.requirement: finding.state.value for finding in standing_findings(session, of)}


def verdict_on(session: Session, shown: Instance) -> Verdict | None:
    record = verdicts.standing(session, shown.study_id, shown.id)
    return record.verdict if record else None


def length_on(shown: Instance) -> Remark:
    return Remark("sr", shown.sop_instance_uid, "caliper", None, (1, 1, 5, 5), "Length", 21.0, "mm")


def standing_findings(session: Session, of: Study) -> list[Finding]:
    standing = verdicts.standing(session, of.id)
    return standing.findings if standing is not None else []


def test_a_verdict_draws_its_study_for_a_second_reader(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_DOUBLE_READ_SHARE", "1")
    settings.cache_clear()
    with db.begin() as session:
        breast = study(session)
        judge_instance(session, image(session, breast, 1).id)
        assert double_reads.of(session, breast) is not None


def test_rules_know_what_the_columns_hold_without_their_values(db: Database) -> None:
    with db.begin() as session:
        named = study(session)
        named.patient_name, named.patient_id, named.study_date = "CANARY^Name", "CANARY-1", now().date()
        shown = image(session, named, 1, header={"content_time": "101500", "mechanical_index": 0.0})
        own = image(session, named, 2, header={"identifiers": ["patient_name"]})
        ((whole, _), (lacking, _)) = facts.of_instances(session, [shown.id, own.id])
    assert whole.facts.words["records"] == ("patient_name", "patient_id", "date", "time", "mechanical_index")
    assert lacking.facts.words["records"] == ("patient_name", "date"), "an image's own header goes before its study's"
    assert "CANARY" not in repr(whole.facts)


def test_what_the_first_image_says_of_itself_is_not_said_of_the_others(db: Database) -> None:
    """The columns of study and series were filled by the first image; they stand in where a header says nothing."""
    with db.begin() as session:
        row = study(session, description="")
        row.body_part, row.station, row.institution = "BREAST", "US01", "North"
        row.series[0].body_part, row.series[0].laterality = "THYROID", "L"
        other = {"body_part": "ABDOMEN", "station": "US02", "institution": "South", "image_laterality": "R"}
        coded = {"anatomic_regions": [{"value": "T-D4000", "scheme": "SRT", "meaning": "Abdomen"}]}
        headers = [other, coded, {}, {"body_part": " "}]
        ids = [image(session, row, n, header=header).id for n, header in enumerate(headers)]
        own, by_code, silent, blank = (one.facts.words for one, _ in facts.of_instances(session, ids))
        assert own["body_part"] == own["exam"] == ("ABDOMEN",)
        assert (own["station"], own["institution"], own["laterality"]) == (("US02",), ("South",), ("R",))
        assert by_code["body_part"] == ("T-D4000", "Abdomen")
        assert silent["body_part"] == blank["body_part"] == ("THYROID",)
        assert (silent["station"], silent["laterality"]) == (("US01",), ("L",))
        row.series[0].body_part = ""
        session.flush()
        ((alone, _),) = facts.of_instances(session, ids[2:3])
        assert alone.facts.words["body_part"] == ("BREAST",)


def test_frames_at_hand_are_judged_as_those_in_the_database(db: Database) -> None:
    with db.begin() as session:
        one = image(session, study(session), 1)
        analysis = session.scalars(select(Analysis).where(Analysis.instance_id == one.id)).one()
        session.execute(delete(Frame).where(Frame.analysis_id == analysis.id))
        box = {"x": 1, "y": 2, "width": 3, "height": 4, "pixels": 5}
        seen = [
            Seen(
                {
                    "analysis_id": analysis.id,
                    "number": number,
                    "rows": 600,
                    "columns": 800,
                    "scores": {"caliper": round(number / 7, 6)},
                    "text_read": number == 2,
                    "mask_key": "",
                },
                [
                    {"kind": kind, "score": number / 3, **box, "source": source, "text": "", "text_score": None}
                    for kind, source in (("caliper", "network"), ("text", "overlay"))
                ],
            )
            for number in (1, 2)
        ]
        claim = Claim(analysis.id, one.id, "token", 1, now())
        keep_frames(session, [claim], seen)
        assert facts.of_instances(session, [one.id], seen) == facts.of_instances(session, [one.id])
