"""The same statements on PostgreSQL: verification, retention, reconciliation and what DICOMweb asks."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from service.archive.policy import digest, parse
from service.archive.reconcile import reconcile
from service.archive.retention import outlook, release_due
from service.archive.store import ArchiveStore, archive
from service.archive.verify import verify, verify_slice
from service.db import backfills, catalogue, checks, retention
from service.db.catalogue import Asker
from service.db.session import Database
from service.db.tables import Base, now
from service.settings import Settings
from tests.archive.shelf import at_once, spoil, study
from tests.archive.test_retention import YEAR


@pytest.fixture
def db(new_database: Callable[[str], str], house: Settings) -> Iterator[Database]:
    """An empty PostgreSQL database with all tables."""
    found = Database(new_database("care"))
    Base.metadata.create_all(found.engine)
    yield found
    found.dispose()


def test_bytes_are_cared_for(db: Database, house: Settings) -> None:
    archive.cache_clear()
    store: ArchiveStore = archive()
    old, young = study(db, store), study(db, store, days=1)
    with db.read() as session:
        images = catalogue.instances(session, {"StudyInstanceUID": f"{old},{young}"}, Asker("North"), 10)
        assert len(images) == 4 and not catalogue.instances(session, {}, Asker("South"), 10)
        assert [each.instances for each in catalogue.studies(session, {"PatientName": "can?ry*"}, Asker(), 5, 0)] == [
            2,
            2,
        ]
        assert len(catalogue.series(session, {"StudyDate": "-20991231"}, Asker(), 5, 0)) == 0
        assert catalogue.studies(session, {"ModalitiesInStudy": "US"}, Asker(), 5, 0)[0].modalities == ["US"]
    assert verify_slice(store, db, timedelta(days=10)).checked == 1
    spoil(store, images[-1].instance.archive_key)
    assert verify(store, db, now()).damaged == 1
    policy = parse(YEAR)
    with db.begin() as session:
        retention.activate(session, retention.keep_draft(session, policy.name, digest(YEAR), YEAR, "boss"), "boss")
        assert [each.study_instance_uid for each in outlook(session, policy).due] == [old]
    assert release_due(store, db, "test") == 1
    assert reconcile(store, db, at_once).missing == 0
    with db.read() as session:
        health = checks.health(session)
        assert (health.stored, health.damaged, health.missing) == (2, 1, 0)
        assert sum(each.released for each in catalogue.instances(session, {}, Asker(), 10)) == 2
    with db.begin() as session:
        run = backfills.begin(session, "PACS@127.0.0.1:104", now().date(), now().date(), "US")
        backfills.note_day(session, run.id, now().date(), [old, young], is_over=True)
        assert len(backfills.unfinished(session, run.id)) == 2 and not backfills.finish(session, run.id)
