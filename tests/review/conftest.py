"""A dashboard in this process, and people who are signed in to it."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.archive.cache import pictures
from service.archive.store import archive
from service.db import users
from service.db.session import Database
from service.db.tables import Role
from service.review import deps, frames, instances
from service.review.app import create_app

PASSWORD = "correct horse battery"


@pytest.fixture
def client(db: Database) -> TestClient:
    """Nobody is signed in; redirects are shown, not followed."""
    instances._seen = instances.Seen()
    for cached in (archive, deps.secret_key, frames.loaded, pictures):
        cached.cache_clear()
    return TestClient(create_app(), follow_redirects=False)


@pytest.fixture
def sign_in(db: Database, client: TestClient) -> Callable[..., TestClient]:
    """A browser of its own for an account with this role."""

    def enter(role: Role = Role.REVIEWER, name: str = "", site: str = "") -> TestClient:
        browser = TestClient(client.app, follow_redirects=False)
        with db.begin() as session:
            user = users.find_user(session, name or role.value)
            user = user or users.create_user(session, name or role.value, role, site=site)
            secret = users.open_session(session, user)
        browser.cookies.set(deps.COOKIE, secret)
        browser.headers["X-CSRF-Token"] = deps.csrf_of(secret)
        return browser

    return enter


@pytest.fixture
def reviewer(sign_in: Callable[..., TestClient]) -> TestClient:
    return sign_in(Role.REVIEWER)


@pytest.fixture
def token(db: Database, client: TestClient) -> Callable[..., TestClient]:
    """A program with a bearer token."""

    def enter(role: Role = Role.REVIEWER, scope: str = "review", site: str = "") -> TestClient:
        program = TestClient(client.app, follow_redirects=False)
        with db.begin() as session:
            name = f"program-{role.value}-{scope}"
            user = users.find_user(session, name) or users.create_user(session, name, role, site=site)
            program.headers["Authorization"] = f"Bearer {users.make_api_token(session, user, 'test', scope, None)}"
        return program

    return enter
