"""docker-compose.yml: valid to a real client, nothing runs with more rights than it needs, nothing starts too early."""

import shutil
import subprocess
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from typer.main import get_command

from service.cli import app
from service.settings import Settings
from tests.deploy import compose

SERVICES = compose.services()
ROLES = [name for name, service in SERVICES.items() if service["image"].startswith("sonomark:")]
SETTINGS = {f"SONOMARK_{field.upper()}" for field in Settings.model_fields} | {"SONOMARK_SECRETS_DIR"}
RUNNING = [name for name in SERVICES if name != "migrate"]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SERVICES[request.param]


def _client() -> list[str]:
    """Whichever Compose client is here: the plugin, or the older program of its own."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("no Compose client; install docker-compose")


@pytest.mark.parametrize("profile", ["cpu", "gpu", "watch"])
def test_a_real_client_accepts_the_file(profile: str) -> None:
    command = [*_client(), "--file", str(compose.FILE), "--profile", profile, "config"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "variable is not set" not in answer.stderr


def test_a_bucket_reaches_every_role_that_has_the_archive() -> None:
    files = ["--file", str(compose.FILE), "--file", str(compose.WITH_BUCKET), "--profile", "cpu", "--profile", "gpu"]
    answer = subprocess.run([*_client(), *files, "config"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    merged = yaml.safe_load(answer.stdout)["services"]
    with_archive = [name for name in ROLES if any("/archive" in str(one) for one in SERVICES[name].get("volumes", []))]
    assert len(with_archive) == 5
    for name in with_archive:
        given = merged[name]["environment"]
        assert given["SONOMARK_ARCHIVE_URL"].startswith("s3://")
        assert given["SONOMARK_DATA_DIR"] == "/archive"  # the volume that outlives a restart: the outbox lies there
        assert {name for name in given if name.startswith("SONOMARK_")} <= SETTINGS
        secrets = {one if isinstance(one, str) else one["source"] for one in merged[name]["secrets"]}
        assert {"sonomark_s3_access_key", "sonomark_s3_secret_key", "sonomark_database_password"} <= secrets
        assert "edge" in merged[name]["networks"]  # the bucket is outside
        assert merged[name]["read_only"] is True
    assert merged["migrate"]["environment"]["SONOMARK_DATA_DIR"] == "/data"


def test_every_variable_is_in_the_example_with_the_same_default() -> None:
    example = dotenv_values(compose.HOUSE / "deploy" / ".env.example")
    chosen = {"COMPOSE_PROFILES": example.pop("COMPOSE_PROFILES")}
    assert chosen["COMPOSE_PROFILES"]
    assert example == compose.variables()


def test_the_old_capabilities_of_root_are_gone(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert int(service["user"].split(":")[0]) > 0
    assert "privileged" not in service and "cap_add" not in service and "network_mode" not in service


def test_every_service_has_limits(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0
    assert limits["memory"][-1] in "mg"
    assert service["pids_limit"] > 0


@pytest.mark.parametrize("name", RUNNING)
def test_every_lasting_service_says_whether_it_is_well(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_images_are_pinned_to_a_version(service: dict[str, Any]) -> None:
    name, _, tag = service["image"].rpartition(":")
    assert name
    assert tag[0].isdigit() or tag.startswith("v")


def test_no_secret_stands_in_an_environment(service: dict[str, Any]) -> None:
    environment = service.get("environment", {})
    assert not [name for name in environment if "PASSWORD" in name and not name.endswith("_FILE")]
    assert "SONOMARK_SECRET_KEY" not in environment
    assert "@" not in environment.get("SONOMARK_DATABASE_URL", "").rpartition("@")[0]


def test_every_secret_has_a_file_and_only_who_needs_it() -> None:
    declared = compose.load()["secrets"]
    holders = {secret: {n for n, s in SERVICES.items() if secret in s.get("secrets", [])} for secret in declared}
    assert all(holders.values())
    assert holders["sonomark_secret_key"] == {"review"}
    assert holders["tls_private_key"] == {"nginx"}
    assert holders["sonomark_database_password"] == {"postgres", *ROLES}


def test_secret_files_are_named_as_settings() -> None:
    names = {secret.removeprefix("sonomark_") for secret in compose.load()["secrets"] if secret.startswith("sonomark_")}
    assert names <= set(Settings.model_fields)


def test_database_and_broker_reach_nobody_outside() -> None:
    internal = {name for name, network in compose.load()["networks"].items() if (network or {}).get("internal")}
    for name in ("postgres", "redis", "migrate", "work-cpu", "work-gpu", "review"):
        assert not SERVICES[name].get("ports")
        assert set(SERVICES[name]["networks"]) <= internal


@pytest.mark.parametrize("name", [role for role in ROLES if role != "migrate"])
def test_roles_start_after_the_migration_and_the_broker(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "redis": {"condition": "service_healthy"},
    }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", ROLES)
def test_roles_run_commands_that_exist_with_settings_that_exist(name: str) -> None:
    program, command = SERVICES[name]["command"]
    assert program == "sonomark"
    assert command in get_command(app).commands  # type: ignore[attr-defined]
    fields = {f"SONOMARK_{field.upper()}" for field in Settings.model_fields} | {"SONOMARK_SECRETS_DIR"}
    assert set(SERVICES[name]["environment"]) <= fields


@pytest.mark.parametrize("name", ROLES)
def test_the_environment_of_a_role_makes_valid_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, str(value))
    here = Settings()
    assert here.database().startswith("postgresql+psycopg://sonomark@postgres")
    assert here.log_format == "json"


def test_the_gpu_worker_is_one_process_on_one_device() -> None:
    worker = SERVICES["work-gpu"]
    assert worker["environment"]["SONOMARK_WORKERS"] == "1"
    assert worker["environment"]["SONOMARK_PROVIDER"] == "cuda"
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 1


def test_everything_mounted_from_the_checkout_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (compose.HOUSE / source).exists(), source
