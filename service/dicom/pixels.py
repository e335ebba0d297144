"""Frames as a viewer displays them, decoded by a process of their own (`service.dicom.decoder`)."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import DecoderFailed, DicomError, NotDicom, NotFound, Undecodable, Unreadable
from service.settings import settings

RGB = npt.NDArray[np.uint8]  # (rows, columns, 3)

# The decoder ends itself at its deadline; this much later it is ended from outside.
GRACE_S = 2.0
AT_ONCE = 4
_ERRORS: dict[str, type[DicomError | NotFound | Unreadable]] = {
    "NotDicom": NotDicom,
    "Undecodable": Undecodable,
    "DecoderFailed": DecoderFailed,
    "FileNotFoundError": NotFound,
    "Unreadable": Unreadable,
}


@dataclass(frozen=True)
class Look:
    """What a file says of itself before anything is decoded."""

    frames: int
    sop_instance_uid: str
    has_overlays: bool  # bits of an overlay plane are there, for `read_overlays`


def look(path: Path) -> Look:
    """Frames, SOP Instance UID (empty for PNG and JPEG) and whether there are overlays, of an image file.

    Raises `NotDicom`, `Undecodable`, `NotFound`, or `Unreadable` when the disk is to blame.
    """
    with _decoders.one() as decoder:
        answer = decoder.ask(path)
    return Look(answer["frames"], answer["sop_instance_uid"], answer["has_overlays"])


def read_frames(path: Path, numbers: Iterable[int] | None = None) -> list[RGB]:
    """The frames ``numbers`` (from 1; all when None) as uint8 RGB (rows, columns, 3), as displayed.

    Raises `NotDicom`, `Undecodable`, `NotFound`, or `Unreadable` when the disk is to blame.
    """
    return list(iterate_frames(path, numbers))


def iterate_frames(path: Path, numbers: Iterable[int] | None = None) -> Iterator[RGB]:
    """`read_frames` one by one; the next frame is decoded while the caller works on this one."""
    with _decoders.one() as decoder:
        wanted = range(1, decoder.ask(path)["frames"] + 1) if numbers is None else list(numbers)
        for index, number in enumerate(wanted):
            if index == 0:
                decoder.send(path, number)
            frame = decoder.receive_frame()
            if index + 1 < len(wanted):
                decoder.send(path, wanted[index + 1])
            yield frame


def start_decoder() -> None:
    """Start a decoder process now, so that the first file does not wait for it."""
    with _decoders.one() as decoder, suppress(NotFound):
        decoder.ask(Path(os.devnull) / "nothing")


def close_decoders() -> None:
    """End the decoder processes that wait for work; the next file starts new ones."""
    _decoders.close()


class Decoder:
    """One decoder process and the buffer shared with it. Not for two threads at once."""

    def __init__(self) -> None:
        limits = settings()
        self._deadline_s = limits.decode_timeout_s
        self._max_pixels = limits.max_pixels
        self._buffer = _shared_buffer()
        arguments = self._buffer, limits.decode_memory_mb, self._deadline_s
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "service.dicom.decoder", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries complain there, quoting what they read: patient data
            pass_fds=[self._buffer],
            env={**os.environ, **_ONE_THREAD},
        )
        self._pending = False

    @property
    def idle(self) -> bool:
        """Alive, and not owing an answer."""
        return self._process.poll() is None and not self._pending

    def ask(self, path: Path) -> dict[str, Any]:
        """The facts of a file."""
        self.send(path, None)
        return self._receive()

    def send(self, path: Path, number: int | None) -> None:
        """Ask for a frame; `receive_frame` waits for it."""
        request = {"path": str(path.absolute()), "frame": number, "at": 0, "max_pixels": self._max_pixels}
        self._pending = True
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._died()

    def receive_frame(self) -> RGB:
        """The frame asked for last."""
        shape = self._receive()["shape"]
        frame = np.empty(shape, np.uint8)
        rest, at = memoryview(frame.reshape(-1)), 0  # type: ignore[arg-type]
        while rest:
            read = os.preadv(self._buffer, [rest], at)
            rest, at = rest[read:], at + read
        return frame

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        os.close(self._buffer)

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        poll = select.poll()  # `select.select` knows 1024 descriptors
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll((self._deadline_s + GRACE_S) * 1000):
            self._process.kill()
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            self._died()
        self._pending = False
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _ERRORS[answer["error"]](answer["what"], cure=answer["cure"])
        return answer

    def _died(self) -> None:
        end = -self._process.wait()
        if end in (signal.SIGALRM, signal.SIGKILL):
            raise DecoderFailed(
                f"Decoding did not finish within {self._deadline_s:g} s.",
                cure="If such images are real, raise SONOMARK_DECODE_TIMEOUT_S; if not, the file is damaged.",
            )
        name = signal.Signals(end).name if end > 0 else f"exit status {-end}"
        raise DecoderFailed(
            f"The decoder crashed on this image ({name}).",
            cure="Ask the modality or the PACS to send the original again; a crash on intact bytes is worth a report.",
        )


class Decoders:
    """The idle decoders of this process, started when first needed."""

    def __init__(self) -> None:
        self._idle: list[Decoder] = []
        self._lock = Lock()
        self._slots = BoundedSemaphore(AT_ONCE)

    @contextmanager
    def one(self) -> Iterator[Decoder]:
        """A decoder for this thread alone; one that died or was left in the middle is not used again."""
        with self._slots:
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            if decoder is None or not decoder.idle:
                decoder = Decoder()
            try:
                yield decoder
            finally:
                if decoder.idle:
                    with self._lock:
                        self._idle.append(decoder)
                else:
                    decoder.close()

    def close(self) -> None:
        """End every idle decoder."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


def _shared_buffer() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _after_fork() -> None:
    """The parent's decoders answer the parent."""
    global _decoders
    _decoders = Decoders()


_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
_decoders = Decoders()
os.register_at_fork(after_in_child=_after_fork)
