"""The Kubernetes manifests: built by kustomize, checked field by field against the API's own models, and sealed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.deploy.compose import HOUSE, services

FOLDER = HOUSE / "deploy" / "kubernetes"
MODELS = pytest.importorskip("kubernetes.client.models")
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": str, "object": object}


def _build(folder: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    answer = subprocess.run(["kubectl", "kustomize", FOLDER / folder], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


@pytest.fixture(scope="module", params=["base", "gpu-scaled", "s3", "your-hospital"])
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return _build(request.param)


@pytest.fixture
def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod specifications by name of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] in ("Deployment", "Job")
    }


def _model(one: dict[str, Any]) -> Any:
    """The API's class of an object: V1Deployment for apps/v1 Deployment."""
    return getattr(MODELS, f"V1{one['kind']}")


def _faults(value: Any, kind: str, where: str) -> Iterator[str]:
    """What the API's schema says against ``value``: unknown fields, missing ones, wrong types."""
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for index, entry in enumerate(value):
            yield from _faults(entry, listed[1], f"{where}[{index}]")
    elif mapped := re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind):
        if not isinstance(value, dict):
            yield f"{where} is no mapping"
            return
        for name, entry in value.items():
            yield from _faults(entry, mapped[1], f"{where}.{name}")
    elif kind in PLAIN:
        # The models call an IntOrString, such as a probe's port, an object.
        if not isinstance(value, PLAIN[kind]) or (kind == "int" and isinstance(value, bool)):
            yield f"{where} is {value!r}, no {kind}"
    else:
        model = getattr(MODELS, kind)
        fields = {json: python for python, json in model.attribute_map.items()}
        if not isinstance(value, dict):
            yield f"{where} is no {kind}"
            return
        for name, entry in value.items():
            if name not in fields:
                yield f"{where}.{name} is unknown to {kind}"
            else:
                yield from _faults(entry, model.openapi_types[fields[name]], f"{where}.{name}")
        try:
            model(**{fields[name]: entry for name, entry in value.items() if name in fields})
        except ValueError as error:
            yield f"{where}: {error}"


def test_every_field_is_one_of_the_api(objects: list[dict[str, Any]]) -> None:
    faults = [
        fault
        for one in objects
        if one["kind"] != "ScaledObject"
        for fault in _faults(one, _model(one).__name__, f"{one['kind']}/{one['metadata']['name']}")
    ]
    assert not faults


def test_the_checker_finds_faults() -> None:
    wrong = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replica": 1, "template": {}, "selector": {}}}
    assert list(_faults(wrong, "V1Deployment", "d")) == ["d.spec.replica is unknown to V1DeploymentSpec"]
    assert list(_faults({"replicas": "1", "selector": {}, "template": {}}, "V1DeploymentSpec", "s"))


def test_the_same_commands_as_the_compose_file(pods: dict[str, dict[str, Any]]) -> None:
    here = {name: pod["containers"][0]["args"] for name, pod in pods.items()}
    there = {
        name.removesuffix("-cpu"): one["command"] for name, one in services().items() if name in (*here, "work-cpu")
    }
    assert here == there


def test_settings_and_secrets_are_ones_that_exist(
    objects: list[dict[str, Any]], pods: dict[str, dict[str, Any]]
) -> None:
    fields = {f"SONOMARK_{field.upper()}" for field in Settings.model_fields} | {"SONOMARK_SECRETS_DIR"}
    given = {name for one in objects if one["kind"] == "ConfigMap" for name in one["data"]}
    given |= {entry["name"] for pod in pods.values() for entry in pod["containers"][0].get("env", [])}
    assert given <= fields
    assert not [name for name in given if "PASSWORD" in name or name.endswith("SECRET_KEY")]


def test_pods_are_sealed(pods: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods.items():
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]


def test_selectors_select_and_budgets_leave_room(objects: list[dict[str, Any]]) -> None:
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if one["kind"] == "Deployment"
    }
    replicas = {one["metadata"]["name"]: one["spec"]["replicas"] for one in objects if one["kind"] == "Deployment"}
    for one in objects:
        wanted = one.get("spec", {}).get("selector")
        if one["kind"] in ("Deployment", "PodDisruptionBudget"):
            wanted = wanted["matchLabels"]
        if one["kind"] in ("Deployment", "PodDisruptionBudget", "Service"):
            assert [name for name, has in labels.items() if wanted.items() <= has.items()], one["metadata"]["name"]
        if one["kind"] == "PodDisruptionBudget":
            assert one["spec"]["minAvailable"] < replicas[one["metadata"]["name"]]


def test_everything_mounted_is_a_volume_of_the_pod(pods: dict[str, dict[str, Any]]) -> None:
    for pod in pods.values():
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {
            one["name"] for one in pod["volumes"]
        }


def test_what_is_not_allowed_in_is_kept_out(objects: list[dict[str, Any]]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "NetworkPolicy"}
    assert policies["nothing-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_a_bucket_needs_no_place_but_the_one_that_lasts() -> None:
    objects = _build("s3")
    (settings,) = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    assert settings["SONOMARK_ARCHIVE_URL"].startswith("s3://") and settings["SONOMARK_DATA_DIR"] == "/archive"
    for one in objects:
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]["spec"]
            assert "archive" in {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
            (secrets,) = [volume["projected"]["sources"] for volume in pod["volumes"] if "projected" in volume]
            assert {"sonomark-s3", "sonomark-roles"} <= {source["secret"]["name"] for source in secrets}


def test_workers_follow_the_age_of_the_queue() -> None:
    (scaled,) = [one for one in _build("gpu-scaled") if one["kind"] == "ScaledObject"]
    (worker,) = [
        one for one in _build("gpu-scaled") if one["kind"] == "Deployment" and one["metadata"]["name"] == "work"
    ]
    assert scaled["spec"]["scaleTargetRef"]["name"] == "work"
    assert "sonomark_oldest_queued_seconds" in scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert worker["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
