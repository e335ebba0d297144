"""Self-check: every usual cause of trouble, each with its cure."""

import shutil
import socket
import ssl
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from kombu.exceptions import OperationalError
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from service import __version__, certificates
from service.analyse.text import models
from service.archive.store import archive
from service.compliance import rulebook
from service.compliance.check import errors_among, lint
from service.db import census, checks, heartbeats, peers, rulebooks, schema
from service.db.days import day_of
from service.db.session import database
from service.db.tables import now
from service.errors import BrokerAway, ConfigurationError, DamagedObject, DatabaseAway, SonomarkError, StorageError
from service.jobs.app import app
from service.settings import Settings, misspelt

LOW_DISK_MB = 2048
MOST_SKEW_S = 2.0
SOON = timedelta(days=30)  # in which a certificate that ends should be replaced
PUBLIC_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One question asked of this machine, the answer, and what to do where it is not well."""

    name: str
    ok: bool
    answer: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.answer} {self.cure}".rstrip()


def examine(settings: Settings, only: Collection[str] = ()) -> Iterator[Check]:
    """Every check in turn, or ``only`` those of these names; one that fails says what to do, and one that fails for a
    reason given before says where."""
    questions: list[tuple[str, Callable[[Settings], str]]] = [
        ("version", _version),
        ("Python", _python),
        ("settings", spelling),
        ("ONNX Runtime", onnxruntime),
        ("network", _network),
        ("rule book", _rulebook),
        ("database", _database),
        ("text", _text),
        ("data folder", _data_folder),
        ("archive", _archive),
        ("disk", _disk),
        ("storage", _storage),
        ("clock", clock),
        ("time zone", _time_zone),
        ("archived objects", _archived_objects),
        ("broker", _broker),
        ("DICOM port", _dicom_port),
        ("DICOM peers", _peers),
        ("certificates", _certificates),
    ]
    told: dict[str, str] = {}
    for name, question in questions:
        if only and name not in only:
            continue
        try:
            yield Check(name, True, question(settings))
        except (SonomarkError, OSError) as error:
            before = told.setdefault(str(error), name)
            yield _failed(name, error) if before == name else Check(name, False, f"not examined, see {before}")


def _failed(name: str, error: SonomarkError | OSError) -> Check:
    if isinstance(error, SonomarkError):
        return Check(name, False, error.what, error.cure)
    return Check(name, False, str(error))


def _version(_: Settings) -> str:
    return f"Sonomark {__version__}"


def _python(_: Settings) -> str:
    return sys.version.split()[0]


def spelling(_: Settings) -> str:
    """A setting whose name is misspelt is not heeded, and what it was to close stays open.

    Raises ConfigurationError for names that are nearly a setting's.
    """
    if wrong := misspelt():
        told = " ".join(f"{name} is no setting; {meant} is one." for name, meant in wrong.items())
        raise ConfigurationError(told, cure="Correct the name: what it says is not heeded.")
    return "every name is known"


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def onnxruntime(_: Settings) -> str:
    """Which of the two wheels is installed; raises ConfigurationError when it is both or none."""
    cpu, gpu = _installed("onnxruntime"), _installed("onnxruntime-gpu")
    if cpu and gpu:
        raise ConfigurationError(
            "Both onnxruntime and onnxruntime-gpu are installed; they overwrite each other's files.",
            cure="pip uninstall -y onnxruntime onnxruntime-gpu, then install sonomark[cpu] or sonomark[gpu].",
        )
    if not cpu and not gpu:
        raise ConfigurationError("ONNX Runtime is not installed.", cure="pip install 'sonomark[cpu]' or '[gpu]'.")
    openvino = _installed("openvino")
    return (
        f"onnxruntime {cpu}" + (f" with OpenVINO {openvino}" if openvino else "") if cpu else f"onnxruntime-gpu {gpu}"
    )


def _network(settings: Settings) -> str:
    from service.analyse.pipeline import reading
    from service.analyse.restoration import load_network  # half a second and 60 MB that other roles do without

    network = load_network(settings)
    reading(network.card)
    return f"{network.name} on {network.provider}"


def _rulebook(settings: Settings) -> str:
    book = rulebook.load(settings.rulebook)
    wrong = errors_among(lint(settings.rulebook))
    if wrong:
        raise ConfigurationError(
            "\n".join(problem.against(settings.rulebook) for problem in wrong), cure="Correct the rule book."
        )
    return f"{book.name} {book.version}, {len(book.requirements)} requirements"


def _text(settings: Settings) -> str:
    """Whether what the rule book asks of burned-in text can be answered."""
    with _tables() as session:
        asked = settings.read_text == "always" or rulebooks.in_force_now(session).asks_for_text
    if not asked or settings.read_text == "never":
        return "not asked for"
    models()
    return "read where the rule book asks for it"


def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.write_bytes(b"")
    probe.unlink()
    return str(folder)


def _archive(_: Settings) -> str:
    return archive().check()


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _disk(settings: Settings) -> str:
    """Room for images and, where it is embedded, the database. What else DATA_DIR holds in containers is small."""
    places = {"archive": archive().free_bytes()}
    if database().engine.dialect.name == "sqlite":
        places["database"] = shutil.disk_usage(_existing(settings.data_dir.resolve())).free
    place, free = min(places.items(), key=lambda each: each[1])
    free_mb = free >> 20
    if free_mb < max(LOW_DISK_MB, 2 * settings.disk_reserve_mb):
        raise ConfigurationError(
            f"Only {free_mb} MB are free on the {place}'s disk; C-STORE answers 0xA700 below"
            f" {settings.disk_reserve_mb} MB.",
            cure="Free space there or give it a larger disk.",
        )
    return f"{free_mb / 1024:.0f} GB free"


def _storage(_: Settings) -> str:
    """Whether the disk keeps what it is given, and whether a receiver has lost its trust in it."""
    archive().prove()
    with _tables() as session:
        suspended = heartbeats.suspended(session, "receive")
    if suspended:
        raise StorageError(
            f"A receiver takes nothing in: {suspended}",
            cure="Look at its disk (`dmesg`, `smartctl`); receiving goes on once storage has passed its test.",
        )
    return "written, synced and read back from the disk"


def _database(_: Settings) -> str:
    return f"{database().engine.dialect.name}, schema {schema.require_usable(database())}"


@contextmanager
def _tables() -> Iterator[Session]:
    """Read what only a database with this version's tables holds. Raises SchemaError where it lacks them."""
    schema.require_file(database())
    try:
        with database().read() as session:
            yield session
    except (ProgrammingError, DatabaseAway):
        schema.require_usable(database())  # SQLite says of a missing table what it says of a damaged file
        raise


