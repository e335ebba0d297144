"""Clean frames, and their split into training and validation by data set and by patient group."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from models.errors import DataError, LeakySplit, of_the_system
from models.whole import write_whole
from service.dicom.pixels import read_frames
from service.dicom.plain import plain_rgb
from service.errors import SonomarkError, Unreadable

Frame = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_REPLACE = "Replace the file or remove it from the data."
_SEE_TO_THE_DISK = "See that its disk is well and that you may read it, then give the same command again."
_SUBJECT = re.compile(
    r"(?:^|[_\-. ])((?:S|p)\d+|(?:pat|patient|subj|subject|sub)[_\-]?\d+)(?=[_\-. A-Z]|$)", re.IGNORECASE
)

_THUMBNAIL = 48
_NEAR_DUPLICATE = (
    0.6  # correlation of high-passed thumbnails; frames of one clip reach it, frames of two patients hardly ever
)
_COMPARED_AT_ONCE = 1 << 22  # pairs of frames


@dataclass(frozen=True)
class CleanFrame:
    """One frame to draw on: its file, the data set it comes from and the group (patient, clip) that must not be
    split."""

    path: Path
    source: str
    group: str
    anatomy: str = ""
    licence: str = ""

    def named_from(self, root: Path) -> str:
        """The file's path from a folder, which a listing may have led out of."""
        return os.path.relpath(self.path, root)


@dataclass(frozen=True)
class Split:
    training: tuple[CleanFrame, ...]
    validation: tuple[CleanFrame, ...]

    def refuse_leaks(self) -> None:
        """Raise `LeakySplit` when a group or a file is on both sides."""
        shared = {frame.group for frame in self.training} & {frame.group for frame in self.validation}
        shared |= {str(f.path) for f in self.training} & {str(f.path) for f in self.validation}
        if shared:
            raise LeakySplit(
                f"Training and validation share {len(shared)} groups, among them {sorted(shared)[0]}.",
                cure="Give the frames of one patient the same `group` in the CSV and split by group.",
            )

    def write(self, manifest: Path, root: Path) -> None:
        """Record which file went where; paths are relative to the data folder."""
        sides = {
            side: [{**asdict(f), "path": f.named_from(root)} for f in getattr(self, side)]
            for side in ("training", "validation")
        }
        write_whole(manifest, json.dumps(sides, indent=1))

    @classmethod
    def read(cls, manifest: Path, root: Path) -> Split:
        """The split a run was trained on. Raises `DataError` for a manifest that is missing or broken, or is of another
        folder than ``root``, and `LeakySplit` for one that shares groups."""
        try:
            sides = json.loads(manifest.read_text())
            parts = cls(
                *(
                    tuple(CleanFrame(**{**f, "path": root / f["path"]}) for f in sides[side])
                    for side in ("training", "validation")
                )
            )
        except (OSError, ValueError, KeyError, TypeError) as broken:
            raise DataError(
                f"The split in {manifest} cannot be read ({type(broken).__name__}).", cure="Give the folder of a run."
            ) from broken
        gone = [frame.path for frame in parts.training + parts.validation if not frame.path.is_file()]
        if gone:
            raise DataError(
                f"{len(gone)} files of the split in {manifest} are not there, among them {gone[0]}.",
                cure="Give the folder that the run was trained on, with all of its files.",
            )
        parts.refuse_leaks()
        return parts


def trained_on(manifest: Path) -> tuple[set[str], set[str]]:
    """The files and the groups that a run's manifest has for training, wherever its data lie now. Raises `DataError`
    where it cannot be read."""
    try:
        frames = json.loads(manifest.read_text())["training"]
        return {frame["path"] for frame in frames}, {frame["group"] for frame in frames}
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise DataError(
            f"The split in {manifest} cannot be read ({type(broken).__name__}).", cure="Give the folder of a run."
        ) from broken


def say(line: str) -> None:
    """A line for whoever looks on, apart from what is asked for."""
    sys.stderr.write(f"{line}\n")


def clean_frames(folder: Path, tell: Callable[[str], None] = say) -> list[CleanFrame]:
    """The frames listed in the folder's CSV (columns file, source, and group, anatomy where known), else every image
    below it but for those of its labelled folder ``annotated``, which are for measuring.

    Frames that look nearly the same share a group, whatever their names say. Without a CSV, DICOM objects that are no
    pictures are passed over, and ``tell`` hears how many. Raises `DataError` for an empty folder, a listed file that is
    missing and an image that cannot be read.
    """
    return _joined_near_duplicates(named_frames(folder, tell))


