"""docker-compose.yml as the tests see it: merged, and with its variables filled in as Compose would."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HOUSE = Path(__file__).resolve().parents[2]
FILE = HOUSE / "docker-compose.yml"
WITH_BUCKET = HOUSE / "deploy" / "compose.s3.yml"
# $$ is a literal dollar; ${NAME:-default} the only other form this file uses.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+):-(?P<default>[^}]*)\})")


def variables() -> dict[str, str]:
    """Every variable of both files with its default."""
    text = FILE.read_text() + WITH_BUCKET.read_text()
    found = (match for match in VARIABLE.finditer(text) if match["name"])
    return {match["name"]: match["default"] for match in found}


def load(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole file, its variables taken from ``environment`` or else from their defaults."""
    chosen = environment or {}

    def fill(match: re.Match[str]) -> str:
        return "$" if match["name"] is None else chosen.get(match["name"]) or match["default"]

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return VARIABLE.sub(fill, node) if isinstance(node, str) else node

    return filled(yaml.safe_load(FILE.read_text()))  # type: ignore[no-any-return]


def services(environment: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Every service by name."""
    return load(environment)["services"]  # type: ignore[no-any-return]
