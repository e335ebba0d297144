"""What people said about marks, as a folder that training and evaluation read."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
import typer
from sqlalchemy.orm import Session

from service.archive.store import archive
from service.cli.console import err
from service.db import audit, corrections, studies
from service.db.session import database
from service.db.tables import Correction, Instance
from service.dicom.pixels import read_frames
from service.errors import SonomarkError

app = typer.Typer()

KINDS = ("body_marker", "caliper", "color_box", "text", "arrow")
COLUMNS = ("file", "source", "group", "anatomy", "width", "height", *KINDS, "licence", "note")


@app.command("corrections")
def write_corrections(
    folder: Annotated[Path, typer.Argument(help="Where the frames and their labels go.")],
) -> None:
    """Write every corrected frame with its boxes and labels, for `python -m models evaluate`.

    The frames are patients' images: keep the folder where they may be.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    rows, boxes = [], []
    with database().begin() as session:
        for instance, frame, said in _frames(session):
            name = f"{instance.sha256[:16]}-{frame}.png"
            try:
                pixels = read_frames(archive().path(instance.archive_key), [frame])[0]
            except SonomarkError as error:
                err.print(f"{instance.sop_instance_uid} frame {frame}: {error}", markup=False)
                continue
            cv2.imwrite(str(folder / name), pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)
            rows.append(_label(name, instance, frame, said))
            boxes += [_box(name, each) for each in said]
        audit.record(session, "command line", "corrections.export", detail={"frames": len(rows)})
    with (folder / "labels.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (folder / "boxes.jsonl").write_text("".join(f"{json.dumps(box)}\n" for box in boxes))
    err.print(f"{len(rows)} frames with {len(boxes)} corrections written.")


def _frames(session: Session) -> Iterator[tuple[Instance, int, list[Correction]]]:
    """Every frame that somebody corrected, with what stands."""
    for instance_id, frame in corrections.corrected_frames(session):
        said = [each for each in corrections.of_instances(session, [instance_id]) if each.frame == frame]
        yield said[0].instance, frame, said


def _label(name: str, instance: Instance, frame: int, said: list[Correction]) -> dict[str, object]:
    """1 where a mark of the kind stands, 0 where all were said to be none, unsure where nobody said a word."""
    assessed = studies.frame(instance, frame)
    none = {each.annotation_id for each in said}
    left = {mark.kind for mark in (assessed.annotations if assessed else []) if mark.id not in none}
    drawn = {each.kind for each in said if each.annotation_id is None}
    spoken = {each.kind for each in said}
    return {
        "file": name,
        "source": "corrections",
        "group": hashlib.sha256(instance.study.study_instance_uid.encode()).hexdigest()[:16],
        "anatomy": instance.study.body_part.lower(),
        "width": instance.columns,
        "height": instance.rows,
        "licence": "patient data",
        "note": "",
    } | {kind: int(kind in drawn | left) if kind in spoken else "unsure" for kind in KINDS}


def _box(name: str, said: Correction) -> dict[str, object]:
    return {
        "file": name,
        "kind": said.kind,
        "box": [said.x, said.y, said.width, said.height],
        "none": said.annotation_id is not None,  # the network found it, a person says that it is none
    }
