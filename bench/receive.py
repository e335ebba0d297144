"""Receivers side by side: instances a second and server CPU, ours against Orthanc and DCMTK storescp.

    python -m bench.receive [--runs 5] [--case jpeg] [--case rgb] [--case cine] [--associations 1] [--associations 4]

All receivers run on loopback with TCP_NODELAY=1 and take turns within each round, so that a busy machine is busy for
all of them. Orthanc's default syncs the file before it answers, Sonomark file and database, storescp neither. Medians
are printed, and the ratio of ours to each. Needs Debian's dcmtk and orthanc, and with 1.44 MB instances 4 GB of disk a
run.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid
from rich.console import Console
from rich.table import Table

from bench.receivers import Receiver, Sonomark

US_IMAGE, US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"


@dataclass(frozen=True)
class Case:
    """What is sent: ``count`` instances of ``octets`` pixel bytes."""

    title: str
    count: int
    octets: int
    frames: int
    compressed: bool


CASES = {
    "jpeg": Case("500 × 100 kB JPEG", 500, 100_000, 1, compressed=True),
    "rgb": Case("500 × 1.44 MB RGB", 500, 600 * 800 * 3, 1, compressed=False),
    "cine": Case("20 cines of 60 frames × 100 kB JPEG", 20, 100_000, 60, compressed=True),
}


class Orthanc(Receiver):
    """Debian's Orthanc as it comes: SQLite, fsync before Success."""

    name = "orthanc"
    ae_title = "ORTHANC"

    def command(self) -> list[str]:
        configuration = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "DicomPort": self.port,
            "DicomAet": self.ae_title,
            "HttpServerEnabled": False,
            "Plugins": [],
        }
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))
        return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(self.folder / "orthanc.json")]


class Storescp(Receiver):
    """DCMTK's storescp: a process for each association, bytes kept as they come, never synced."""

    name = "storescp"
    durable = False

    def command(self) -> list[str]:
        (self.folder / "out").mkdir()
        return ["storescp", "--fork", "+B", "-pdu", "131072", "+xa", "-od", str(self.folder / "out"), str(self.port)]


RECEIVERS: tuple[type[Receiver], ...] = (Sonomark, Orthanc, Storescp)


def write_instances(folder: Path, case: Case) -> None:
    """One study of random pixels; a fresh one for each run, so that no receiver meets an instance twice."""
    study, series = generate_uid(), generate_uid()
    pixels = os.urandom(case.octets)
    for number in range(case.count):
        dataset = Dataset()
        dataset.SOPClassUID = US_MULTIFRAME if case.frames > 1 else US_IMAGE
        dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), study, series
        dataset.PatientName, dataset.PatientID, dataset.Modality = "Bench^Mark", "BENCH", "US"
        dataset.InstanceNumber = number + 1
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 600, 800, 3
        dataset.PhotometricInterpretation = "YBR_FULL_422" if case.compressed else "RGB"
        dataset.PlanarConfiguration, dataset.PixelRepresentation = 0, 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        if case.frames > 1:
            dataset.NumberOfFrames = case.frames
        dataset.PixelData = encapsulate([pixels] * case.frames) if case.compressed else pixels
        dataset["PixelData"].VR = "OB"
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if case.compressed else ExplicitVRLittleEndian
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def send(receiver: Receiver, files: list[Path]) -> int:
    """One association of dcmsend; how many files were acknowledged. Raises when ours did not take all of them."""
    sent = subprocess.run(
        ["dcmsend", "-v", "-aec", receiver.ae_title, "127.0.0.1", str(receiver.port), *map(str, files)],
        env=os.environ | {"TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = sent.stdout + sent.stderr
    found = re.search(r"with status SUCCESS  : (\d+)", told)
    taken = int(found.group(1)) if found else 0
    if taken < len(files):
        if isinstance(receiver, Sonomark) or not taken:
            raise RuntimeError(f"{receiver.name} did not take everything:\n{told[-1500:]}")
        print(f"{receiver.name} refused {len(files) - taken} of {len(files)}, which count for nothing")
    return taken


def measure(receiver: Receiver, files: list[Path], associations: int) -> tuple[float, float]:
    """Instances a second, and milliseconds of server CPU for each, with what is done after the last answer."""
    shares = [files[start::associations] for start in range(associations)]
    cpu, began = receiver.cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(associations) as pool:
        taken = sum(pool.map(lambda share: send(receiver, share), shares))
    wall = time.perf_counter() - began
    receiver.come_to_rest()
    return taken / wall, (receiver.cpu_seconds() - cpu) / taken * 1000


def rounds(case: Case, associations: int, runs: int) -> Iterator[dict[str, tuple[float, float]]]:
    """Each round measures every receiver once, on the same files.

    Nothing is deleted in between, for ext4 takes a new file's inode the slower the more were freed within five minutes,
    and nobody has to write what another one left to be written.
    """
    with tempfile.TemporaryDirectory(prefix="bench-receive-") as folder:
        for number in range(runs):
            found = {}
            outgoing = Path(folder) / str(number) / "outgoing"
            outgoing.mkdir(parents=True)
            write_instances(outgoing, case)
            files = sorted(outgoing.iterdir())
            for kind in RECEIVERS:
                with kind(outgoing.with_name(kind.name)) as receiver:
                    os.sync()
                    found[kind.name] = measure(receiver, files, associations)
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--associations", type=int, action="append")
    arguments = parser.parse_args()
    console = Console()
    table = Table(title=f"Medians of {arguments.runs}; instances/s (server CPU per instance)")
    for column in ("case", "associations", *(kind.name for kind in RECEIVERS), "÷ orthanc", "÷ storescp"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for name in arguments.case or CASES:
        case = CASES[name]
        for associations in arguments.associations or [1, 4]:
            measured = list(rounds(case, associations, arguments.runs))
            speed = {k.name: statistics.median(m[k.name][0] for m in measured) for k in RECEIVERS}
            cpu = {k.name: statistics.median(m[k.name][1] for m in measured) for k in RECEIVERS}
            ratios = {
                peer: statistics.median(m["sonomark"][0] / m[peer][0] for m in measured)
                for peer in ("orthanc", "storescp")
            }
            table.add_row(
                case.title,
                str(associations),
                *(f"{speed[k.name]:.0f} ({cpu[k.name]:.2f} ms)" for k in RECEIVERS),
                *(f"{ratio:.2f}×" for ratio in ratios.values()),
            )
            console.print(table.title, case.title, associations, {k: round(v, 2) for k, v in ratios.items()})
    console.print(table)


if __name__ == "__main__":
    main()