def named_frames(folder: Path, tell: Callable[[str], None] = say) -> list[CleanFrame]:
    """The same frames in the groups that listing, header or name say, whatever they look like."""
    listing = _listing(folder)
    frames = _listed(listing) if listing else _found(folder, tell)
    if not frames:
        raise DataError(
            f"No image in {folder}.", cure="Give a folder with PNG, JPEG or DICOM frames, or with a CSV listing them."
        )
    return frames


def _listing(folder: Path) -> Path | None:
    for name in ("clean.csv", "frames.csv"):
        for place in (folder / name, folder / "clean" / name):
            if place.is_file():
                return place
    return None


def _listed(listing: Path) -> list[CleanFrame]:
    frames = []
    for row in rows_of(listing, "file", "source"):
        # Paths in the CSV are relative to its folder or to the one above it.
        places = (listing.parent / row["file"], listing.parent.parent / row["file"])
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise DataError(
                f"{listing} lists {row['file']}, which is not there.", cure="Restore the file or drop its row."
            )
        group = row.get("group") or _group(path, row["source"], listed=True)
        frames.append(CleanFrame(path, row["source"], group, row.get("anatomy", ""), row.get("licence", "")))
    return frames


def rows_of(listing: Path, *wanted: str) -> list[dict[str, str]]:
    """The rows of a CSV in UTF-8, with commas or, as spreadsheets of some countries write them, semicolons.

    Raises `DataError` where it cannot be read, lacks one of the columns ``wanted`` or has a row without a file.
    """
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as other:
        raise DataError(f"{listing} is not in UTF-8.", cure="Save it as `CSV UTF-8`.") from other
    header = text.partition("\n")[0]
    separator = ";" if ";" in header and "," not in header else ","
    rows = csv.DictReader(StringIO(text, newline=""), delimiter=separator)
    found, line = [], 0
    try:
        missing = [name for name in wanted if name not in (rows.fieldnames or ())]
        if missing:
            raise DataError(f"{listing} has no column {missing[0]!r}.", cure=f"It needs {', '.join(wanted)}.")
        line = rows.line_num
        for row in rows:
            line = rows.line_num
            if not row["file"]:
                raise DataError(f"Line {line} of {listing} names no file.", cure="Name one or drop the line.")
            # Cells beyond the header have no name.
            found.append({name: cell or "" for name, cell in row.items() if name})
    except csv.Error as broken:
        what = f"{listing} cannot be read from line {line + 1} on: {broken}."
        raise DataError(what, cure="Look there for a quote that is not closed.") from broken
    return found


def _found(folder: Path, tell: Callable[[str], None]) -> list[CleanFrame]:
    aside = folder / "annotated"
    measured = (aside / "labels.csv").is_file()
    files = sorted(
        path
        for path in folder.rglob("*")
        if not (measured and aside in path.parents) and path.is_file() and (_is_plain(path) or _is_dicom(path))
    )
    pictures = [path for path in files if _is_plain(path) or _is_picture(path)]
    if others := len(files) - len(pictures):
        objects = "1 DICOM object that is no picture" if others == 1 else f"{others} DICOM objects that are no pictures"
        tell(f"{folder}: {objects} (reports and the like) {'was' if others == 1 else 'were'} passed over.")
    return [CleanFrame(path, path.parent.name, _group(path, path.parent.name, listed=False)) for path in pictures]


def _is_plain(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_dicom(path: Path) -> bool:
    """By its name or, as exports often name files by a number or a UID, by its first bytes (PS3.10, 7.1)."""
    if path.stem.upper() == "DICOMDIR":  # the table of contents of a medium (PS3.10, 8.6)
        return False
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _is_picture(path: Path) -> bool:
    """By its SOP class; where that is not one of the standard's, by whether it has rows. A picture that lacks its
    pixels is one all the same, and what has no class at all is taken for a damaged one: reading them tells."""
    header = _header(path, "SOPClassUID", "Rows")
    sop_class = UID(str(header.get("SOPClassUID") or ""), IGNORE)
    name = sop_class.name
    if name not in ("", sop_class):  # by its number goes what the standard does not know
        return "Image Storage" in name or "Volume Storage" in name
    return not sop_class or "Rows" in header


def _header(path: Path, *wanted: str) -> Dataset:
    """These elements of a DICOM file, those that it has. Raises `DataError` when it cannot be read."""
    try:
        return dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(wanted))
    except (InvalidDicomError, ValueError, EOFError, RecursionError, AttributeError, KeyError) as damaged:
        raise DataError(f"{path} is not an image that can be read.", cure=_REPLACE) from damaged


def groups_of(path: Path, row: Mapping[str, str]) -> set[str]:
    """What the patient of a CSV's row may be called: by the row itself, and where the file was found without one."""
    source = row["source"]
    return {row.get("group") or _group(path, source, listed=True), _group(path, source, listed=False)}


