"""What is usually wrong with a machine: `doctor` and the start of a role name the cause and the cure."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import create_engine, text

from service import doctor
from service.archive.store import ArchiveStore
from service.db import census, heartbeats, schema
from service.db.session import database
from service.doctor import Check, examine
from service.errors import BrokerAway, ConfigurationError, DatabaseAway, SchemaError
from service.settings import Settings, settings
from tests.faults.servers import Redis
from tests.receive.test_tls import Authority


@pytest.fixture
def set_to(house: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settings]]:
    """The settings with some of them changed, in force for this test."""

    def change(**more: str) -> Settings:
        for name, value in more.items():
            monkeypatch.setenv(f"SONOMARK_{name}", value)
        settings.cache_clear()
        database.cache_clear()
        return settings()

    yield change
    monkeypatch.delenv("SONOMARK_DATABASE_URL", raising=False)
    settings.cache_clear()
    database.cache_clear()


def _answer(name: str) -> Check:
    return next(check for check in examine(settings()) if check.name == name)


def _start(role: str) -> subprocess.CompletedProcess[str]:
    """A role on this test's settings, as an operator starts it."""
    command = [sys.executable, "-m", "service.cli", role]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)


def test_a_setting_whose_name_is_misspelt(set_to: Callable[..., Settings]) -> None:
    set_to(SERVICE_HOST="10.0.0.1", PORT_80_TCP="tcp://10.0.0.1:80")  # as Kubernetes gives them
    assert _answer("settings").ok
    set_to(PEER="US01@10.1.4.13")
    wrong = _answer("settings")
    assert not wrong.ok and "SONOMARK_PEER is no setting; SONOMARK_PEERS is one" in wrong.answer and wrong.cure
    assert "US01" not in str(wrong)


def test_a_role_says_what_it_does_not_heed(set_to: Callable[..., Settings]) -> None:
    set_to(PEER="US01@10.1.4.13")
    schema.migrate()
    command = [sys.executable, "-m", "service.cli", "sweep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as role:
        assert role.stdout is not None
        try:
            said = next(line for line in role.stdout if "setting not heeded" in line)
        finally:
            role.terminate()
    assert "SONOMARK_PEERS is one" in said


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u:secret@127.0.0.1:port/d", "oracle99://u:secret@db/d", "no url at all"]
)
def test_a_database_url_that_is_none(set_to: Callable[..., Settings], url: str) -> None:
    set_to(DATABASE_URL=url)
    answer = _answer("database")
    assert not answer.ok and "SONOMARK_DATABASE_URL cannot be used" in str(answer)
    assert "postgresql+psycopg://USER@HOST" in str(answer) and "secret" not in str(answer)
    started = _start("sweep")
    assert started.returncode == 1 and "SONOMARK_DATABASE_URL cannot be used" in started.stderr
    assert "secret" not in started.stderr


def test_a_database_that_is_not_there(set_to: Callable[..., Settings]) -> None:
    set_to(DATABASE_URL="postgresql+psycopg://u@127.0.0.1:1/d")
    assert "Connection refused" in str(_answer("database"))
    started = _start("receive")
    assert started.returncode == 1 and "refused" in started.stderr and "Check that the database runs" in started.stderr


def test_a_database_that_is_another(set_to: Callable[..., Settings], postgres: str) -> None:
    set_to(DATABASE_URL=postgres.rpartition("/")[0] + "/another?" + postgres.partition("?")[2])
    answer = _answer("database")
    assert not answer.ok and "another" in str(answer) and DatabaseAway.cure in str(answer)


