"""C-FIND, C-GET and C-MOVE as a user (PS3.4 annex C): what a PACS has, and how to have it sent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from service.deliver.association import CallingEntity, associate
from service.deliver.send import Node
from service.errors import PeerError, PeerRefused
from service.receive.contexts import SECONDARY_CAPTURE_IMAGE, TRANSFER_SYNTAXES, ULTRASOUND, VIDEO

FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve Information Model
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
PENDING = (0xFF00, 0xFF01)
SUCCESS = 0x0000
SOME_FAILED = 0xB000  # sub-operations complete, one or more failures: what is missing is asked for again
MOST_CONTEXTS = 128
TIMEOUT_S = 60.0

_TS = "1.2.840.10008.1.2"
# One context each, so that the PACS sends what it keeps. What ultrasound is usually kept in; videos and others follow.
SYNTAXES = (
    *(f"{_TS}.{each}" for each in ("1", "4.50", "4.70", "4.57", "4.80", "4.81", "4.90", "4.91", "5", "4.51", "4.102")),
    _TS,
)

Stored = Callable[[Any], int]  # a C-STORE event; the status that answers it


@contextmanager
def associated(
    node: Node, calling: str, contexts: Sequence[PresentationContext], on_store: Stored | None = None
) -> Iterator[Association]:
    """An association, released at the end. Raises PeerError when there is none to be had."""
    ae = CallingEntity(calling)
    ae.connection_timeout, ae.acse_timeout = 10, 30
    ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    roles: list[Any] = [build_role(sop_class, scp_role=True) for sop_class in _classes(contexts)] if on_store else []
    handlers: list[Any] = [(evt.EVT_C_STORE, on_store)] if on_store else []
    association = associate(
        ae, node.host, node.port, contexts=list(contexts), ae_title=node.ae_title, ext_neg=roles, evt_handlers=handlers
    )
    if not association.is_established:
        raise PeerError(
            f"{node} does not accept an association.",
            cure="Check AE titles, address and port, and that the PACS lets this AE title query and retrieve.",
        )
    try:
        yield association
    finally:
        association.release()


def find_context() -> list[PresentationContext]:
    return [build_context(FIND)]


def get_contexts(sop_classes: Iterable[str]) -> list[PresentationContext]:
    """C-GET, and storage of these classes in every syntax that is taken, as far as an association has room.

    Where a class is empty, for SOP Class UID is an optional key, what ultrasound is kept as is offered too.
    """
    classes = set(sop_classes)
    if "" in classes:
        classes = classes - {""} | {*ULTRASOUND, SECONDARY_CAPTURE_IMAGE}
    syntaxes = dict.fromkeys((*SYNTAXES, *VIDEO, *TRANSFER_SYNTAXES))
    storage = [build_context(sop_class, syntax) for syntax in syntaxes for sop_class in sorted(classes)]
    return [build_context(GET), *storage][:MOST_CONTEXTS]


def move_context() -> list[PresentationContext]:
    return [build_context(MOVE)]


def studies_of(association: Association, day: date, modality: str) -> list[str]:
    """Study Instance UIDs of a day."""
    keys = {"StudyDate": day.strftime("%Y%m%d"), "ModalitiesInStudy": modality, "StudyInstanceUID": ""}
    return [str(found.StudyInstanceUID) for found in _find(association, "STUDY", keys) if "StudyInstanceUID" in found]


def instances_of(association: Association, study: str, modality: str) -> list[tuple[str, str, str]]:
    """(series, SOP instance, SOP class) UIDs of a study's instances of this modality, the class empty if not told.

    Raises:
        PeerRefused: the PACS cannot say. PeerError: it does not answer.
    """
    found = []
    series_keys = {"StudyInstanceUID": study, "SeriesInstanceUID": "", "Modality": modality}
    for series in list(_find(association, "SERIES", series_keys)):
        if "SeriesInstanceUID" not in series or (modality and str(series.get("Modality", modality)) != modality):
            continue  # a PACS that does not match by modality
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": str(series.SeriesInstanceUID)}
        for image in _find(association, "IMAGE", keys | {"SOPInstanceUID": "", "SOPClassUID": ""}):
            if "SOPInstanceUID" not in image:
                continue
            sop_class = str(image.get("SOPClassUID", ""))
            found.append((str(series.SeriesInstanceUID), str(image.SOPInstanceUID), sop_class))
    return found


def get(association: Association, study: str, series: str, instances: Sequence[str]) -> None:
    """C-GET these instances; they come as C-STOREs on the same association. Raises PeerError on a refusal."""
    _retrieve(association.send_c_get(_images(study, series, instances), GET), "C-GET")


def move(association: Association, destination: str, study: str, series: str, instances: Sequence[str]) -> None:
    """C-MOVE these instances to an AE that the PACS knows. Raises PeerError on a refusal."""
    _retrieve(association.send_c_move(_images(study, series, instances), destination, MOVE), "C-MOVE")


def _images(study: str, series: str, instances: Sequence[str]) -> Dataset:
    return _keys("IMAGE", {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": list(instances)})


def _keys(level: str, keys: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(dataset, name, value)
    return dataset


def _find(association: Association, level: str, keys: dict[str, Any]) -> Iterator[Dataset]:
    for status, found in association.send_c_find(_keys(level, keys), FIND):
        code = getattr(status, "Status", None)
        if code in PENDING and found is not None:
            yield found
        elif code != SUCCESS:
            raise (PeerError if code is None else PeerRefused)(
                f"The PACS answered C-FIND with {_words(code)}.",
                cure="Its own log says why; the next run goes on from here.",
            )


def _retrieve(answers: Iterator[tuple[Dataset, Dataset | None]], what: str) -> None:
    for status, _ in answers:
        code = getattr(status, "Status", None)
        if code in PENDING or code in (SUCCESS, SOME_FAILED):
            continue
        raise PeerError(
            f"The PACS answered {what} with {_words(code)}.",
            cure="0xA801: the PACS does not know our AE title as a destination." if code == 0xA801 else "",
        )


def _words(code: int | None) -> str:
    return "nothing: timed out or aborted" if code is None else f"0x{code:04X}"


def _classes(contexts: Sequence[PresentationContext]) -> list[str]:
    """The storage classes among the contexts, each once."""
    return list(dict.fromkeys(str(context.abstract_syntax) for context in contexts if context.abstract_syntax != GET))