def _group(path: Path, source: str, *, listed: bool) -> str:
    """The patient: as DICOM says it, whatever folder the file lies in; else the subject in the file's name, where it
    has one, else the file itself."""
    if not _is_plain(path):
        header = _header(path, "PatientID", "StudyInstanceUID")
        identity = str(header.get("PatientID") or header.get("StudyInstanceUID") or f"{source}:{path.stem}")
        # An export has a folder for each series: with the source in it, a patient would be a group for each of them.
        return f"patient:{sha256(identity.encode()).hexdigest()[:16]}"
    subject = _SUBJECT.search(path.stem)
    if not subject:
        return f"{source}:{path.stem}"
    # Only a listing knows that two sources number their patients alike; folders may each hold a day of the same ones.
    return f"{source}:{subject[1]}" if listed else f"subject:{subject[1].lower()}"


def read_frame(path: Path) -> Frame:
    """A frame as displayed, uint8 RGB (H, W, 3); of a cine the first. Raises `DataError` naming the file when it
    cannot be read."""
    try:
        return plain_rgb(path.read_bytes()) if _is_plain(path) else np.asarray(read_frames(path, [1])[0], np.uint8)
    except Unreadable as refused:
        raise DataError(refused.what, cure=_SEE_TO_THE_DISK) from refused
    except SonomarkError as damaged:
        reason = damaged.what.rstrip(".")
        raise DataError(f"{path} is not an image that can be read ({reason}).", cure=_REPLACE) from damaged
    except OSError as refused:
        told = of_the_system(refused)
        raise DataError(told.what, cure=told.cure) from refused


def _joined_near_duplicates(frames: Sequence[CleanFrame]) -> list[CleanFrame]:
    """Give frames of one scene one group: the split must not put two frames of a clip on both sides."""
    looks = np.stack([_look(read_frame(frame.path)) for frame in frames])
    parent = list(range(len(frames)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_of: dict[str, int] = {}
    for i, frame in enumerate(frames):
        parent[root(i)] = root(first_of.setdefault(frame.group, i))
    for i, j in _alike(looks):
        parent[root(j)] = root(i)
    return [replace(frame, group=frames[root(i)].group) for i, frame in enumerate(frames)]


def _alike(looks: npt.NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """The pairs (i, j), i < j, of frames that look nearly the same, in their order; ``looks`` (N, P) of unit length.

    Every frame is compared with every other, N²·P multiplications in all, but only so many pairs at a time that the
    memory for them does not grow with N.
    """
    rows = max(1, _COMPARED_AT_ONCE // len(looks))
    for start in range(0, len(looks), rows):
        alike = looks[start : start + rows] @ looks[start:].T > _NEAR_DUPLICATE
        for i, j in np.argwhere(np.triu(alike, 1)):
            yield start + int(i), start + int(j)


def _look(frame: Frame) -> npt.NDArray[np.float32]:
    small = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    high = small.astype(np.float32) - cv2.GaussianBlur(small.astype(np.float32), (0, 0), 6)
    high -= high.mean()
    return (high / (np.linalg.norm(high) + 1e-6)).ravel()


def split(frames: Iterable[CleanFrame], held_out_sources: Sequence[str], share: float, seed: int) -> Split:
    """Hold out whole data sets, and a share of the groups of every other one.

    The share is drawn by a hash of seed and group, so a frame added later does not move the others, unless it looks
    like some of them: frames that look alike are one group, which has the name of one of them. Where so few groups are
    left that a side would stay empty, it gets the group that is nearest to it.
    """
    frames = list(frames)
    away = {frame.group for frame in frames if frame.source in held_out_sources}
    draws = {
        frame.group: int(sha256(f"{seed}:{frame.group}".encode()).hexdigest()[:8], 16) / 16**8
        for frame in frames
        if frame.group not in away
    }
    held_out = {group for group, draw in draws.items() if draw < share}
    if len(draws) > 1 and len(held_out) == len(draws):
        held_out.remove(max(draws, key=lambda group: draws[group]))
    if len(draws) > 1 and not held_out and not away and share > 0:
        held_out.add(min(draws, key=lambda group: draws[group]))
    held_out |= away
    parts = Split(
        tuple(frame for frame in frames if frame.group not in held_out),
        tuple(frame for frame in frames if frame.group in held_out),
    )
    for side, part in (("training", parts.training), ("validation", parts.validation)):
        if not part:
            raise DataError(
                f"The split leaves no frame for {side}: there are {len(frames)} frames of"
                f" {len({frame.group for frame in frames})} groups.",
                cure="Add frames of other patients, say in a frames.csv which `group` each frame is of, or change"
                " `split` in the recipe.",
            )
    parts.refuse_leaks()
    return parts
