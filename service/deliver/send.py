"""C-STORE SCU: sends DICOM files to another node as they are stored, in another VR encoding at most."""

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from ssl import SSLContext

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from service.deliver.association import CallingEntity, associate
from service.errors import ConfigurationError, PeerError
from service.settings import NODE, is_node

MAX_CONTEXTS = 128  # presentation context ids are the odd numbers of one byte (PS3.8 9.3.2.2)
SUCCESS = 0x0000
ECHO_TIMEOUT_S = 5
NO_DICOM = "no DICOM file with a SOP Class and Instance UID: send the original of the modality or the PACS"
CLASS_REFUSED = "the peer refused its SOP class or transfer syntax"
REJECTED_TRANSIENT = 0x02  # PS3.8 9.3.4: the same association may be accepted later
VERIFICATION = UID("1.2.840.10008.1.1")


@dataclass(frozen=True, slots=True)
class Node:
    """A DICOM node: AE title, host name or address, port."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Node":
        """Read ``AET@HOST:PORT``; raises ConfigurationError with the expected form."""
        match = NODE.fullmatch(text)
        if match is None or not is_node(text):
            raise ConfigurationError(f"'{text}' names no DICOM node.", cure="Write it as AET@HOST:PORT.")
        return cls(match["aet"], match["host"].strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file: the C-STORE status, or None with the reason why it was not sent."""

    path: Path
    sop_instance_uid: str
    status: int | None
    reason: str = ""

    @property
    def stored(self) -> bool:
        """Success, or one of the warnings after which the peer has kept the instance (PS3.4 B.2.3)."""
        return self.status is not None and (self.status == SUCCESS or 0xB000 <= self.status <= 0xBFFF)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    path: Path
    sop_class: UID
    sop_instance_uid: str
    transfer_syntax: UID


def dicom_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files themselves and, for folders, every file below them, in order of name."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        else:
            yield path


def send(
    paths: Iterable[Path],
    node: Node,
    *,
    calling_ae_title: str = "SONOMARK",
    on_sent: Callable[[Sent], None] = lambda _: None,
) -> list[Sent]:
    """C-STORE every file to ``node``; calls ``on_sent`` after each.

    Files that are no DICOM, or whose context the peer refuses, are reported and the run goes on, also when it refuses
    every context. Raises PeerError when no association can be had at all.
    """
    results: list[Sent] = []

    def report(sent: Sent) -> None:
        results.append(sent)
        on_sent(sent)

    outgoing = []
    for path in dicom_files(paths):
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
            outgoing.append(
                _Outgoing(path, header.SOPClassUID, header.SOPInstanceUID, header.file_meta.TransferSyntaxUID)
            )
        except OSError as error:
            report(Sent(path, "", None, f"cannot be read: {error.strerror or error}"))
        except (InvalidDicomError, AttributeError):
            report(Sent(path, "", None, NO_DICOM))

    for batch in _batches(outgoing):
        association = _associate(node, calling_ae_title, batch)
        if association is None:
            for item in batch:
                report(Sent(item.path, item.sop_instance_uid, None, CLASS_REFUSED))
            continue
        try:
            for item in batch:
                report(_store(association, item))
        finally:
            association.release()
    return results


def echo(node: Node, *, calling_ae_title: str = "SONOMARK", tls: tuple[SSLContext, str] | None = None) -> None:
    """C-ECHO, by TLS where its context and the name to ask for are given.

    Raises PeerError, which names the step that failed: name, connection, association (TLS with it) or echo.
    """
    try:
        with socket.create_connection((node.host, node.port), timeout=ECHO_TIMEOUT_S):
            pass
    except socket.gaierror as error:
        raise PeerError(f"The name {node.host} is not known.", cure="Check the address.") from error
    except TimeoutError as error:
        raise PeerError(f"{node.host}:{node.port} does not answer.", cure="Check address and firewall.") from error
    except OSError as error:
        raise PeerError(f"{node.host}:{node.port} refuses the connection.", cure="Check port and peer.") from error
    ae = CallingEntity(calling_ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = ECHO_TIMEOUT_S
    contexts = [build_context(VERIFICATION)]
    association = associate(ae, node.host, node.port, contexts=contexts, ae_title=node.ae_title, tls_args=tls)
    if not association.is_established:
        of_tls = ", that it speaks TLS there, and its certificate" if tls is not None else ""
        raise _not_accepted(node, association, f"Check AE titles, address and port{of_tls}.")
    try:
        status = association.send_c_echo()
        if getattr(status, "Status", None) != SUCCESS:
            raise PeerError(f"{node} did not answer C-ECHO with success.", cure="Its own log says why.")
    finally:
        association.release()


def _batches(outgoing: list[_Outgoing]) -> Iterator[list[_Outgoing]]:
    """Groups whose distinct (SOP class, transfer syntax) pairs fit one association, and what else they may go by."""
    contexts = list(dict.fromkeys((item.sop_class, item.transfer_syntax) for item in outgoing))
    remaining = iter(contexts)
    while group := set(islice(remaining, MAX_CONTEXTS // 2)):
        yield [item for item in outgoing if (item.sop_class, item.transfer_syntax) in group]


def _contexts(batch: list[_Outgoing]) -> list[PresentationContext]:
    """One syntax each: the peer must take the file's own syntax or refuse, never pick another one.

    What is in Explicit VR Little Endian may go in Implicit VR too, which every peer has (PS3.5 section 10.1), where it
    takes that alone.
    """
    own = dict.fromkeys((item.sop_class, item.transfer_syntax) for item in batch)
    implicit = ((sop_class, ImplicitVRLittleEndian) for sop_class, syntax in own if syntax == ExplicitVRLittleEndian)
    return [build_context(sop_class, syntax) for sop_class, syntax in dict.fromkeys((*own, *implicit))]


def _associate(node: Node, calling_ae_title: str, batch: list[_Outgoing]) -> Association | None:
    """An association; None when the peer answers, and takes nothing of what it is offered."""
    ae = CallingEntity(calling_ae_title)
    ae.connection_timeout = 10
    association = associate(ae, node.host, node.port, contexts=_contexts(batch), ae_title=node.ae_title)
    if not association.is_established:
        if association.rejected_contexts:
            return None
        cure = "Check AE titles, address and port, and whether the peer allows this calling AE title."
        raise _not_accepted(node, association, cure)
    return association


def _not_accepted(node: Node, association: Association, cure: str) -> PeerError:
    answer = association.acceptor.primitive
    if association.is_rejected and getattr(answer, "result", None) == REJECTED_TRANSIENT:
        return PeerError(f"{node} accepts no association at the moment.", cure="It is busy or drains: try again later.")
    return PeerError(f"{node} does not accept an association.", cure=cure)


def _store(association: Association, item: _Outgoing) -> Sent:
    if not association.is_established:
        return Sent(item.path, item.sop_instance_uid, None, "the association was lost")
    try:
        answer = association.send_c_store(item.path)
    except ValueError:
        return Sent(item.path, item.sop_instance_uid, None, CLASS_REFUSED)
    except (RuntimeError, AttributeError, OSError) as error:
        return Sent(item.path, item.sop_instance_uid, None, type(error).__name__)
    status = getattr(answer, "Status", None)
    if status is None:
        return Sent(item.path, item.sop_instance_uid, None, "no answer: timed out or aborted")
    return Sent(item.path, item.sop_instance_uid, int(status), str(getattr(answer, "ErrorComment", "")))
