"""multipart/related bodies, RFC 2387: read while they arrive, written while they are sent, never whole in memory."""

from collections.abc import Iterable, Iterator
from email.message import Message
from secrets import token_hex
from typing import Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from service.errors import DicomError

CRLF = b"\r\n"
LONGEST_BOUNDARY = 128  # RFC 2046 section 5.1.1 says 70; Orthanc makes longer ones


class BadBody(DicomError):
    """The body of a request is not what its header says."""

    cure = "Send multipart/related, each instance a part between the boundaries that the Content-Type names."


class WrongMediaType(BadBody):
    """The body of a request is of another media type than this resource takes."""


class Part(Protocol):
    """Takes one part of a body."""

    def begin(self, media_type: str) -> None: ...
    def write(self, data: memoryview) -> None: ...
    def end(self) -> None: ...


def boundary_of(content_type: str, wanted: str) -> bytes:
    """The boundary of a ``multipart/related; type="…"`` of the wanted type.

    Raises WrongMediaType for any other, BadBody where none is named.
    """
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary", "")
    of_type = str(message.get_param("type", wanted)).lower()
    if message.get_content_type() != "multipart/related" or of_type != wanted:
        raise WrongMediaType(f'The body must be multipart/related; type="{wanted}".')
    if not isinstance(boundary, str) or not 0 < len(boundary) <= LONGEST_BOUNDARY or not boundary.isascii():
        raise BadBody("The Content-Type names no boundary.")
    return boundary.encode()


class Reader:
    """Hands the parts of a body on, piece by piece."""

    def __init__(self, boundary: bytes, part: Part) -> None:
        self._part = part
        self._field = self._value = b""
        self._media_type = ""
        self.complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": lambda: part.begin(self._media_type),
                "on_part_data": lambda data, start, end: part.write(memoryview(data)[start:end]),
                "on_part_end": part.end,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> None:
        """The next bytes of the body; raises BadBody when they are no multipart."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise BadBody("The body is no multipart/related with the boundary that its header names.") from error

    def _on_begin(self) -> None:
        self._field = self._value = b""
        self._media_type = ""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._field.lower() == b"content-type":
            self._media_type = self._value.decode("latin-1").partition(";")[0].strip().lower()
        self._field = self._value = b""

    def _on_end(self) -> None:
        self.complete = True


def new_boundary() -> str:
    return token_hex(16)


def written(boundary: str, parts: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """A body of parts, each its Content-Type and its bytes in chunks."""
    for content_type, chunks in parts:
        yield _head(boundary, content_type)
        yield from chunks
        yield CRLF
    yield _end(boundary)


def length(boundary: str, parts: Iterable[tuple[str, int]]) -> int:
    """Bytes of a body whose parts have these Content-Types and so many bytes."""
    return sum(len(_head(boundary, kind)) + size + len(CRLF) for kind, size in parts) + len(_end(boundary))


def _head(boundary: str, content_type: str) -> bytes:
    return f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()


def _end(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode()
