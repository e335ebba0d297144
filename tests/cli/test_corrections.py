"""Corrected frames as a folder that training and evaluation read."""

import csv
import json
from pathlib import Path

import cv2
from typer.testing import CliRunner

from service.archive.store import archive
from service.cli import app
from service.db import corrections, studies, users
from service.db.corrections import Box
from service.db.session import Database
from service.db.tables import Role
from tests.review import ward


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
    ran = CliRunner().invoke(app, ["corrections", str(folder)])
    assert ran.exit_code == 0, ran.output
    [row] = csv.DictReader((folder / "labels.csv").open())
    assert cv2.imread(str(folder / row["file"])).shape == (240, 320, 3)
    labels = [row[kind] for kind in ("body_marker", "caliper", "color_box", "text", "arrow")]
    assert labels == ["1", "0", "unsure", "unsure", "unsure"]
    boxes = [json.loads(line) for line in (folder / "boxes.jsonl").read_text().splitlines()]
    assert [(each["kind"], each["none"]) for each in boxes] == [("caliper", True), ("body_marker", False)]
    assert "DOE" not in (folder / "labels.csv").read_text()
