"""The units: what systemd itself says of them, and that they start what the compose file starts."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from service.settings import Settings
from tests.deploy.compose import HOUSE

FOLDER = HOUSE / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
MOST_EXPOSED = 2.0  # systemd-analyze security: 0 is sealed, 10 is open; nginx of a distribution has 9.6


def _entries(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def analyse() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("no systemd-analyze")
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_to_complain_about(analyse: str, unit: Path, tmp_path: Path) -> None:
    for file in [*UNITS, FOLDER / "sonomark.target"]:
        (tmp_path / file.name).write_text(file.read_text().replace("/opt/sonomark/bin/sonomark", "/bin/true"))
    command = [analyse, "verify", "--man=no", "--recursive-errors=no", tmp_path / unit.name]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    complaints = [line for line in answer.stderr.splitlines() if "sonomark" in line]
    assert not complaints


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_sealed(analyse: str, unit: Path) -> None:
    command = [analyse, "security", "--offline=true", "--no-pager", unit]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", answer.stdout)
    assert score is not None, answer.stderr
    assert float(score[1]) <= MOST_EXPOSED


def test_each_role_has_its_unit_and_the_target_wants_it() -> None:
    roles = {"receive", "work", "sweep", "review"}
    assert {unit.stem.removeprefix("sonomark-") for unit in UNITS} == roles | {"migrate"}
    target = configparser.ConfigParser(strict=False)
    target.read(FOLDER / "sonomark.target")
    assert set(target["Unit"]["Wants"].split()) == {f"sonomark-{role}.service" for role in roles}
    for role in roles:
        entries = _entries(FOLDER / f"sonomark-{role}.service")
        assert entries["ExecStart"] == [f"/opt/sonomark/bin/sonomark {role}"]
        assert entries["Requires"] == ["sonomark-migrate.service"]
        assert entries["Restart"] == ["always"]


def test_only_the_dashboard_is_handed_the_key_of_the_sessions() -> None:
    holders = {unit.stem for unit in UNITS if "sonomark_secret_key" in unit.read_text()}
    assert holders == {"sonomark-review"}


def test_the_environment_names_settings_that_exist() -> None:
    given = dotenv_values(FOLDER / "sonomark.env.example")
    assert set(given) <= {f"SONOMARK_{field.upper()}" for field in Settings.model_fields}


def test_a_unit_sees_the_processor_and_a_home_that_it_may_read() -> None:
    """Without /proc/cpuinfo ONNX Runtime knows no processor; in a hidden home libpq gives up TLS to the database."""
    for unit in UNITS:
        entries = _entries(unit)
        assert "ProcSubset" not in entries
        assert entries["ProtectHome"] == ["yes"] and "HOME=%S/sonomark" in entries["Environment"]
        assert entries["StateDirectory"] == ["sonomark"]


def test_the_administrators_command_reads_the_settings_as_systemd_does(tmp_path: Path) -> None:
    """A shell that reads them ends SONOMARK_PEERS at its first option."""
    given = {
        "SONOMARK_DATA_DIR": "/var/lib/sonomark",
        "SONOMARK_PEERS": "US01@10.1.4.13;port=4242;tls=required,US02@10.1.4.0/24",
        "SONOMARK_SETTLE_PEERS": "US01=120,SLOW CART=20",
        "SONOMARK_MAIL_FROM": "$(touch here)",
    }
    lines = ["# a comment", ""] + [f"{name}={value}" for name, value in given.items()]
    lines += ['SONOMARK_AE_TITLE="NORTH WING"', "SONOMARK_OIDC_LABEL='Sign in'"]
    (tmp_path / "sonomark.env").write_text("\n".join(lines))  # without a last line's end
    (tmp_path / "secrets").mkdir()
    for name in ("database", "broker"):
        (tmp_path / "secrets" / f"sonomark_{name}_password").write_text(name)
    script = (FOLDER / "sonomark").read_text().replace("/etc/sonomark", str(tmp_path))
    asked, command = script.split("exec ", 1)
    assert command.startswith("setpriv --reuid=sonomark")
    told = subprocess.run(["sh", "-c", f"{asked}exec env"], capture_output=True, text=True, check=True, cwd=tmp_path)
    seen = dict(line.split("=", 1) for line in told.stdout.splitlines() if line.startswith(("SONOMARK_", "HOME=")))
    assert given.items() <= seen.items()
    assert (seen["SONOMARK_AE_TITLE"], seen["SONOMARK_OIDC_LABEL"]) == ("NORTH WING", "Sign in")
    assert (seen["SONOMARK_DATABASE_PASSWORD"], seen["SONOMARK_BROKER_PASSWORD"]) == ("database", "broker")
    assert seen["HOME"] == "/var/lib/sonomark" and not (tmp_path / "here").exists()
