"""The dashboard as a real HTTP server, and dicomweb-client as an independent peer."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import pytest
import requests
import uvicorn
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from service.archive.cache import pictures
from service.archive.store import archive
from service.db import users
from service.db.session import Database
from service.db.tables import Role
from service.dicomweb import store
from service.review import deps
from service.review.app import create_app
from tests.archive.conftest import s3, s3_server  # noqa: F401 - fixtures


@dataclass
class Server:
    url: str  # of the DICOMweb room
    db: Database

    def token(self, role: Role = Role.ADMIN, scope: str = "admin", site: str = "") -> str:
        name = f"{role.value}-{scope}-{site}".rstrip("-")
        with self.db.begin() as session:
            user = users.find_user(session, name) or users.create_user(session, name, role, site=site)
            return users.make_api_token(session, user, "test", scope, None)

    def session(self, role: Role = Role.ADMIN, scope: str = "admin", site: str = "") -> requests.Session:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.token(role, scope, site)}"
        return session

    def client(self, role: Role = Role.ADMIN, scope: str = "admin", site: str = "") -> DICOMwebClient:
        return DICOMwebClient(self.url, session=self.session(role, scope, site))


@pytest.fixture
def server(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for cached in (archive, pictures, deps.secret_key, store.intake):
        cached.cache_clear()
    running = uvicorn.Server(uvicorn.Config(create_app(), host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not running.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield Server(f"http://127.0.0.1:{port}/dicomweb", db)
    running.should_exit = True
    thread.join(10)
    # What was stored last is rung for up to a quarter of a second later: not in the house of the next test.
    if store.intake.cache_info().currsize:
        while store.intake()._bell._pressed.is_set():
            time.sleep(0.02)
        time.sleep(0.05)
    store.intake.cache_clear()
    archive.cache_clear()


@pytest.fixture
def client(server: Server) -> DICOMwebClient:
    return server.client()


Send = Callable[..., requests.Response]


@pytest.fixture
def send(server: Server) -> Send:
    """STOW-RS by hand: each part its bytes."""

    def post(
        *parts: bytes,
        study: str = "",
        media_type: str = "application/dicom",
        session: requests.Session | None = None,
        closed: bool = True,
    ) -> requests.Response:
        body = b"".join(
            b"--b0\r\nContent-Type: " + media_type.encode() + b"\r\n\r\n" + part + b"\r\n" for part in parts
        )
        return (session or server.session()).post(
            f"{server.url}/studies{'/' + study if study else ''}",
            data=body + (b"--b0--\r\n" if closed else b""),
            headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=b0'},
            timeout=30,
        )

    return post


def file(dataset: Dataset) -> bytes:
    """The data set as a PS3.10 file."""
    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def whole(dataset: Dataset) -> Dataset:
    """The same as if it had been read from a file."""
    return dcmread(BytesIO(file(dataset)))
