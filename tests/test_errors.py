"""Every error says what to do about it: its class does, or whoever raises it."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import service
from service.errors import SonomarkError
from service.settings import HOUSE


def kinds() -> dict[str, type[SonomarkError]]:
    """Every class of the tree by its name."""
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[str, type[SonomarkError]] = {}
    waiting = [SonomarkError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found


def raised() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call in the service that makes an object: where, the call, and what it makes."""
    for path in sorted((HOUSE / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                yield f"{Path(path).relative_to(HOUSE)}:{node.lineno}", node, name


def test_every_error_says_what_to_do() -> None:
    known = kinds()
    made = [(where, call, known[name]) for where, call, name in raised() if name in known]
    assert len(made) > 200
    silent = [
        f"{where} {kind.__name__}"
        for where, call, kind in made
        if not kind.cure and not any(each.arg == "cure" for each in call.keywords)
    ]
    assert not silent, "say what to do: " + ", ".join(silent)
