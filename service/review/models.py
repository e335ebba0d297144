"""Models: the networks that are installed, what was measured of them, which is in use, and drift."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from service.analyse.pipeline import reading
from service.analyse.restoration import Card, folder_of, installed, verify_weights
from service.db import audit, heartbeats, scores, switches
from service.db.session import database
from service.db.tables import Heartbeat
from service.errors import NetworkError, NotAllowed, NotFound, SonomarkError
from service.review.deps import Account, Admin, Reader
from service.review.pages import render
from service.settings import settings

router = APIRouter(prefix="/models", include_in_schema=False)

MEASURES = ("auroc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Installed:
    """Weights that may be put in use, with their whole card."""

    path: Path
    card: Card
    told: dict[str, Any]

    @property
    def folder(self) -> str:
        """The name by which the setting and the switch know them."""
        return self.path.name

    def runs_in(self, worker: Heartbeat) -> bool:
        """Whether that worker has them in use, with these thresholds."""
        runs, reads = str(worker.detail.get("network", "")), worker.detail.get("thresholds", "")
        return bool(runs.partition("+")[0] == self.card.identity and reads == self.card.digest)

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
    return _page(request)


@router.post("/of-settings")
def back_to_settings(request: Request, account: Admin, reason: Annotated[str, Form(max_length=255)] = "") -> Response:
    """Put the weights that the setting NETWORK names in use again."""
    try:
        chosen = read(str(folder_of(settings())))
        _require_fit(chosen, reason)
    except SonomarkError as error:
        return _page(request, problem=str(error), status=422)
    with database().begin() as session:
        before = switches.network(session) or settings().network
        switches.turn_off(session, switches.NETWORK)
        _note(session, account, chosen, before, reason)
    return RedirectResponse("/models", status_code=303)


@router.get("/{name}/activate")
def activation_page(request: Request, name: str, account: Admin) -> Response:
    """What would change, kind by kind, before the weights are put in use."""
    return _activation(request, _chosen(name))


@router.post("/{name}/activate")
def activate(
    request: Request,
    name: str,
    account: Admin,
    typed: Annotated[str, Form(max_length=96)] = "",
    reason: Annotated[str, Form(max_length=255)] = "",
) -> Response:
    """Put weights in use. Workers take them with their next instance; what was judged before stays as it was."""
    chosen = _chosen(name)
    try:
        if typed.strip() != chosen.card.version:
            raise NotAllowed(
                "What was typed is not the version of these weights.",
                cure=f"Type {chosen.card.version} to put them in use.",
            )
        _require_fit(chosen, reason)
    except SonomarkError as error:
        return _activation(request, chosen, problem=str(error), reason=reason, status=422)
    with database().begin() as session:
        before = switches.network(session) or settings().network
        switches.turn_on(session, switches.NETWORK, account.user.name, reason.strip(), {"name": name})
        _note(session, account, chosen, before, reason)
    return RedirectResponse("/models", status_code=303)


def _require_fit(chosen: Installed, reason: str) -> None:
    """Raises NotAllowed without a reason, NetworkError unless the weights are those of their card."""
    if not reason.strip():
        raise NotAllowed("No reason was given.", cure="Say why; the audit trail keeps it.")
    reading(chosen.card)
    verify_weights(chosen.path, chosen.card)


def _note(session: Session, account: Account, chosen: Installed, before: str, reason: str) -> None:
    detail = {"network": chosen.card.identity, "before": before, "reason": reason.strip()}
    audit.record(session, account.user.name, "network.activate", chosen.card.identity, account.address, detail)


def _page(request: Request, *, problem: str = "", status: int = 200) -> Response:
    with database().read() as session:
        named = switches.network(session) or settings().network
        overridden, decided = scores.overrides(session)
        context: dict[str, Any] = {
            "switch": switches.standing(session).get(switches.NETWORK),
            "workers": heartbeats.details(session, "work"),
            "drift": scores.drift(session),
            "used": scores.versions_in_use(session),
            "overridden": overridden,
            "decided": decided,
        }
    active = _active(named)
    found, unreadable = _all()
    others = [each for each in found if active is None or each.path != active.path]
    context |= {"active": active, "named": named, "others": others, "unreadable": unreadable, "problem": problem}
    return render(request, "models.html", context, status=status)


def _activation(
    request: Request, chosen: Installed, *, problem: str = "", reason: str = "", status: int = 200
) -> Response:
    with database().read() as session:
        active = _active(switches.network(session) or settings().network)
    context = {"chosen": chosen, "active": active, "problem": problem, "reason": reason}
    return render(request, "model_activate.html", context, status=status)


def _active(named: str) -> Installed | None:
    try:
        return read(str(folder_of(settings().with_network(named))))
    except NetworkError:
        return None


@lru_cache(maxsize=32)
def read(folder: str) -> Installed:
    """A folder's card, which never changes: other weights have another folder. Raises NetworkError."""
    path = Path(folder) / "card.toml"
    card = Card.read(path)
    return Installed(Path(folder), card, tomllib.loads(path.read_text(encoding="utf-8")))


def _all() -> tuple[list[Installed], list[tuple[str, str]]]:
    """The weights that can be read, and the folders of the others with what is wrong there."""
    found, unreadable = [], []
    for folder in installed(settings()):
        try:
            found.append(read(str(folder)))
        except NetworkError as error:
            unreadable.append((folder.name, str(error)))
    return found, unreadable


def _chosen(name: str) -> Installed:
    found = next((each for each in _all()[0] if each.folder == name), None)
    if found is None:
        raise NotFound("There are no such weights.", cure="Put model.onnx and card.toml into DATA_DIR/weights/NAME.")
    return found


def _is_known(measure: Any) -> bool:
    return isinstance(measure, dict) and not isnan(float(measure.get("value", "nan")))
