"""Frames a second of ``sonomark assess`` against the costumed U-Net in PyTorch, both in the same run.

    python -m bench.assess [--frames 20] [--rounds 5] [--threads 2]

End to end: files of 600 x 800 pixels (PNG, JPEG and uncompressed DICOM in turn) are opened, decoded, restored, their
marks read and their rules judged, as the command does it. The peer gets a tensor that is already in memory and only
restores: PyTorch eager, float32, as published. Rounds alternate, medians are compared.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ.setdefault("SONOMARK_DATA_DIR", tempfile.mkdtemp())

import cv2
import numpy as np
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from models.architectures.costumed_unet import CostumedUNet
from service.analyse.pipeline import Pipeline
from service.cli.answer import answers
from service.compliance import rulebook as rulebooks
from service.settings import settings

ROWS, COLUMNS = 600, 800


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--frames", type=int, default=20, help="files a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="cores for each of the two")
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = [screen(Path(folder), number) for number in range(chosen.frames)]
        book = rulebooks.load(settings().rulebook)
        peer = CostumedUNet().eval()
        frame = torch.rand(1, 3, -(-ROWS // 32) * 32, COLUMNS)
        with Pipeline.of_settings(threads=chosen.threads, callers=chosen.threads) as pipeline, torch.inference_mode():
            pipeline.warm_up()
            peer(frame)
            ours, theirs = [], []
            for _ in range(chosen.rounds):
                start = perf_counter()
                found = list(answers(pipeline, book, files, chosen.threads))
                ours.append((perf_counter() - start) / len(files))
                assert all(answer["error"] is None for answer in found)
                start = perf_counter()
                peer(frame)
                theirs.append(perf_counter() - start)
            print(f"network {pipeline.version} on {pipeline.provider}, {chosen.threads} cores, {chosen.rounds} rounds")
    report("sonomark assess, end to end", ours)
    report("costumed U-Net, PyTorch eager fp32, restoration alone", theirs)
    print(f"ratio of the medians: {median(theirs) / median(ours):.1f}")


def report(name: str, seconds: list[float]) -> None:
    spread = f"{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f}"
    print(f"{name}: {1 / median(seconds):.2f} frames/s, median {median(seconds) * 1000:.1f} ms ({spread})")


def screen(folder: Path, number: int) -> Path:
    """A scanner's screen with speckle, text and two calipers."""
    rng = np.random.default_rng(number)
    frame = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    frame[60:540, 120:680] = cv2.GaussianBlur(rng.integers(0, 220, (480, 560), np.uint8), (7, 7), 3)[..., None]
    cv2.putText(frame, "RT BREAST 10:00", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (230, 230, 230), 1, cv2.LINE_AA)
    for x, y in rng.integers((200, 120), (600, 480), (4, 2)):
        cv2.drawMarker(frame, (int(x), int(y)), (255, 255, 0), cv2.MARKER_CROSS, 20, 1)
    match number % 3:
        case 0:
            path = folder / f"{number}.png"
            cv2.imwrite(str(path), frame[..., ::-1])
        case 1:
            path = folder / f"{number}.jpg"
            cv2.imwrite(str(path), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        case _:
            path = folder / f"{number}.dcm"
            instance(frame).save_as(path, enforce_file_format=True)
    return path


def instance(frame: np.ndarray) -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.6.1", generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = generate_uid(), generate_uid(), "US"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = ROWS, COLUMNS, 3, "RGB"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PlanarConfiguration = 7, 0, 0
    data.PixelData = frame.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


if __name__ == "__main__":
    main()
