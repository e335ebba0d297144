"""What people said about marks, as a folder that training and evaluation read."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from service.analyse.annotations import Kind
from service.archive.store import archive
from service.cli.accounts import BY_HAND
from service.cli.console import err
from service.cli.places import writing
from service.db import audit, schema, testimony
from service.db.corrections import Box
from service.db.session import database
from service.db.tables import Correction
from service.db.testimony import Testimony
from service.dicom import banner
from service.dicom.banner import Area
from service.dicom.pixels import read_frames
from service.errors import SonomarkError

app = typer.Typer()

KINDS = tuple(kind.value for kind in Kind)
COLUMNS = ("file", "source", "group", "anatomy", "width", "height", *KINDS, "licence", "note")
WHOLE = "whole frame: its header names no ultrasound regions"


@app.command("corrections")
def write_corrections(
    folder: Annotated[Path, typer.Argument(help="Where the frames and their labels go.")],
    with_regions: Annotated[
        bool, typer.Option("--with-regions", help="Leave out frames whose banner cannot be told from the picture.")
    ] = False,
) -> None:
    """Write the frames of which people said what is there, with labels and boxes, for `python -m models`.

    What lies outside of the header's ultrasound regions and of known marks is blacked out. A frame whose header names
    no regions is written whole, its banner too, and says so in its note; --with-regions leaves it out.
    The frames are patients' images: keep the folder where they may be.
    """
    schema.require_usable(database())
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    rows: list[dict[str, object]] = []
    boxes: list[dict[str, object]] = []
    with database().begin() as session:
        for told in testimony.frames(session):
            regions = banner.areas_of(told.instance.header or {})
            labels = _labels(told, regions)
            if (with_regions and not regions) or set(labels.values()) == {"unsure"}:
                continue
            name = f"{told.instance.sha256[:16]}-{told.frame}.png"
            try:
                pixels = read_frames(archive().path(told.instance.archive_key), [told.frame])[0]
            except SonomarkError as error:
                err.print(f"{told.instance.sop_instance_uid} frame {told.frame}: {error}", markup=False)
                continue
            if regions:
                pixels = banner.blacked_out(pixels, [*regions, *_shown(told)])
            with writing(folder / name):
                (folder / name).write_bytes(_png(pixels))
            rows.append(_row(name, told, labels, note="" if regions else WHOLE))
            boxes += [_box(name, each) for each in told.said]
        whole = sum(row["note"] == WHOLE for row in rows)
        audit.record(session, BY_HAND, "corrections.export", detail={"frames": len(rows), "whole": whole})
    # The same rows twice: labels are what evaluation measures on, frames are what adaptation splits by group.
    for listing in ("labels.csv", "frames.csv"):
        with writing(folder / listing), (folder / listing).open("w", newline="") as text:
            writer = csv.DictWriter(text, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    with writing(folder / "boxes.jsonl"):
        (folder / "boxes.jsonl").write_text("".join(f"{json.dumps(box)}\n" for box in boxes))
    err.print(f"{len(rows)} frames with {len(boxes)} corrections written.")
    if whole:
        err.print(f"{whole} of them whole, with what is burned in, for their headers name no ultrasound regions.")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def _labels(told: Testimony, regions: Sequence[Area]) -> dict[str, int | str]:
    """1 where a mark of the kind is there, 0 where there is none, unsure where nobody said a word.

    What was said to be there and may have been blacked out, for nobody said where it is, is unsure too.
    """
    labels: dict[str, int | str] = {}
    for kind in KINDS:
        there = told.there(kind)
        if there and regions and not _is_left(told, kind, regions):
            there = None
        labels[kind] = "unsure" if there is None else int(there)
    return labels


def _is_left(told: Testimony, kind: str, regions: Sequence[Area]) -> bool:
    """Whether a mark of the kind shows when the banner is black."""
    shown = [*regions, *_shown(told)]
    places = [_area(box) for marked, box in told.marks if marked == kind]
    return any(place.meets(area) for place in places for area in shown)


def _shown(told: Testimony) -> list[Area]:
    """Known marks, which show wherever they lie; but text beside the picture is mostly the banner itself."""
    return [_area(box) for kind, box in told.marks if kind != "text"]


def _area(box: Box) -> Area:
    return Area(box.x, box.y, box.x + box.width, box.y + box.height)


def _row(name: str, told: Testimony, labels: dict[str, int | str], note: str) -> dict[str, object]:
    instance = told.instance
    return {
        "file": name,
        "source": "corrections",
        "group": hashlib.sha256(instance.study.study_instance_uid.encode()).hexdigest()[:16],
        "anatomy": instance.study.body_part.lower(),
        "width": instance.columns,
        "height": instance.rows,
        **labels,
        "licence": "patient data",
        "note": note,
    }


def _box(name: str, said: Correction) -> dict[str, object]:
    return {
        "file": name,
        "kind": said.kind,
        "box": [said.x, said.y, said.width, said.height],
        "none": said.annotation_id is not None,  # the network found it, a person says that it is none
    }
