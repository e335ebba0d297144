"""The receiver's memory while a 1 GB cine arrives, with further associations beside it.

    python -m bench.receive_memory [--megabytes 1024] [--associations 1]

Starts a receiver of its own on loopback, streams a generated cine through a real C-STORE (the sender is a process of
its own and reads from a sparse file), and prints the receiver's peak resident memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from bench.receivers import Sonomark
from service.dicom.part10 import file_head

US_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
ROWS, COLUMNS = 600, 800


def write_cine(path: Path, megabytes: int) -> None:
    """A multi-frame file whose pixel data is a hole in the file system."""
    from pydicom.dataset import Dataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    frames = (megabytes << 20) // (ROWS * COLUMNS * 3)
    head = Dataset()
    head.SOPClassUID, head.SOPInstanceUID = US_MULTIFRAME, generate_uid()
    head.StudyInstanceUID, head.SeriesInstanceUID = generate_uid(), generate_uid()
    head.Modality, head.NumberOfFrames = "US", frames
    head.SamplesPerPixel, head.PhotometricInterpretation, head.PlanarConfiguration = 3, "RGB", 0
    head.Rows, head.Columns, head.BitsAllocated, head.BitsStored, head.HighBit = ROWS, COLUMNS, 8, 8, 7
    head.PixelRepresentation = 0
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, head)
    length = frames * ROWS * COLUMNS * 3
    with path.open("wb") as file:
        file.write(file_head(US_MULTIFRAME, str(head.SOPInstanceUID), ExplicitVRLittleEndian))
        file.write(encoded.getvalue())
        file.write(b"\xe0\x7f\x10\x00OB\x00\x00" + length.to_bytes(4, "little"))
        file.truncate(file.tell() + length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--associations", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder, Sonomark(Path(folder)) as receiver:
        files = []
        for number in range(arguments.associations):
            files.append(Path(folder) / f"cine{number}.dcm")
            write_cine(files[-1], arguments.megabytes if number == 0 else 20)
        process = psutil.Process(receiver.pid)
        idle, peak, done = process.memory_info().rss, 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.02):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        senders = [
            subprocess.Popen(
                ["dcmsend", "-aec", "SONOMARK", "127.0.0.1", str(receiver.port), str(file)],
                env=os.environ | {"TCP_NODELAY": "1"},
            )
            for file in files
        ]
        failed = [sender.wait() for sender in senders]
        done.set()
        watcher.join()
    print(f"associations {arguments.associations}, cine {arguments.megabytes} MB")
    print(f"receiver resident: idle {idle / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")
    if any(failed):
        sys.exit(f"senders failed: {failed}")


if __name__ == "__main__":
    main()
