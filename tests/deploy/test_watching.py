"""Alerts, board and runbook speak of metrics that exist, and of each other."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from service import telemetry
from tests.deploy.compose import HOUSE, services

PROMETHEUS = HOUSE / "deploy" / "prometheus"
ALERTS = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
BOARD = json.loads((HOUSE / "deploy" / "grafana" / "boards" / "sonomark.json").read_text())
RUNBOOK = (HOUSE / "docs" / "runbook.md").read_text()
METRICS = [value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)]
ADDED_BY_PROMETHEUS = {"job", "instance", "role", "le", "quantile"}


def _series() -> set[str]:
    """Every name that a scrape can contain."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    return {metric._name + suffix for metric in METRICS for suffix in suffixes[metric._type]} | {
        "process_resident_memory_bytes",
        "up",
    }


def _labels() -> set[str]:
    return {label for metric in METRICS for label in metric._labelnames} | ADDED_BY_PROMETHEUS


def _expressions() -> list[str]:
    board = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    return [alert["expr"] for alert in ALERTS] + board


@pytest.mark.parametrize("expression", _expressions())
def test_every_metric_named_exists(expression: str) -> None:
    named = set(re.findall(r"\b(?:sonomark_\w+|process_\w+|up)\b", re.sub(r'"[^"]*"', '""', expression)))
    assert named, "an expression of no metric of ours"
    assert named <= _series()


@pytest.mark.parametrize("expression", _expressions())
def test_every_label_named_exists(expression: str) -> None:
    selected = set(re.findall(r"(\w+)(?:=~|!=|=)\"", expression))
    grouped = {label for names in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", expression) for label in names.split(",")}
    assert {label.strip() for label in selected | grouped if label.strip()} <= _labels()


def test_every_alert_has_its_entry_and_every_entry_its_alert() -> None:
    entries = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert sorted(entries) == sorted(alert["alert"] for alert in ALERTS)


@pytest.mark.parametrize("name", [alert["alert"] for alert in ALERTS])
def test_an_entry_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    entry = RUNBOOK.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]
    assert all(word in entry for word in ("**Means:**", "**Look:**", "**Do:**"))


def test_alerts_say_how_bad_it_is() -> None:
    assert {alert["labels"]["severity"] for alert in ALERTS} <= {"critical", "warning", "info"}
    assert all(alert["annotations"]["summary"] for alert in ALERTS)


def test_every_metric_of_ours_is_on_the_board_or_in_an_alert() -> None:
    watched = " ".join(_expressions())
    unused = {metric._name for metric in METRICS if metric._name not in watched}
    # Kept for questions asked by hand: what one worker or one process did.
    assert unused == {
        "sonomark_instances_assessed",
        "sonomark_peer_refused",
    }


def test_no_metric_has_a_label_for_a_person() -> None:
    assert _labels() <= {
        "status",
        "outcome",
        "step",
        "route",
        "state",
        "quantile",
        "verdict",
        "station",
        "kind",
        "peer",
        "condition",
    } | (ADDED_BY_PROMETHEUS)


def test_the_board_has_no_two_panels_in_one_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_prometheus_asks_services_that_exist_on_ports_they_have() -> None:
    jobs = {
        job["job_name"]: job for job in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    }
    roles = jobs["sonomark-roles"]["dns_sd_configs"][0]
    for name in roles["names"]:
        assert services()[name]["environment"]["SONOMARK_METRICS_PORT"] == str(roles["port"])
        assert "metrics" in services()[name]["networks"]
    assert jobs["sonomark-house"]["static_configs"] == [{"targets": ["review:8000"]}]
    assert "review" in services()["review"]["environment"]["SONOMARK_HTTP_HOSTS"].split(",")


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool; install prometheus")
    return found


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    answer = subprocess.run(
        [promtool, "check", "config", PROMETHEUS / "prometheus.yml"], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("schedule", ["alerts.test.yml", "drift.test.yml"])
def test_alerts_fire_on_what_they_are_for(promtool: str, tmp_path: Path, schedule: str) -> None:
    for file in (PROMETHEUS / "alerts.yml", HOUSE / "tests" / "deploy" / schedule):
        shutil.copy(file, tmp_path)
    answer = subprocess.run([promtool, "test", "rules", tmp_path / schedule], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
