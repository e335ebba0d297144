"""Attacks by what is sent: odd, lying and poisoned data sets are refused or kept as they are, and reach nothing else.

They are the lines D8 to D19 of the checklist in test_attacks.
"""

import ast
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

import service
from service.db.session import Database
from service.settings import Settings
from tests.faults.images import Image, image
from tests.faults.sender import Association, Refused
from tests.receive.conftest import US_IMAGE, RunningReceiver, instances

SUCCESS, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA900, 0xC000
MEGABYTE = 1 << 20


def answer(receiver: RunningReceiver, one: Image, uid: str | None = None) -> int | None:
    """The status of a C-STORE, under ``uid`` in the command if given; None when the receiver cut the connection."""
    association = Association(receiver.port, [(one.sop_class, one.syntax)])
    try:
        return association.store(Image(one.uid if uid is None else uid, one.data, one.sop_class, one.syntax))
    except OSError:
        return None
    finally:
        association.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_uids_of_the_command_never_become_paths(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    one = image()
    around = house.data_dir.parent
    before = {path for path in around.rglob("*") if path.is_dir()}
    for uid in (
        "../../../x",
        "/etc/x",
        "1.2\x00.3",
        "1." + "2" * 80,
        "1.2\n3",
        "%s%n",
        "",
        "a;touch x|$(touch y)",
        ".",
    ):
        assert answer(receiver, one, uid) in (MISMATCH, CANNOT_UNDERSTAND, None), uid
        named = image(uid="1.2.3", SOPInstanceUID=uid)
        assert answer(receiver, named, uid) in (MISMATCH, CANNOT_UNDERSTAND, None), uid
    assert answer(receiver, one) == SUCCESS
    assert len(instances(db)) == 1
    assert {path for path in around.rglob("*") if path.is_dir()} - before <= {
        path for path in around.rglob("*") if house.data_dir in path.parents
    }
    assert "Traceback" not in receiver.log.read_text()


def test_a_deflated_bomb_is_not_even_negotiated(receiver: RunningReceiver, db: Database) -> None:
    bomb = Image("1.2.3", zlib.compress(bytes(8 * MEGABYTE), wbits=-15), US_IMAGE, DeflatedExplicitVRLittleEndian)
    association = Association(receiver.port, [(bomb.sop_class, bomb.syntax)])
    with pytest.raises(Refused, match="no presentation context"):
        association.store(bomb)
    association.close()
    assert not instances(db)


def test_lengths_that_lie_are_refused(receiver: RunningReceiver, db: Database) -> None:
    one = image()
    pixels = one.data.rindex(b"\xe0\x7f\x10\x00OB")
    lies = {
        "beyond the end": one.data[: pixels + 8] + b"\xf0\xff\xff\xff" + one.data[pixels + 12 :],
        "no data": one.data[: pixels + 8] + b"\xf0\xff\xff\xff",
        "odd": one.data[: pixels + 8] + b"\x05\x00\x00\x00abcd",
        "cut in an element": one.data[: pixels + 3],
    }
    for name, data in lies.items():
        assert answer(receiver, Image(one.uid, data)) == CANNOT_UNDERSTAND, name
    assert not instances(db)
    assert answer(receiver, one) == SUCCESS


def test_headers_of_impossible_images_cost_nothing(receiver: RunningReceiver, db: Database) -> None:
    process = psutil.Process(receiver.process.pid)
    assert answer(receiver, image()) == SUCCESS
    rss = process.memory_info().rss
    for elements in (
        {"Rows": 65535, "Columns": 65535, "NumberOfFrames": "100000"},
        {"BitsAllocated": 0},
        {"BitsAllocated": 64, "SamplesPerPixel": 65535},
        {"NumberOfFrames": "99999999999"},
        {"NumberOfFrames": "-1"},
    ):
        assert answer(receiver, image(**elements)) == SUCCESS, elements
    assert process.memory_info().rss - rss < 20 * MEGABYTE
    assert len(instances(db)) == 6


def test_odd_data_sets_are_stored_or_refused_at_once(receiver: RunningReceiver, house: Settings) -> None:
    one = image()
    head = one.data.index(b"\x08\x00\x60\x00CS")  # Modality
    odd = {
        "a file meta group": b"\x02\x00\x10\x00UI\x06\x001.2.3\x00" + one.data,
        "a VR that is none": one.data[:head] + b"\x08\x00\x60\x00!!" + one.data[head + 6 :],
        "a doubled element": one.data[: head + 10] + one.data[head : head + 10] + one.data[head + 10 :],
        "elements out of order": one.data[head : head + 10] + one.data[:head] + one.data[head + 10 :],
        "a group length that lies": b"\x08\x00\x00\x00UL\x04\x00\xff\xff\xff\x7f" + one.data,
        "trailing bytes": one.data + b"trailing",
        "the other byte order": bytes(b for pair in zip(one.data[1::2], one.data[::2], strict=False) for b in pair),
    }
    for name, data in odd.items():
        began = time.monotonic()
        assert answer(receiver, Image(one.uid, data)) in (SUCCESS, MISMATCH, CANNOT_UNDERSTAND), name
        assert time.monotonic() - began < 10, name
    assert "Traceback" not in receiver.log.read_text()
    assert answer(receiver, image()) == SUCCESS


def test_the_archive_writes_preambles_of_its_own(receiver: RunningReceiver, db: Database) -> None:
    """Neither a data set that begins with a file of its own nor anything else puts MZ in front of a file."""
    from service.archive.store import archive

    program = Image("1.2.3", b"MZ" + bytes(126) + b"DICM" + image().data)
    assert answer(receiver, program) == CANNOT_UNDERSTAND
    assert answer(receiver, image()) == SUCCESS
    [row] = instances(db)
    assert archive().get(row.archive_key)[:132] == bytes(128) + b"DICM"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_names_made_to_break_something_stay_text(receiver: RunningReceiver, db: Database) -> None:
    names = [
        "<script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "'; DROP TABLE studies; --",
        "\u202eevil\u200b",
        "A" * 60_000,
    ]
    for name in names:
        assert answer(receiver, image(PatientName=name, SpecificCharacterSet="ISO_IR 192")) == SUCCESS
    broken = image(SpecificCharacterSet="ISO 2022 IR 87")
    escape = broken.data.replace(b"Canary^Patient", b"\x1b$B\xff\xfe\x1b(Z\x00\x1b\x1b$BB")
    assert len(escape) == len(broken.data) and escape != broken.data
    assert answer(receiver, Image(broken.uid, escape)) == SUCCESS
    assert answer(receiver, image(SpecificCharacterSet="NO SUCH SET")) == SUCCESS
    kept = [row.study.patient_name for row in instances(db)]
    assert kept[:4] == names[:4] and kept[4].startswith("AAAA")
    assert len(kept) == len(names) + 2


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in Path(service.__file__).parent.rglob("*.py"):
        yield path, ast.parse(path.read_text())


def test_there_is_no_reader_of_dicomdirs() -> None:
    """pydicom before 3.0.2 followed paths out of the folder (CVE-2026-32711)."""
    import pydicom

    assert tuple(int(part) for part in re.findall(r"\d+", pydicom.__version__)[:3]) >= (3, 0, 2)
    names = {
        name
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (getattr(node, "module", "") or "", *(alias.name for alias in node.names))
    }
    assert not names & {"pydicom.fileset", "FileSet", "DicomDir", "pydicom.dicomdir"}


def test_nothing_starts_a_shell() -> None:
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"os.system", "os.popen", "subprocess.getoutput", "pty.spawn"}, path
                assert "shell" not in {keyword.arg for keyword in node.keywords} or "subprocess" not in called, path
