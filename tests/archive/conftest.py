"""A real S3 protocol server on loopback, and an archive in a bucket of it."""

import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from service.archive.bucket import Bucket
from service.archive.remote import RemoteStore
from service.archive.store import archive
from service.settings import Settings, settings


@dataclass
class S3Server:
    """moto's server; what it keeps outlives a stop, as a bucket outlives an outage."""

    server: ThreadedMotoServer = field(default_factory=lambda: ThreadedMotoServer("127.0.0.1", 0, verbose=False))
    port: int = 0

    def start(self) -> None:
        self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

    def stop(self) -> None:
        self.server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Any:
        """boto3's own client: what is asserted does not go through our code."""
        return boto3.client(  # its key and secret are of no account anywhere
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    def ask_for_credentials(self) -> None:
        """From now on unknown keys are refused."""
        self._post("/moto-api/reset-auth", b"0")

    def reset(self) -> None:
        self._post("/moto-api/reset-auth", b"1000000")
        self._post("/moto-api/reset", b"")

    def _post(self, path: str, body: bytes) -> None:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "text/plain"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            json.loads(answer.read())


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, house: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An empty bucket ``house`` that this process's settings name."""
    s3_server.reset()
    s3_server.client().create_bucket(Bucket="house")
    chosen = {
        "ARCHIVE_URL": "s3://house/sonomark",
        "S3_ENDPOINT": s3_server.url,
        "S3_REGION": "us-east-1",
        "S3_ACCESS_KEY": "key",
        "S3_SECRET_KEY": "secret",
    }
    for name, value in chosen.items():
        monkeypatch.setenv(f"SONOMARK_{name}", value)
    settings.cache_clear()
    archive.cache_clear()
    yield s3_server
    archive.cache_clear()


@pytest.fixture
def remote(s3: S3Server, tmp_path: Path) -> RemoteStore:
    return RemoteStore(tmp_path / "archive", Bucket("s3://house/sonomark", settings()), 1 << 20)


def objects(s3: S3Server) -> dict[str, bytes]:
    """Everything in the bucket."""
    client = s3.client()
    found = client.list_objects_v2(Bucket="house").get("Contents", [])
    return {each["Key"]: client.get_object(Bucket="house", Key=each["Key"])["Body"].read() for each in found}


def take_in(store: RemoteStore, key: str, data: bytes) -> None:
    """As the receiver does: a synced temporary file, then published."""
    temporary = store.incoming()
    temporary.write_bytes(data)
    store.keep(temporary, key)


def age(path: Path, seconds: float) -> None:
    """Make the file look as if it was used so long ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
