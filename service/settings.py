"""Settings, read from the environment (prefix ``SONOMARK_``) here and nowhere else."""

import os
import re
from datetime import timedelta
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from tzlocal import reload_localzone

from service.errors import ConfigurationError

HOUSE = Path(__file__).resolve().parent.parent
WEIGHTS = HOUSE / "models" / "weights"
NODE = re.compile(r"(?P<aet>[^@]{1,16})@(?P<host>\[[^\]]+\]|[^:@]+):(?P<port>\d{1,5})")
MOST_PORT = 65535
ALIKE = 0.92  # of names with their prefix: a letter or two too few or too many
RULEBOOKS = Path(__file__).resolve().parent / "compliance" / "rulebooks"


def is_ae_title(text: str) -> bool:
    """PS3.5 6.2: 1 to 16 characters of the default repertoire, no backslash or control, not all spaces."""
    return bool(text.strip()) and len(text) <= 16 and text.isascii() and text.isprintable() and "\\" not in text


def is_node(text: str) -> bool:
    """Whether it reads AET@HOST:PORT."""
    match = NODE.fullmatch(text)
    return match is not None and is_ae_title(match["aet"]) and int(match["port"]) <= MOST_PORT


class Settings(BaseSettings):
    """Every setting of every role."""

    model_config = SettingsConfigDict(env_prefix="SONOMARK_", env_file=None, extra="ignore")

    data_dir: Path = Field(Path("data"), description="Folder of the archive, the embedded database and the spool.")
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite in DATA_DIR.")
    database_password: str = Field("", description="Goes into DATABASE_URL where that names a user alone.")
    broker_url: str = Field("", description="spool:// (folder broker in DATA_DIR, the default) or redis://…")
    broker_password: str = Field("", description="Goes into BROKER_URL where that names a user alone.")
    archive_url: str = Field("", description="Folder or s3://bucket/prefix; empty means DATA_DIR/archive.")

    archive_cache_mb: int = Field(
        4096, ge=64, description="Disk that copies of a bucket's objects may take on this machine."
    )
    verify_days: int = Field(30, ge=0, description="Every archived object is read again within so many days; 0: never.")
    verify_mb_s: float = Field(20.0, gt=0, description="At most so much of the disk's time goes into that.")
    s3_endpoint: str = Field("", description="URL of an S3 service other than Amazon's, such as MinIO or Ceph.")
    s3_region: str = Field("", description="The bucket's region, where its service asks for one: eu-central-1.")
    s3_access_key: str = Field("", description="Empty: boto3 looks where it always does, instance roles included.")
    s3_secret_key: str = Field("", description="Belongs to S3_ACCESS_KEY.")

    ae_title: str = Field("SONOMARK", description="What the receiver is called, and calls itself elsewhere.")
    dicom_host: str = Field("0.0.0.0", description="Address the receiver listens on.")  # noqa: S104
    dicom_port: int = Field(11112, ge=0, le=65535, description="Port that ultrasound machines send to.")
    peers: str = Field(
        "",
        description="Calling AE titles let in: US01@10.1.4.13,PACS;tls=required,… ; empty means open to all.",
    )
    peers_file: Path | None = Field(None, description="TOML file with further peers, one [[peer]] each.")
    max_associations: int = Field(64, ge=1, description="Associations at once; those beyond are told to try again.")
    max_associations_per_address: int = Field(32, ge=1, description="Of them, so many from one address.")
    receivers: int = Field(1, ge=1, le=64, description="Receiver processes behind the port; more than 1 on PostgreSQL.")
    dicom_tls_port: int | None = Field(
        None, ge=0, le=65535, description="Further port for DICOM over TLS; without one DICOM_PORT speaks TLS alone."
    )
    dicom_certificate: Path | None = Field(None, description="TLS certificate chain of the receiver (PEM).")
    dicom_private_key: Path | None = Field(None, description="TLS private key of the receiver (PEM).")
    dicom_client_ca: Path | None = Field(
        None, description="CA certificates (PEM) that peers' own must come from; without it peers need none."
    )
    max_pdu: int = Field(131072, ge=4096, le=1048576, description="Bytes of a PDU that senders are told to keep to.")
    network_timeout_s: float = Field(60.0, gt=0, description="Idle time after which an association is dropped.")
    lean_receiving: bool = Field(
        True, description="C-STORE data goes past pynetdicom's queues; off, it takes pynetdicom's own path."
    )
    read_timeout_s: float = Field(
        20.0, gt=0, description="Time for one PDU to arrive whole; its sender is cut off after that."
    )
    disk_reserve_mb: int = Field(512, ge=0, description="C-STORE answers 0xA700 below this much free space.")
    journal_mb: int = Field(
        1024,
        ge=0,
        description="Disk in the archive's folder where instances wait for files of their own; 0: they do not.",
    )
    extra_sop_classes: str = Field("", description="Further storage SOP Class UIDs to accept, comma separated.")

    http_host: str = Field("127.0.0.1", description="Address the dashboard listens on.")
    http_port: int = Field(8000, ge=0, le=65535, description="Port the dashboard listens on.")
    http_hosts: str = Field(
        "",
        description="Host names the dashboard answers to, comma separated; empty means loopback names when it listens"
        " on loopback, and any name otherwise.",
    )
    http_proxies: str = Field(
        "127.0.0.1",
        description="Addresses of proxies whose X-Forwarded-For and -Proto are believed, comma separated; * for all.",
    )
    http_certificate: str = Field("", description="TLS certificate chain of the dashboard (PEM).")
    http_private_key: str = Field("", description="TLS private key of the dashboard (PEM).")
    cache_mb: int = Field(2048, ge=16, description="Disk that decoded frames for the dashboard may take in DATA_DIR.")
    secret_key: str = Field("", description="Signs cookies; empty means one generated and kept in DATA_DIR.")
    session_idle_s: int = Field(8 * 3600, ge=60, description="A session in which nobody does anything ends after this.")
    session_absolute_s: int = Field(24 * 3600, ge=60, description="Every session ends after this.")
    second_factor_roles: str = Field("", description="Roles that must have a second factor, comma separated.")
    oidc_issuer: str = Field(
        "", description="Issuer URL of the OpenID Connect provider; empty means no single sign-on."
    )
    oidc_client_id: str = Field("", description="What the provider knows the dashboard by.")
    oidc_client_secret: str = Field("", description="And the secret that it shares with it.")
    oidc_scope: str = Field("openid profile email", description="Scopes to ask for; openid must be among them.")
    oidc_name_claim: str = Field("preferred_username", description="Claim that names the account.")
    oidc_role_claim: str = Field("groups", description="Claim that holds groups; dots lead into objects.")
    oidc_roles: str = Field(
        "", description="Which group gives which role: pacs-admins=admin,sono=sonographer; others are refused."
    )
    oidc_site_claim: str = Field(
        "", description="Claim that names the one site an account sees; empty means all sites."
    )
    oidc_label: str = Field("Sign in with SSO", description="What the button says.")

    network: str = Field("sonomark", description="Name under models/weights, or a folder of weights.")
    provider: Literal["auto", "cuda", "tensorrt", "cpu"] = Field(
        "auto", description="auto takes a GPU if there is one, and the CPU if not or if it fails; the others insist."
    )
    precision: Literal["fp32", "tf32", "fp16", "bf16"] = Field(
        "tf32", description="Arithmetic of a GPU; fp16 and bf16 need PROVIDER=tensorrt. A CPU ignores it."
    )
    cuda_graphs: bool = Field(False, description="A GPU replays a recorded graph for each size of frame.")
    threads: int = Field(
        0, ge=0, description="Threads of the network per worker process; 0 means chosen for the machine."
    )
    workers: int = Field(0, ge=0, description="Worker processes of `sonomark work`; 0 means chosen for the machine.")
    batch: int = Field(0, ge=0, description="Instances a worker claims at once; 0 means 8 (4 in float32 on a CPU).")
    cine_frames: int = Field(12, ge=1, description="At most this many frames of a cine are assessed, evenly spread.")
    max_pixels: int = Field(256 * 1024 * 1024, description="Rows × columns × frames × samples that may be decoded.")
    decode_timeout_s: float = Field(60.0, gt=0, description="Time that decoding an image may take.")
    decode_memory_mb: int = Field(2048, ge=256, description="Memory that the process decoding it may take.")

    read_text: Literal["auto", "always", "never"] = Field(
        "auto", description="Burned-in text is read (extra `ocr`): auto, when the rule book in force asks for text."
    )

    lease_s: float = Field(20.0, gt=0, description="A worker that is silent this long loses its claim.")
    max_attempts: int = Field(3, ge=1, description="An image that failed so often is quarantined.")
    sweep_interval_s: float = Field(2.0, gt=0, description="Pause between two rounds of the sweeper.")

    rulebook: str = Field("default", description="Name under service/compliance/rulebooks, or a TOML file.")
    study_settle_s: float = Field(30.0, ge=0, description="A study is judged this long after its last image.")
    settle_peers: str = Field(
        "",
        description="Seconds of single peers instead, by calling AE title: US01=120,US02=20.",
        pattern=r"^\s*([^=,]+=\s*\d+(\.\d+)?\s*(,|$))*$",
    )
    double_read_share: float = Field(
        0.0, ge=0, le=1, description="Share of judged studies that a second reader answers blinded; 0.1 is usual."
    )

    time_zone: str = Field(
        "", description="Whose days reports count by and whose clock pages show: Europe/Berlin; empty: the machine's."
    )
    public_url: str = Field("", description="The dashboard's address in links: https://sonomark.example.org")
    report_to: str = Field("", description="DICOM node that gets a structured report of each verdict: AET@HOST:PORT.")
    masks_to: str = Field("", description="DICOM node that gets the masks as Segmentations: AET@HOST:PORT.")
    rejections_to: str = Field(
        "", description='DICOM node that gets a key object "Rejected for Quality Reasons" after each retake asked for.'
    )
    webhook_url: str = Field("", description="Gets a POST for each flagged study, without patient data.")
    webhook_hosts: str = Field("", description="Hosts a webhook may go to, comma separated; others are refused.")
    webhook_secret: str = Field("", description="Signs webhooks: HMAC-SHA-256 in X-Sonomark-Signature.")
    mail_to: str = Field("", description="Addresses that get a mail for each flagged study, comma separated.")
    mail_from: str = Field("sonomark@localhost", description="Sender of mails.")
    smtp_host: str = Field("", description="Mail server; host or host:port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field("starttls", description="How mails are encrypted.")
    smtp_user: str = Field("", description="Account at the mail server; empty means without signing in.")
    smtp_password: str = Field("", description="Its password.")

    selftest_node: str = Field(
        "", description="Where the self-test sends its study, AET@HOST:PORT; empty means this machine's own receiver."
    )
    role_set: str = Field("", description="Roles that /readyz waits for, comma separated; set by `sonomark up`.")
    log_format: Literal["console", "json"] = Field("console", description="json: one event a line, for collectors.")
    otlp_endpoint: str = Field("", description="Collector that gets traces by OTLP over HTTP: http://host:4318.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that an event must weigh to be logged."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of each role's own metrics.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of this role's /metrics, /healthz and /readyz; 0 means none."
    )
    failpoints: str = Field("", description="Fault injection for tests only; refused unless TESTING is set.")
    testing: bool = Field(False, description="Set by the tests alone.")

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            return ZoneInfo(name).key if name else ""
        except (ValueError, OSError, LookupError) as error:
            raise ValueError("no time zone has this name; write it like Europe/Berlin") from error

    @field_validator("ae_title")
    @classmethod
    def _is_a_title(cls, title: str) -> str:
        if not is_ae_title(title):
            raise ValueError("an AE title has 1 to 16 ASCII characters, no backslash, and is not blank")
        return title

    @field_validator("report_to", "masks_to", "rejections_to", "selftest_node")
    @classmethod
    def _is_a_node(cls, node: str) -> str:
        if node and not is_node(node):
            raise ValueError("this names no DICOM node; write it as AET@HOST:PORT")
        return node

    def zone(self) -> ZoneInfo:
        """The hospital's time zone; UTC on a machine whose own has no name."""
        return ZoneInfo(self.time_zone) if self.time_zone else _own_zone()

    def settle_after(self, calling_ae_title: str) -> timedelta:
        """How long after its last image a study of this peer is judged."""
        own = dict(entry.rsplit("=", 1) for entry in self.settle_peers.split(",") if "=" in entry)
        seconds = {title.strip(): float(value) for title, value in own.items()}
        return timedelta(seconds=seconds.get(calling_ae_title, self.study_settle_s))

    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return (
            _with_password(self.database_url, self.database_password)
            or f"sqlite:///{self.data_dir.resolve() / 'sonomark.sqlite'}"
        )

    def broker(self) -> str:
        """The Celery broker URL in force."""
        return _with_password(self.broker_url, self.broker_password) or f"spool://{self.data_dir.resolve() / 'spool'}"

    def with_network(self, named: str) -> "Settings":
        """The same with other weights; empty: with its own."""
        return self.model_copy(update={"network": named}) if named else self

    def archive(self) -> str:
        """The archive's folder or s3:// URL in force."""
        return self.archive_url or str(self.data_dir.resolve() / "archive")


@lru_cache
def settings() -> Settings:
    """This process's settings, read once.

    A setting may also lie as a file of its name in the folder SONOMARK_SECRETS_DIR, as containers and systemd hand
    secrets over: an environment is inherited by every child and printed by many tools, a file is neither.

    Raises:
        ConfigurationError: a setting has a value that it cannot have. It names the setting, never the value, which may
            be a secret.
    """
    secrets = os.environ.get("SONOMARK_SECRETS_DIR") or None
    if secrets and not Path(secrets).is_dir():
        raise ConfigurationError(
            f"There is no folder {secrets}, or this account may not look into it.",
            cure="SONOMARK_SECRETS_DIR names the folder of the secrets; correct it, or leave it out.",
        )
    try:
        return Settings(_secrets_dir=secrets)
    except ValidationError as error:
        wrong = "\n".join(_complaint(each["loc"], each["msg"]) for each in error.errors())
        raise ConfigurationError(wrong, cure="service/settings.py says what each may be.") from None


def misspelt() -> dict[str, str]:
    """Names of the environment that are no setting and nearly one, each with that: what they say is not heeded.

    Others may be somebody else's: Kubernetes, for one, gives a container the addresses of all services by such names.
    """
    known = {f"SONOMARK_{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith("SONOMARK_") and name not in known)
    near = {name: get_close_matches(name, known, n=1, cutoff=ALIKE) for name in unknown}
    return {name: meant[0] for name, meant in near.items() if meant}


def _complaint(place: tuple[int | str, ...], what: str) -> str:
    return f"SONOMARK_{'.'.join(map(str, place)).upper()}: {what.removeprefix('Value error, ')}."


@lru_cache
def _own_zone() -> ZoneInfo:
    try:
        own = reload_localzone()
    except LookupError:  # TZ names none
        return ZoneInfo("UTC")
    return own if isinstance(own, ZoneInfo) and own.key != "local" else ZoneInfo("UTC")


def _with_password(url: str, password: str) -> str:
    """``url`` with the password, where it names a user and no password of its own."""
    parts = urlsplit(url)
    if not password or parts.username is None or parts.password is not None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))
