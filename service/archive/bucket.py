"""A bucket of S3 or of anything that speaks its protocol: put with a checksum, never over a winner, read by range."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.errors import ConfigurationError, DamagedObject, NotFound, StorageError
from service.settings import Settings

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
except ImportError as error:
    raise ConfigurationError(
        "An archive in S3 needs boto3, which is not installed.", cure="pip install 'sonomark[s3]'."
    ) from error

PART = 16 << 20  # bytes; larger objects go up in parts of this size (S3 takes 10,000 of them: 160 GB)
CHUNK = 1 << 20
CHECKSUM = "SHA256"  # S3 recomputes it and refuses what was changed on the way

GONE = {"NoSuchKey", "404", "NotFound"}
NO_BUCKET = {"NoSuchBucket"}
REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
THERE_ALREADY = {"PreconditionFailed", "412"}
KNOWS_NO_CONDITION = {"NotImplemented", "501"}


class Bucket:
    """The objects below one prefix of one bucket. Safe to use from many threads."""

    def __init__(self, url: str, chosen: Settings) -> None:
        parts = urlsplit(url)
        self.name, prefix = parts.netloc, parts.path.strip("/")
        if parts.scheme != "s3" or not self.name:
            raise ConfigurationError(
                f"'{url}' names no bucket.", cure="Write SONOMARK_ARCHIVE_URL as s3://bucket/prefix."
            )
        self._prefix = f"{prefix}/" if prefix else ""
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=chosen.s3_endpoint or None,
            region_name=chosen.s3_region or None,
            aws_access_key_id=chosen.s3_access_key or None,
            aws_secret_access_key=chosen.s3_secret_key or None,
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=16,
                s3={"addressing_style": "path" if chosen.s3_endpoint else "auto"},
            ),
        )

    def __str__(self) -> str:
        return f"s3://{self.name}/{self._prefix}"

    def check(self) -> None:
        """Prove that the bucket is there and takes, gives and forgets an object.

        Raises:
            ConfigurationError: it is not there, or these credentials may not use it. StorageError: no answer.
        """
        probe = f"{self._prefix}probe"
        try:
            self._client.head_bucket(Bucket=self.name)
            self._client.put_object(Bucket=self.name, Key=probe, Body=b"")
            self._client.delete_object(Bucket=self.name, Key=probe)
        except ClientError as error:
            raise self._misconfigured(_code(error)) from error
        except BotoCoreError as error:
            if "redentials" in type(error).__name__:
                raise self._misconfigured("no credentials") from error
            raise StorageError(
                f"The bucket {self.name} does not answer: {type(error).__name__}.",
                cure="Check SONOMARK_S3_ENDPOINT and the network; until then instances wait on this machine's disk.",
            ) from error

    def put(self, key: str, data: bytes) -> None:
        """Store ``data``, over what may be there."""
        with self._answers(f"could not keep {key}"):
            self._client.put_object(Bucket=self.name, Key=self._prefix + key, Body=data, ChecksumAlgorithm=CHECKSUM)

    def put_file(self, source: Path, key: str, *, replace: bool = False) -> None:
        """Store a file unless its key is taken: keys of instances are digests, so whoever was first kept the same."""
        condition = {} if replace else {"IfNoneMatch": "*"}
        with self._answers(f"could not keep {key}"):
            try:
                self._put_file(source, key, condition)
            except ClientError as error:
                if _code(error) in KNOWS_NO_CONDITION:
                    if self._size(key) is None:
                        self._put_file(source, key, {})
                elif _code(error) not in THERE_ALREADY:
                    raise

    def fetch(self, key: str, target: Path) -> int:
        """Copy the object into the file ``target``; its size in bytes.

        Raises:
            NotFound: there is no such object. DamagedObject: what came has another checksum. StorageError: no answer.
        """
        with self._answers(f"could not give {key}"), target.open("wb") as file:
            size = 0
            for chunk in self._chunks(key, {"ChecksumMode": "ENABLED"}):
                size += file.write(chunk)
        return size

    def stream(self, key: str) -> Iterator[bytes]:
        """The object's bytes in chunks, none of them kept."""
        with self._answers(f"could not give {key}"):
            yield from self._chunks(key, {})

    def read(self, key: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes from position ``start`` on."""
        with self._answers(f"could not give {key}"):
            return b"".join(self._chunks(key, {"Range": f"bytes={start}-{start + length - 1}"}))

    def size(self, key: str) -> int | None:
        """Bytes of the object, None when there is none."""
        with self._answers(f"could not look at {key}"):
            return self._size(key)

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with self._answers(f"could not delete {key}"):
            self._client.delete_object(Bucket=self.name, Key=self._prefix + key)

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of all objects below the folder ``prefix``."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._answers("could not list its objects"):
            for page in pages.paginate(Bucket=self.name, Prefix=f"{self._prefix}{prefix}/"):
                for found in page.get("Contents", ()):
                    yield found["Key"].removeprefix(self._prefix)

    def _put_file(self, source: Path, key: str, condition: dict[str, str]) -> None:
        with source.open("rb") as body:
            if source.stat().st_size > PART:
                self._put_parts(body, key, condition)
                return
            self._client.put_object(
                Bucket=self.name, Key=self._prefix + key, Body=body, ChecksumAlgorithm=CHECKSUM, **condition
            )

    def _put_parts(self, body: Any, key: str, condition: dict[str, str]) -> None:
        where = {"Bucket": self.name, "Key": self._prefix + key}
        upload = self._client.create_multipart_upload(**where, ChecksumAlgorithm=CHECKSUM)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            while data := body.read(PART):
                number = len(parts) + 1
                kept = self._client.upload_part(
                    **where, UploadId=upload, PartNumber=number, Body=data, ChecksumAlgorithm=CHECKSUM
                )
                parts.append({"PartNumber": number, "ETag": kept["ETag"], "ChecksumSHA256": kept["ChecksumSHA256"]})
            self._client.complete_multipart_upload(
                **where, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            # Parts of an upload that is neither completed nor aborted are paid for and never seen.
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**where, UploadId=upload)
            raise

    def _chunks(self, key: str, more: dict[str, str]) -> Iterator[bytes]:
        body = self._client.get_object(Bucket=self.name, Key=self._prefix + key, **more)["Body"]
        with body:
            yield from body.iter_chunks(CHUNK)

    def _size(self, key: str) -> int | None:
        try:
            found = self._client.head_object(Bucket=self.name, Key=self._prefix + key)
        except ClientError as error:
            if _code(error) in GONE:
                return None
            raise
        return int(found["ContentLength"])

    @contextmanager
    def _answers(self, what: str) -> Iterator[None]:
        """Turn boto's errors into the archive's own."""
        what = f"The bucket {self.name} {what}"
        try:
            yield
        except FlexibleChecksumError as error:
            raise DamagedObject(f"{what}: the checksum is another one.") from error
        except ClientError as error:
            if _code(error) in GONE:
                raise NotFound(f"{what}: it is not there.") from error
            raise StorageError(
                f"{what}: {_code(error)}.", cure="`sonomark doctor` says what is wrong with the bucket."
            ) from error
        except BotoCoreError as error:
            raise StorageError(
                f"{what}: {type(error).__name__}.", cure="Check the network to SONOMARK_S3_ENDPOINT."
            ) from error

    def _misconfigured(self, code: str) -> ConfigurationError:
        if code in GONE | NO_BUCKET:
            return ConfigurationError(
                f"There is no bucket {self.name}.", cure="Make it, or correct SONOMARK_ARCHIVE_URL."
            )
        if code in REFUSED or code == "no credentials":
            return ConfigurationError(
                f"The bucket {self.name} refuses these credentials ({code}).",
                cure="Check SONOMARK_S3_ACCESS_KEY and SONOMARK_S3_SECRET_KEY, and that they may get, put, list and"
                " delete objects.",
            )
        return ConfigurationError(f"The bucket {self.name} cannot be used: {code}.", cure="Ask whoever runs it.")


def _code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