def test_a_schema_that_is_missing_too_old_or_too_new(set_to: Callable[..., Settings]) -> None:
    set_to()
    assert not _answer("database").ok and SchemaError.cure in str(_answer("database"))
    schema.migrate("0001")
    assert "too old" in str(_answer("database")) and SchemaError.cure in str(_answer("database"))
    started = _start("work")
    assert started.returncode == 1 and "too old" in started.stderr and "sonomark migrate" in started.stderr
    schema.migrate()
    assert _answer("database").ok
    engine = create_engine(database().url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'future'"))
        connection.execute(text("DELETE FROM schema_window"))
    engine.dispose()
    assert "newer" in str(_answer("database")) and "Install the newer Sonomark" in str(_answer("database"))
    started = _start("work")
    assert started.returncode == 1 and "newer" in started.stderr
    migrated = _start("migrate")
    assert migrated.returncode == 1 and "newer" in migrated.stderr and "restore the backup" in migrated.stderr
    assert "Traceback" not in migrated.stderr


@pytest.mark.parametrize(
    ("installed", "cause", "cure"),
    [
        ({"onnxruntime", "onnxruntime-gpu"}, "overwrite each other", "pip uninstall"),
        (set(), "not installed", "sonomark[cpu]"),
    ],
)
def test_both_runtimes_or_none(monkeypatch: pytest.MonkeyPatch, installed: set[str], cause: str, cure: str) -> None:
    def version(package: str) -> str:
        if package in installed:
            return "1.23"
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ConfigurationError, match=cause) as refused:
        doctor.onnxruntime(settings())
    assert cure in str(refused.value)


def test_a_gpu_worker_without_cuda(set_to: Callable[..., Settings]) -> None:
    set_to(PROVIDER="cuda")
    answer = _answer("network")
    if answer.ok:
        pytest.skip("this machine has a GPU")
    assert "CUDA" in str(answer) and "sonomark[gpu]" in str(answer)
    schema.migrate()
    started = _start("work")
    assert started.returncode == 1 and "CUDA was asked for and is not there" in started.stderr
    assert "SONOMARK_PROVIDER=cpu" in started.stderr
    assert "sonomark[gpu]" in _start("doctor").stdout, "brackets are no markup"


