"""The lock files that the images are built from satisfy pyproject.toml, completely and by hash."""

import tomllib
from importlib import metadata

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.compose import HOUSE

IMAGE = {**default_environment(), "python_version": "3.11", "platform_machine": "x86_64", "sys_platform": "linux"}


def _locked(name: str) -> dict[str, Version]:
    versions: dict[str, Version] = {}
    for entry in (HOUSE / "deploy" / name).read_text().replace("\\\n", " ").splitlines():
        if entry and not entry.lstrip().startswith("#"):
            requirement, *hashes = entry.split("--hash=")
            assert hashes and all(one.strip().startswith("sha256:") for one in hashes), requirement
            package, _, version = requirement.partition("==")
            versions[canonicalize_name(package)] = Version(version.strip())
    return versions


def _wanted(extra: str) -> list[Requirement]:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] + project["optional-dependencies"][extra]
    return [r for r in map(Requirement, texts) if r.marker is None or r.marker.evaluate(IMAGE)]


@pytest.mark.parametrize("extra", ["device", "s3", "otel"])
@pytest.mark.parametrize(("lock", "device"), [("requirements.lock", "cpu"), ("requirements-gpu.lock", "gpu")])
def test_the_lock_satisfies_the_project(lock: str, device: str, extra: str) -> None:
    locked = _locked(lock)
    for requirement in _wanted(device if extra == "device" else extra):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not locked: run deploy/lock.sh"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} but {version} is locked"


def test_what_the_locked_packages_need_is_locked_too() -> None:
    locked = _locked("requirements.lock")
    for package in locked:
        try:
            needs = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue  # not installed here: nothing to ask
        for requirement in map(Requirement, needs):
            if requirement.marker is None or requirement.marker.evaluate({**IMAGE, "extra": ""}):
                assert canonicalize_name(requirement.name) in locked, f"{package} needs {requirement}"


def test_the_two_onnx_runtimes_never_meet() -> None:
    assert "onnxruntime-gpu" not in _locked("requirements.lock")
    assert "onnxruntime" not in _locked("requirements-gpu.lock")


def test_both_images_share_their_versions() -> None:
    cpu, gpu = _locked("requirements.lock"), _locked("requirements-gpu.lock")
    assert {name: cpu[name] for name in cpu.keys() & gpu.keys()} == {
        name: gpu[name] for name in cpu.keys() & gpu.keys()
    }


def test_torch_is_in_no_image() -> None:
    assert "torch" not in _locked("requirements.lock") | _locked("requirements-gpu.lock")
