"""The decoder process: ``python -m service.dicom.decoder BUFFER_FD MEMORY_MB SECONDS``.

Decoders are libraries in C that meet bytes from strangers. They run here, with a limit on memory and a deadline, so
that one that crashes, hangs or eats all memory takes only this process with it. One line of JSON asks, one answers;
pixels go through a shared buffer.
"""

import errno
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from service.dicom.codecs import RESEND
from service.dicom.picture import Picture, open_picture
from service.dicom.reading import is_fault, unreadable
from service.errors import DicomError

NO_MEMORY = "Decoding needed more memory than allowed."
NO_MEMORY_CURE = "Raise SONOMARK_DECODE_MEMORY_MB if such images are real."


def main() -> None:
    """Answer until standard input closes."""
    buffer, megabytes, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _limit(megabytes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker decides what ends
    asked = Asked()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its default action ends the process
        answer = asked.answer(json.loads(line), buffer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Asked:
    """Answers requests; the last file stays open, since its frames are asked for one after the other."""

    def __init__(self) -> None:
        self._key: tuple[str, int, int] | None = None
        self._picture: Picture | None = None

    def answer(self, request: dict[str, Any], buffer: int) -> dict[str, Any]:
        """Either the facts of the file, or one frame written into ``buffer``, or an error."""
        path = Path(request["path"])
        try:
            picture = self._open(path, request["max_pixels"])
            if request["frame"] is None:
                return {
                    "frames": picture.frames,
                    "sop_instance_uid": picture.sop_instance_uid,
                    "has_overlays": picture.has_overlays,
                }
            frame = picture.rgb(request["frame"])
            _write(buffer, frame, request["at"])
            return {"shape": frame.shape}
        except (FileNotFoundError, NotADirectoryError) as error:
            return _error("FileNotFoundError", f"{error.filename} is not there.", "Check the path.")
        except (MemoryError, cv2.error) as error:
            if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
                return _error("Undecodable", "The image cannot be decoded.", "Export the image again.")
            return _error("DecoderFailed", NO_MEMORY, NO_MEMORY_CURE)
        except DicomError as error:
            return _error(type(error).__name__, error.what, error.cure)
        except OSError as error:
            return _of_the_system(path, error)
        except Exception as error:  # noqa: BLE001 - whatever a hostile file provokes is an answer, not a crash
            return _of_the_content(error)

    def _open(self, path: Path, max_pixels: int) -> Picture:
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        if self._picture is None or key != self._key:
            self._picture = None
            self._picture, self._key = open_picture(path, max_pixels), key
        return self._picture


def _of_the_content(error: Exception) -> dict[str, Any]:
    return _error("Undecodable", f"Decoding failed ({type(error).__name__}).", RESEND)


def _of_the_system(path: Path, error: OSError) -> dict[str, Any]:
    """A disk that fails for a moment is no fault of the image, and would be taken for its last word."""
    if error.errno == errno.ENOMEM:
        return _error("DecoderFailed", NO_MEMORY, NO_MEMORY_CURE)
    if not is_fault(error):
        return _of_the_content(error)
    told = unreadable(path, error)
    return _error("Unreadable", told.what, told.cure)


def _error(kind: str, what: str, cure: str) -> dict[str, Any]:
    return {"error": kind, "what": what, "cure": cure}


def _write(buffer: int, frame: np.ndarray[Any, Any], at: int) -> None:
    rest = memoryview(np.ascontiguousarray(frame).reshape(-1))  # type: ignore[arg-type]
    while rest:
        written = os.pwrite(buffer, rest, at)
        rest, at = rest[written:], at + written


def _limit(megabytes: int) -> None:
    mapped = 512 * 1024 * 1024
    # The libraries alone map half a gigabyte of addresses; the limit is on what an image adds to that.
    with suppress(OSError):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    size = mapped + megabytes * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a patient's image
    with suppress(OSError):
        # When the whole machine runs out of memory the kernel shall take this process, not the worker.
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
