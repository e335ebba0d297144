"""The house's own commands."""

from service.cli.house import sign_in_link
from service.db import audit, users
from service.db.session import Database
from service.db.tables import Role
from service.settings import Settings


def test_the_link_of_the_first_start_and_its_account_are_in_the_audit_trail(db: Database, house: Settings) -> None:
    for _ in range(2):
        assert "/sign-in/once?token=" in sign_in_link(house)
    with db.read() as session:
        assert users.get_user(session, "admin").role is Role.ADMIN
        told = [(each.action, each.subject) for each in audit.search(session)]
    assert sorted(told) == [("user.add", "admin"), ("user.one-time", "admin"), ("user.one-time", "admin")]
