"""Which sender gets which SOP class in which transfer syntax into the archive, and how much of it unchanged."""

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from pydicom import dcmread

from service.db.session import Database
from service.db.tables import Instance
from service.dicom.header import data_set_position
from service.receive.contexts import TRANSFER_SYNTAXES
from tests.faults.parts import Parts
from tests.interoperability import instances
from tests.interoperability.senders import SENDERS, Missing

SAME, AGAIN, NOTHING = "=", "≈", "–"
Outcomes = dict[tuple[str, str, str], str]  # sender, SOP class, transfer syntax


def measure(house: Parts, folder: Path) -> Outcomes:
    """Send everything with every sender to a receiver that runs; what arrived."""
    outcomes: Outcomes = {}
    for sender, send in SENDERS.items():
        work = folder / sender.replace(" ", "-")
        (work / "files").mkdir(parents=True)
        files = instances.write(work / "files")
        send(list(files.values()), house.dicom_port, work)
        arrived = _arrived(house)
        for (sop_class, syntax), file in files.items():
            outcomes[sender, sop_class, syntax] = _outcome(file, syntax, arrived)
    return outcomes


def document(outcomes: Outcomes) -> str:
    """The table of docs/interoperability.md."""
    lines = [
        f"| transfer syntax | {' | '.join(SENDERS)} |",
        f"|---|{'---|' * len(SENDERS)}",
    ]
    for syntax, name in TRANSFER_SYNTAXES.items():
        cells = [_cell({c: outcomes[sender, c, syntax] for c in instances.CLASSES}) for sender in SENDERS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(by_class: Mapping[str, str]) -> str:
    """One sign when all SOP classes fare alike, otherwise the classes that fare otherwise by name."""
    [(usual, _), *_] = Counter(by_class.values()).most_common()
    others = [f"{instances.CLASSES[uid]} {outcome}" for uid, outcome in by_class.items() if outcome != usual]
    return usual if not others else f"{usual} ({'; '.join(others)})"


def _outcome(file: Path, syntax: str, arrived: dict[str, tuple[str, str]]) -> str:
    found = arrived.get(str(dcmread(file, stop_before_pixels=True).SOPInstanceUID))
    if found is None:
        return NOTHING
    stored_syntax, digest = found
    if stored_syntax != syntax:
        return f"→ {TRANSFER_SYNTAXES[stored_syntax]}"
    return SAME if digest == sha256(file.read_bytes()[data_set_position(file.read_bytes()) :]).hexdigest() else AGAIN


def _arrived(house: Parts) -> dict[str, tuple[str, str]]:
    database = Database(house.database_url)
    with database.read() as session:
        rows = session.query(Instance.sop_instance_uid, Instance.transfer_syntax_uid, Instance.sha256).all()
    database.dispose()
    return {uid: (syntax, digest) for uid, syntax, digest in rows}


__all__ = ["Missing", "document", "measure"]
