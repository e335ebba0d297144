"""Frames of which people said something, as a folder that training and evaluation read."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from service.archive.store import archive
from service.cli import app
from service.db import corrections, reviews, studies, users
from service.db.corrections import Box
from service.db.session import Database
from service.db.tables import AuditEvent, Decision, FindingState, Instance, Role, User
from service.dicom.pixels import read_frames
from tests.review import ward

KINDS = ("body_marker", "caliper", "color_box", "text", "arrow")


def export(folder: Path, *options: str) -> tuple[dict[str, dict[str, str]], str]:
    """The labels by file, and what the command said."""
    archive.cache_clear()
    ran = CliRunner().invoke(app, ["corrections", str(folder), *options])
    assert ran.exit_code == 0, ran.output
    with (folder / "labels.csv").open() as labels:
        return {row["file"]: row for row in csv.DictReader(labels)}, ran.output


def labels_of(row: dict[str, str]) -> list[str]:
    return [row[kind] for kind in KINDS]


def name_of(session: Session, uid: str, frame: int = 1) -> str:
    return f"{studies.instance(session, uid).sha256[:16]}-{frame}.png"


def give_regions(instance: Instance, *corners: tuple[int, int, int, int]) -> None:
    instance.header = {"regions": [dict(zip(("x0", "y0", "x1", "y1"), each, strict=True)) for each in corners]}


def decide(session: Session, uid: str, user: User, decision: Decision, reason: str = "") -> None:
    study = studies.brief(session, uid)
    reviews.decide(session, study, user, decision, reason, "", study.version)


def test_frames_boxes_and_labels_are_written(db: Database, tmp_path: Path) -> None:
    archive.cache_clear()
    uid = ward.admit(db, 1)
    ward.admit(db, 2)
    with db.begin() as session:
        instance = studies.instance(session, f"{uid}.1.1")
        user = users.create_user(session, "ann", Role.SONOGRAPHER)
        [mark] = studies.frame(instance, 1).annotations
        corrections.reject(session, instance, 1, user, mark.id)
        corrections.draw(session, instance, 1, user, "body_marker", Box(5, 6, 20, 30))
        slip = corrections.draw(session, instance, 1, user, "text", Box(0, 0, 9, 9))
        corrections.withdraw(session, slip)
    folder = tmp_path / "out"
    rows, said = export(folder)
    [row] = rows.values()
    assert cv2.imread(str(folder / row["file"])).shape == (240, 320, 3)
    assert labels_of(row) == ["1", "0", "unsure", "unsure", "unsure"]
    assert "whole frame" in row["note"]
    assert "1 of them whole" in said
    boxes = [json.loads(line) for line in (folder / "boxes.jsonl").read_text().splitlines()]
    assert [(each["kind"], each["none"]) for each in boxes] == [("caliper", True), ("body_marker", False)]
    assert "DOE" not in (folder / "labels.csv").read_text()
    with db.read() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "corrections.export")).one()
        assert event.detail == {"frames": 1, "whole": 1}


def test_decisions_speak_where_they_can_mean_but_one_frame(db: Database, tmp_path: Path) -> None:
    archive.cache_clear()
    there, lacking, retake, not_required, undone = (ward.admit(db, number) for number in range(1, 6))
    of_two = ward.admit(db, 6, pictures=[ward.rgb(), ward.rgb()])
    boxed = ward.admit(db, 7)
    several = ward.admit(db, 8)
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.REVIEWER)
        decide(session, there, user, Decision.OVERRIDE, "present_missed")
        decide(session, lacking, user, Decision.CONFIRM)
        decide(session, retake, user, Decision.RETAKE, "body_marker")
        decide(session, not_required, user, Decision.OVERRIDE, "not_required")
        decide(session, undone, user, Decision.CONFIRM)
        reviews.withdraw(session, studies.brief(session, undone), user)
        decide(session, of_two, user, Decision.CONFIRM)
        decide(session, boxed, user, Decision.CONFIRM)
        [record] = studies.verdicts(session, studies.brief(session, several))
        record.findings[1].state = FindingState.MISSING
        decide(session, several, user, Decision.CONFIRM)
        corrections.draw(session, studies.instance(session, f"{boxed}.1.1"), 1, user, "body_marker", Box(5, 6, 20, 30))
        names = {name_of(session, f"{uid}.1.1"): uid for uid in (there, lacking, retake, boxed)}
    rows, _ = export(tmp_path / "out")
    assert {names[file]: row["body_marker"] for file, row in rows.items()} == {
        there: "1",
        lacking: "0",
        retake: "0",
        boxed: "1",
    }
    assert {row["caliper"] for row in rows.values()} == {"unsure"}
    assert len({row["group"] for row in rows.values()}) == 4


def test_what_lies_outside_of_the_regions_and_of_known_marks_is_black(db: Database, tmp_path: Path) -> None:
    archive.cache_clear()
    uid, unplaced, whole = (ward.admit(db, number) for number in (1, 2, 3))
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.REVIEWER)
        instance = studies.instance(session, f"{uid}.1.1")
        give_regions(instance, (100, 60, 299, 199))
        for kind, box in (
            ("body_marker", Box(5, 200, 20, 30)),
            ("arrow", Box(110, 70, 9, 9)),
            ("text", Box(0, 0, 60, 9)),
        ):
            corrections.draw(session, instance, 1, user, kind, box)
        original = read_frames(archive().path(instance.archive_key), [1])[0]
        other = studies.instance(session, f"{unplaced}.1.1")
        give_regions(other, (100, 60, 299, 199))
        corrections.draw(session, other, 1, user, "arrow", Box(110, 70, 9, 9))
        decide(session, unplaced, user, Decision.OVERRIDE, "present_missed")
        decide(session, whole, user, Decision.CONFIRM)
        files = [name_of(session, f"{each}.1.1") for each in (uid, unplaced, whole)]
    rows, _ = export(tmp_path / "out")
    assert labels_of(rows[files[0]]) == ["1", "unsure", "unsure", "unsure", "1"]  # the text lay in the banner
    assert labels_of(rows[files[1]]) == ["unsure", "unsure", "unsure", "unsure", "1"]  # nobody said where the marker is
    left = np.zeros(original.shape[:2], bool)
    left[60:200, 100:300] = left[200:230, 5:25] = left[80:120, 60:150] = True  # region, marker, the network's calipers
    shown = cv2.imread(str(tmp_path / "out" / files[0]))[:, :, ::-1]
    assert (shown == np.where(left[:, :, None], original, 0)).all()
    assert original[~left].any()
    rows, said = export(tmp_path / "masked", "--with-regions")
    assert sorted(rows) == sorted(files[:2])
    assert "whole" not in said


def test_training_and_evaluation_read_the_folder(db: Database, tmp_path: Path) -> None:
    dataset = pytest.importorskip("models.dataset")
    archive.cache_clear()
    studies_seen = [ward.admit(db, number) for number in (1, 2)]
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.REVIEWER)
        for uid in studies_seen:
            decide(session, uid, user, Decision.CONFIRM)
    rows, _ = export(tmp_path / "out")
    frames = dataset.clean_frames(tmp_path / "out")
    assert {frame.path.name: frame.source for frame in frames} == dict.fromkeys(rows, "corrections")
    evaluate = pytest.importorskip("models.evaluate")
    weights = evaluate.Weights(Path("models/weights/sonomark"))
    readings = evaluate.real_frames(weights, tmp_path / "out" / "labels.csv", evaluate.Report("sonomark"))
    assert [reading.truth for reading in readings] == [{"body_marker": False}] * 2
