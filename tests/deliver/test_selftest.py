"""What a self-test leaves behind: nothing, and what is somebody else's stays."""

import pytest
from sqlalchemy import select, update

from service.archive.store import ArchiveStore, archive
from service.db.session import Database
from service.db.tables import Frame, Study
from service.deliver import selftest
from tests.review import ward


def test_the_masks_of_the_next_study_are_not_taken_along(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite gives the ids of removed rows again, and masks are named by them."""
    archive.cache_clear()
    uid = ward.admit(db, 1, pictures=[ward.wide()])
    with db.begin() as session:
        session.execute(update(Study).values(synthetic=True))
    delete, came = ArchiveStore.delete, []

    def delete_while_another_comes(store: ArchiveStore, key: str) -> None:
        if not came and not key.startswith("masks/"):
            came.append(ward.admit(db, 2, pictures=[ward.wide()]))
        delete(store, key)

    monkeypatch.setattr(ArchiveStore, "delete", delete_while_another_comes)
    assert selftest._remove(uid).ok
    with db.read() as session:
        masks = session.scalars(select(Frame.mask_key)).all()
    assert came and masks and all(archive().exists(key) for key in masks)
