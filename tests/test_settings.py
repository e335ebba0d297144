"""Settings come from the environment, secrets from files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.settings import Settings, _own_zone, settings


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SONOMARK_SECRETS_DIR", str(tmp_path))
    for name in ("DATABASE_URL", "DATABASE_PASSWORD", "BROKER_URL", "SECRET_KEY"):
        monkeypatch.delenv(f"SONOMARK_{name}", raising=False)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def test_a_secret_is_read_from_its_file(secrets: Path) -> None:
    (secrets / "sonomark_secret_key").write_text("from a file\n")
    assert settings().secret_key == "from a file"


def test_the_environment_outranks_the_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "sonomark_secret_key").write_text("from a file")
    monkeypatch.setenv("SONOMARK_SECRET_KEY", "from the environment")
    assert settings().secret_key == "from the environment"


def test_a_password_file_completes_the_database_url(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_DATABASE_URL", "postgresql+psycopg://sonomark@db:5432/sonomark?sslmode=require")
    (secrets / "sonomark_database_password").write_text("p@ss/w:rd\n")
    assert settings().database() == "postgresql+psycopg://sonomark:p%40ss%2Fw%3Ard@db:5432/sonomark?sslmode=require"


@pytest.mark.parametrize(
    "url", ["redis://redis:6379/0", "redis://sonomark:own@redis:6379/0", "sqlite:////data/a.sqlite"]
)
def test_a_url_without_a_user_or_with_a_password_stays_as_it_is(url: str) -> None:
    assert Settings(database_url=url, database_password="other").database() == url


def test_the_broker_gets_its_password_too() -> None:
    here = Settings(broker_url="redis://sonomark@redis:6379/0", broker_password="abc")
    assert here.broker() == "redis://sonomark:abc@redis:6379/0"


def test_without_urls_everything_lies_in_the_data_folder(tmp_path: Path) -> None:
    here = Settings(data_dir=tmp_path, database_url="", broker_url="", archive_url="")
    assert here.database() == f"sqlite:///{tmp_path}/sonomark.sqlite"
    assert here.broker() == f"spool://{tmp_path}/spool"
    assert here.archive() == f"{tmp_path}/archive"


def test_a_study_settles_by_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_SETTLE_PEERS", "US01=120, SLOW CART=7.5")
    chosen = Settings()
    assert chosen.settle_after("US01").total_seconds() == 120
    assert chosen.settle_after("SLOW CART").total_seconds() == 7.5
    assert chosen.settle_after("US02").total_seconds() == chosen.study_settle_s
    for wrong in ("US01", "US01=soon", "US01=5;US02=6"):
        monkeypatch.setenv("SONOMARK_SETTLE_PEERS", wrong)
        with pytest.raises(ValueError, match="settle_peers"):
            Settings()


def test_what_a_setting_cannot_be_is_named_without_its_value(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_DICOM_PORT", "hunter2")
    monkeypatch.setenv("SONOMARK_TIME_ZONE", "Mars/Olympus_Mons")
    with pytest.raises(ConfigurationError) as refused:
        settings()
    assert "SONOMARK_DICOM_PORT" in refused.value.what and "SONOMARK_TIME_ZONE" in refused.value.what
    assert "Europe/Berlin" in refused.value.what
    assert "hunter2" not in str(refused.value) and refused.value.__cause__ is None


@pytest.mark.parametrize(("named", "zone"), [("Asia/Kathmandu", "Asia/Kathmandu"), ("CET-1", "UTC")])
def test_the_time_zone_is_the_machines_own_unless_set(monkeypatch: pytest.MonkeyPatch, named: str, zone: str) -> None:
    monkeypatch.setenv("TZ", named)
    monkeypatch.delenv("SONOMARK_TIME_ZONE")
    _own_zone.cache_clear()
    assert Settings().zone().key == zone
    assert Settings(time_zone="America/Lima").zone().key == "America/Lima"
    _own_zone.cache_clear()


def test_every_setting_says_what_it_means() -> None:
    """README sends people there for it."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("title", ["", "  ", "X" * 17, "A\\B", "ÄRZTE"])
def test_an_ae_title_that_is_none(title: str) -> None:
    with pytest.raises(ValueError, match="AE title"):
        Settings(ae_title=title)


@pytest.mark.parametrize("setting", ["report_to", "masks_to", "rejections_to", "selftest_node"])
def test_a_node_that_is_none(setting: str) -> None:
    for wrong in ("PACS", "PACS@host", "PACS@host:70000", "@host:104"):
        with pytest.raises(ValueError, match="AET@HOST:PORT"):
            Settings(**{setting: wrong})
    assert Settings(**{setting: "PACS@[::1]:104"})


def test_a_folder_of_secrets_that_is_not_there(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_SECRETS_DIR", str(secrets / "nowhere"))
    with pytest.raises(ConfigurationError, match="nowhere") as refused:
        settings()
    assert "SONOMARK_SECRETS_DIR" in refused.value.cure