@pytest.mark.parametrize("skew_s", [-7.0, 3.0])
def test_a_clock_that_is_wrong(
    set_to: Callable[..., Settings], postgres: str, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    set_to(DATABASE_URL=postgres)
    assert doctor.clock(settings()).endswith("s from the database's")
    here = census.time.time
    monkeypatch.setattr(census.time, "time", lambda: here() + skew_s)
    answer = _answer("clock")
    assert not answer.ok and "chronyc" in str(answer)
    assert ("behind" if skew_s < 0 else "ahead of") in str(answer)


@pytest.mark.parametrize("server", ["postgresql", "sqlite"])
def test_a_database_without_tables_is_named_and_nothing_else_falls(
    set_to: Callable[..., Settings], postgres: str, server: str
) -> None:
    """The first thing anybody does after installing PostgreSQL."""
    set_to(DATABASE_URL=postgres if server == "postgresql" else "")
    answers = {check.name: check for check in doctor.examine(settings())}
    assert not answers["database"].ok and SchemaError.cure in str(answers["database"])
    assert {"clock", "broker", "DICOM peers"} <= answers.keys()
    for name in ("text", "storage", "archived objects"):
        assert answers[name] == Check(name, False, "not examined, see database"), "the cause is told once"


@pytest.mark.parametrize("place", ["sonomark:wrong@127.0.0.1:{port}", "127.0.0.1:1"])
def test_a_broker_that_is_away_or_lets_nobody_in(set_to: Callable[..., Settings], tmp_path: Path, place: str) -> None:
    server = Redis(tmp_path)
    try:
        set_to(BROKER_URL=f"redis://{place.format(port=server.port)}/0")
        answer = _answer("broker")
    finally:
        server.kill()
    assert not answer.ok and BrokerAway.cure in str(answer)
    assert ("username-password" if "wrong" in place else "refused") in str(answer)


def test_the_disk_that_counts_is_the_archives(set_to: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not DATA_DIR's, which in containers is a few megabytes of memory."""
    set_to(DATABASE_URL="postgresql+psycopg://u@127.0.0.1:1/d")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: pytest.fail("DATA_DIR holds no database here"))
    monkeypatch.setattr(ArchiveStore, "free_bytes", lambda _: 100 << 30)
    assert _answer("disk") == Check("disk", True, "100 GB free")
    monkeypatch.setattr(ArchiveStore, "free_bytes", lambda _: 900 << 20)
    answer = _answer("disk")
    assert not answer.ok and "900 MB are free on the archive's disk" in answer.answer and "larger disk" in answer.cure


@pytest.mark.parametrize(("days", "told"), [(-1, "ended on"), (10, "ends on")])
def test_a_certificate_that_ends_is_named_in_time(
    set_to: Callable[..., Settings], tmp_path: Path, days: int, told: str
) -> None:
    long, short = timedelta(days=400), timedelta(days=days)
    authority = Authority(tmp_path)
    lasting, ending = (authority.issue_for("sonomark", timedelta(days=-30), each).certificate for each in (long, short))
    set_to(HTTP_CERTIFICATE=str(lasting), DICOM_CERTIFICATE=str(lasting))
    schema.migrate()
    assert _answer("certificates").ok and "the dashboard until 2" in _answer("certificates").answer
    set_to(HTTP_CERTIFICATE=str(ending))
    answer = _answer("certificates")
    assert (
        not answer.ok and f"that of the dashboard {told} 2" in answer.answer and "restart the dashboard" in answer.cure
    )
    assert "DICOM" not in answer.answer


def test_receivers_say_when_their_certificate_ends(set_to: Callable[..., Settings], tmp_path: Path) -> None:
    """Theirs lies on their machine: what counts is what the running ones show."""
    set_to()
    schema.migrate()
    assert "none that could be looked at" in _answer("certificates").answer
    with database().begin() as session:
        heartbeats.beat(session, "receive", {"certificate_ends": "2020-02-29T00:00:00+00:00"})
    assert "that of the DICOM port ended on 2020-02-29" in _answer("certificates").answer


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_certificate_that_cannot_be_read(
    set_to: Callable[..., Settings], tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "own.pem"
    if content is not None:
        file.write_bytes(content)
    set_to(HTTP_CERTIFICATE=str(file))
    schema.migrate()
    answer = _answer("certificates")
    assert not answer.ok and str(file) in answer.answer and answer.cure


def test_what_browsers_are_shown_is_looked_at_where_it_can_be(set_to: Callable[..., Settings], tmp_path: Path) -> None:
    """A proxy's certificate lies elsewhere; the address in links leads to it."""
    pair = Authority(tmp_path).issue_for("localhost", timedelta(days=-1), timedelta(days=3))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def shake_hands_once() -> None:
            with contextlib.suppress(OSError):
                context.wrap_socket(listening.accept()[0], server_side=True).close()

        Thread(target=shake_hands_once, daemon=True).start()
        set_to(PUBLIC_URL=f"https://127.0.0.1:{port}")
        schema.migrate()
        assert "that of 127.0.0.1 ends on" in _answer("certificates").answer
    assert _answer("certificates").ok, "where nobody listens nothing is known"


def test_a_role_names_the_setting_that_it_cannot_begin_with(set_to: Callable[..., Settings], tmp_path: Path) -> None:
    schema.migrate()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for role, wrong, named in (
            ("sweep", {"METRICS_PORT": port}, "SONOMARK_METRICS_PORT"),
            ("review", {"METRICS_PORT": "0", "HTTP_PORT": port}, "SONOMARK_HTTP_PORT"),
            ("review", {"HTTP_PORT": "0", "HTTP_CERTIFICATE": str(tmp_path / "none.pem")}, "SONOMARK_HTTP_CERTIFICATE"),
            ("review", {"SECOND_FACTOR_ROLES": "admin,boss"}, "SONOMARK_SECOND_FACTOR_ROLES"),
        ):
            set_to(**wrong)
            refused = _start(role)
            assert refused.returncode == 1 and named in refused.stderr, refused.stderr
            assert "Traceback" not in refused.stderr