def clock(_: Settings) -> str:
    """How far this machine's clock is from the database's; raises ConfigurationError when that is too far."""
    if database().engine.dialect.name == "sqlite":
        return "one machine, one clock"
    with database().read() as session:
        skew_s = census.clock_skew(session)
    if abs(skew_s) > MOST_SKEW_S:
        which = "ahead of" if skew_s > 0 else "behind"
        raise ConfigurationError(
            f"This machine's clock is {abs(skew_s):.1f} s {which} the database's: studies would settle at wrong times.",
            cure="Bring NTP back on both machines (`chronyc tracking`).",
        )
    return f"{skew_s:+.2f} s from the database's"


def _time_zone(settings: Settings) -> str:
    """Whose days and clock the pages speak of."""
    own = "" if settings.time_zone else ", this machine's own; SONOMARK_TIME_ZONE sets the hospital's"
    return f"{settings.zone().key}{own}"


def _archived_objects(_: Settings) -> str:
    with _tables() as session:
        found = checks.health(session)
    if found.ill:
        raise DamagedObject(
            f"{found.damaged} archived objects are damaged and {found.missing} missing.",
            cure="`sonomark archive status` lists them; restore them from backup or have their studies sent again.",
        )
    return f"{found.stored} stored, {found.checked} of them looked at since they arrived"


def _broker(settings: Settings) -> str:
    connection = app().connection_for_write(connect_timeout=3)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
    except (OSError, OperationalError, *connection.connection_errors) as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise BrokerAway(f"The broker does not answer: {why}.") from error
    finally:
        connection.release()
    return settings.broker().split("://")[0]


def _dicom_port(settings: Settings) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        taken = probe.connect_ex(("127.0.0.1", settings.dicom_port)) == 0
    return f"{settings.dicom_port} " + ("in use (by the running receiver?)" if taken else "free")


def _peers(settings: Settings) -> str:
    """Whom the receiver lets in; raises ConfigurationError when that is nobody."""
    with _tables() as session:
        door = peers.door(session, settings.peers)
    if door.open_to_all:
        return "open to every caller: set SONOMARK_PEERS, or enter peers on the page Peers, before real use"
    if door.closed:
        raise ConfigurationError(
            "Nobody may send: every peer that was entered is disabled.",
            cure="Enable or enter one on the page Peers, or open the door to all there.",
        )
    entered = f"{door.let_in} entered on the page Peers" if door.let_in else ""
    return "; ".join(filter(None, (", ".join(door.of_settings), entered)))


def _certificates(settings: Settings) -> str:
    """Until when the certificates hold that senders and browsers are shown; raises ConfigurationError when one of them
    ends within thirty days."""
    ends = dict(sorted(_ends(settings), key=lambda each: each[1]))
    over = [f"that of {name} {_ended(end)}" for name, end in ends.items() if end - now() < SOON]
    if over:
        raise ConfigurationError(
            f"A certificate has to be replaced: {', '.join(over)}.",
            cure="Put the new one in its file. Receivers read it again by themselves; restart the dashboard, and reload"
            " a proxy that shows its own.",
        )
    held = ", ".join(f"{name} until {day_of(end)}" for name, end in ends.items())
    return held or "none that could be looked at from here"


def _ended(end: datetime) -> str:
    return f"{'ended' if end <= now() else 'ends'} on {day_of(end)}"


def _ends(settings: Settings) -> Iterator[tuple[str, datetime]]:
    """Whose certificates, and when they end: this machine's, the receivers' and that of the address in links."""
    if settings.http_certificate:
        yield "the dashboard", certificates.end_of(Path(settings.http_certificate))
    with _tables() as session:
        said = [each.detail.get("certificate_ends") for each in heartbeats.details(session, "receive")]
    if known := [datetime.fromisoformat(end) for end in said if end]:
        yield "the DICOM port", min(known)
    elif settings.dicom_certificate:
        yield "the DICOM port", certificates.end_of(settings.dicom_certificate)
    public = urlsplit(settings.public_url)
    if public.scheme == "https" and public.hostname:
        try:
            shown = ssl.get_server_certificate((public.hostname, public.port or 443), timeout=PUBLIC_PATIENCE_S)
        except OSError:
            return  # a hospital's name need not lead back here from inside its containers
        yield public.hostname, certificates.first_end(shown.encode())
