"""Sends what the outbox holds, again and again until it is there. Runs as a thread of the sweeper."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from threading import Event, Thread
from time import monotonic

from pydicom import Dataset, dcmwrite
from sqlalchemy.orm import Session

from service import logs
from service.archive.store import archive
from service.db import deliveries
from service.db.reviews import words_of
from service.db.session import Database
from service.db.tables import Delivery, DeliveryKind
from service.deliver import mail, notice, webhook
from service.deliver.rejection import rejection_note
from service.deliver.results import results_of
from service.deliver.segmentation import segmentations
from service.deliver.send import Node, Sent, send
from service.deliver.structured_report import structured_report
from service.errors import DatabaseAway, PeerError, PeerRefused, SonomarkError
from service.settings import settings

log = logs.get(__name__)

AT_ONCE = 20
PAUSE_S = 2.0
AWAY_S = 10.0  # that a receiver is left alone which did not answer
TIDY_EVERY_S = 3600.0


class Outbox:
    """Takes deliveries whose turn it is, one after the other."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._away: dict[str, float] = {}  # targets, each with the moment of `monotonic` from which it is tried again

    def start(self, stop: Event) -> Thread:
        """Work in a thread until ``stop``: a slow receiver must not keep the sweeper from its other duties."""
        thread = Thread(target=self._work, args=(stop,), name="outbox", daemon=True)
        thread.start()
        return thread

    def round(self) -> int:
        """Try everything that is due once; returns how much was delivered.

        A receiver that is away gets nothing more in this round: its other deliveries wait for their next turn, and keep
        nobody else's from theirs.
        """
        self._away = {target: until for target, until in self._away.items() if until > monotonic()}
        with self._db.begin() as session:
            due = deliveries.claim(session, AT_ONCE, self._away)
        away: dict[str, SonomarkError] = {}
        done = 0
        for delivery in due:
            with self._db.begin() as session:
                if not deliveries.hold(session, delivery):
                    continue
            error = away.get(delivery.target) or self._try(delivery)
            if error is None:
                done += 1
            elif isinstance(error, PeerError) and not isinstance(error, PeerRefused):
                away[delivery.target] = error
                self._away[delivery.target] = monotonic() + AWAY_S
            self._note(delivery, error)
        return done

    def tidy(self) -> int:
        """Remove what was made for deliveries that have ended and will never be repeated; returns for how many."""
        with self._db.read() as session:
            ended = deliveries.leaving_objects(session, AT_ONCE)
        for delivery in ended:
            for key in delivery.objects:
                archive().delete(key)
            with self._db.begin() as session:
                deliveries.keep_objects(session, delivery.id, [])
        return len(ended)

    def _work(self, stop: Event) -> None:
        tidy_from = monotonic()
        while not stop.wait(PAUSE_S):
            try:
                while self.round():
                    pass
                if monotonic() >= tidy_from:
                    tidy_from = monotonic() + TIDY_EVERY_S
                    while self.tidy():
                        pass
            except DatabaseAway as error:
                log.warning("database away", cause=error.what)
            except Exception as error:  # noqa: BLE001 - its text may quote patient data
                log.error("outbox failed", cause=type(error).__name__)

    def _try(self, delivery: Delivery) -> SonomarkError | None:
        try:
            _WAYS[delivery.kind](self._db, delivery)
        except SonomarkError as error:
            return error
        except Exception as error:  # noqa: BLE001 - one delivery never stops the others
            return SonomarkError(
                f"It could not be made or sent ({type(error).__name__}).",
                cure="Report it with the sweeper's log; it is tried again.",
            )
        return None

    def _note(self, delivery: Delivery, error: SonomarkError | None) -> None:
        with self._db.begin() as session:
            if error is None:
                deliveries.delivered(session, delivery.id)
            else:
                deliveries.failed(session, delivery.id, error.what, error.cure)
        said = {"delivery": delivery.id, "kind": delivery.kind.value, "attempt": delivery.attempts}
        if error is None:
            log.info("delivered", **said)
        else:
            log.warning("not delivered", **said, reason=error.what, cure=error.cure)


def _to_node(db: Database, delivery: Delivery) -> None:
    """Store the delivery's objects at its DICOM node; they are made once and kept, so that a repeat is the same."""
    keys = delivery.objects or _made(db, delivery)
    if not keys:
        return
    results = send(
        [archive().path(key) for key in keys], Node.parse(delivery.target), calling_ae_title=settings().ae_title
    )
    refused = [result for result in results if not result.stored]
    if refused:
        raise PeerRefused(
            f"The node refused {len(refused)} of {len(results)} objects ({_why(refused[0])}).",
            cure="Look whether it takes this SOP class from us; it is tried again.",
        )


def _why(refused: Sent) -> str:
    """The status, or our own words where there was none; the peer's comment may quote patient data."""
    return refused.reason if refused.status is None else f"status 0x{refused.status:04X}"


def _made(db: Database, delivery: Delivery) -> list[str]:
    with db.read() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote patients' names
        made = list(_objects(session, delivery))
    keys = []
    for number, one in enumerate(made, start=1):
        # A thousand share a folder: nobody removes one when it is empty.
        key = f"deliveries/{delivery.id // 1000}/{delivery.id}-{number}.dcm"
        data = io.BytesIO()
        dcmwrite(data, one, enforce_file_format=True)
        archive().put(key, data.getvalue())
        keys.append(key)
    with db.begin() as session:
        deliveries.keep_objects(session, delivery.id, keys)
    return keys


def _objects(session: Session, delivery: Delivery) -> Iterable[Dataset]:
    results = results_of(session, delivery.study, deliveries.verdict_of(session, delivery))
    if not results.images:
        return []
    if delivery.kind is DeliveryKind.REPORT:
        return [structured_report(results)]
    if delivery.kind is DeliveryKind.SEGMENTATION:
        return segmentations(results)
    review = deliveries.review_of(session, delivery)
    rejected = results.lacking()
    # Of images that were released there is nothing to say, and of the others nobody asked for a retake.
    if review is None or (rejected and not any(image.uid in rejected for image in results.images)):
        return []
    return [rejection_note(results, rejected, words_of(review.decision, review.reason), review.created_at)]


def _to_webhook(db: Database, delivery: Delivery) -> None:
    with db.read() as session:
        told = notice.as_json(delivery.study, deliveries.verdict_of(session, delivery), settings().public_url)
    house = settings()
    webhook.post(delivery.target, told, number=delivery.id, allowed=house.webhook_hosts, secret=house.webhook_secret)


def _by_mail(db: Database, delivery: Delivery) -> None:
    with db.read() as session:
        subject, text = notice.as_text(delivery.study, deliveries.verdict_of(session, delivery), settings().public_url)
    mail.send(delivery.target, subject, text, number=delivery.id, by=settings())


_WAYS: dict[DeliveryKind, Callable[[Database, Delivery], None]] = {
    DeliveryKind.REPORT: _to_node,
    DeliveryKind.SEGMENTATION: _to_node,
    DeliveryKind.REJECTION: _to_node,
    DeliveryKind.WEBHOOK: _to_webhook,
    DeliveryKind.MAIL: _by_mail,
}
