"""Models: the networks that are installed, what was measured of them, which is in use, and drift."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service.analyse.restoration import Card, folder_of, installed, verify_weights
from service.db import audit, heartbeats, scores, switches
from service.db.session import database
from service.errors import NetworkError, NotAllowed, NotFound
from service.review.deps import Admin, Reader
from service.review.pages import render
from service.settings import settings

router = APIRouter(prefix="/models", include_in_schema=False)

MEASURES = ("auroc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Installed:
    """Weights that may be put in use, with their whole card."""

    folder: str  # the name by which the setting and the switch know them
    card: Card
    told: dict[str, Any]

    def measured(self) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """For every test set with intervals: the kinds with AUROC, sensitivity and specificity."""
        found = {}
        for test_set, kinds in self.told.get("metrics", {}).items():
            rows = [
                (kind, {name: of[name] for name in MEASURES if _is_known(of.get(name))})
                for kind, of in kinds.items()
                if kind in self.card.kinds and isinstance(of, dict)
            ]
            rows = [(kind, of) for kind, of in rows if of]
            if rows:
                found[test_set] = rows
        return found


@router.get("")
def models_page(request: Request, account: Reader) -> Response:
    """The network in use and its figures, the others, and how the stations' scores moved."""
    with database().read() as session:
        named = switches.network(session) or settings().network
        overridden, decided = scores.overrides(session)
        context = {
            "switch": switches.standing(session).get(switches.NETWORK),
            "workers": heartbeats.details(session, "work"),
            "drift": scores.drift(session),
            "used": scores.versions_in_use(session),
            "overridden": overridden,
            "decided": decided,
        }
    try:
        active = read(str(folder_of(settings().with_network(named))))
    except NetworkError:
        active = None
    others = [each for each in _all() if active is None or each.card.identity != active.card.identity]
    return render(request, "models.html", context | {"active": active, "named": named, "others": others})


@router.get("/{name}/activate")
def activation_page(request: Request, name: str, account: Admin) -> Response:
    """What would change, kind by kind, before the weights are put in use."""
    with database().read() as session:
        named = switches.network(session) or settings().network
    chosen = _chosen(name)
    try:
        active = read(str(folder_of(settings().with_network(named))))
    except NetworkError:
        active = None
    return render(request, "model_activate.html", {"chosen": chosen, "active": active, "problem": ""})


@router.post("/{name}/activate")
def activate(
    name: str,
    account: Admin,
    typed: Annotated[str, Form(max_length=96)] = "",
    reason: Annotated[str, Form(max_length=255)] = "",
) -> Response:
    """Put weights in use. Workers take them with their next instance; what was judged before stays as it was."""
    chosen = _chosen(name)
    if typed.strip() != chosen.card.version:
        raise NotAllowed(f"To put version {chosen.card.version} in use, type {chosen.card.version}.")
    if not reason.strip():
        raise NotAllowed("Say why; the audit trail keeps it.")
    verify_weights(folder_of(settings().with_network(name)), chosen.card)
    with database().begin() as session:
        before = switches.network(session) or settings().network
        switches.turn_on(session, switches.NETWORK, account.user.name, reason.strip(), {"name": name})
        detail = {"network": chosen.card.identity, "before": before, "reason": reason.strip()}
        audit.record(session, account.user.name, "network.activate", chosen.card.identity, account.address, detail)
    return RedirectResponse("/models", status_code=303)


@lru_cache(maxsize=32)
def read(folder: str) -> Installed:
    """A folder's card, which never changes: other weights have another folder. Raises NetworkError."""
    path = Path(folder) / "card.toml"
    card = Card.read(path)
    return Installed(Path(folder).name, card, tomllib.loads(path.read_text(encoding="utf-8")))


def _all() -> list[Installed]:
    found = []
    for folder in installed(settings()):
        try:
            found.append(read(str(folder)))
        except NetworkError:
            continue  # half-written weights are none
    return found


def _chosen(name: str) -> Installed:
    found = next((each for each in _all() if each.folder == name), None)
    if found is None:
        raise NotFound("There are no such weights.", cure="Put model.onnx and card.toml into DATA_DIR/weights/NAME.")
    return found


def _is_known(measure: Any) -> bool:
    return isinstance(measure, dict) and not isnan(float(measure.get("value", "nan")))
