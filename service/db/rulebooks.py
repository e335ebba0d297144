"""Versions of rule books: every one that ever judged anything is kept, and one is in force."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.compliance.check import errors_among, lint_text
from service.compliance.rulebook import Rulebook, find, load, parse
from service.db.session import past_mapper
from service.db.tables import RulebookVersion, now
from service.errors import Conflict, NotFound, RulebookError
from service.settings import settings

# Who stands behind a version that came from the settings' file and not from a person.
FROM_SETTINGS = ""


def in_force(session: Session) -> Rulebook:
    """The rule book that judges now: the one a person activated last, else the one the settings name.

    The latter is kept as a version too, so that its verdicts can be explained when the file has long changed.
    """
    rulebook = _activated(session)
    if rulebook is None:
        rulebook = of_settings()
        if past_mapper(session).scalar(_KEPT, {"digest": rulebook.sha256}) is None:
            keep(session, rulebook, FROM_SETTINGS, activated_at=now())
    return rulebook


def in_force_now(session: Session) -> Rulebook:
    """The same for who only looks: nothing is written."""
    return _activated(session) or of_settings()


def _activated(session: Session) -> Rulebook | None:
    toml = past_mapper(session).scalar(_ACTIVATED)
    return _parsed(toml) if toml is not None else None


_ACTIVATED = (
    select(RulebookVersion.toml)
    .where(
        RulebookVersion.created_by != FROM_SETTINGS,
        RulebookVersion.activated_at.is_not(None),
        RulebookVersion.retired_at.is_(None),
    )
    .order_by(RulebookVersion.activated_at.desc(), RulebookVersion.id.desc())
    .limit(1)
)
_KEPT = select(RulebookVersion.id).where(RulebookVersion.sha256 == bindparam("digest"))


def of_settings() -> Rulebook:
    """The rule book that the settings name, read again when its file changed."""
    file = find(settings().rulebook)
    try:
        stat = file.stat()
    except OSError:
        return load(file)  # raises, and says so in a rule book's own error
    return _loaded(file, stat.st_mtime_ns, stat.st_size)


def keep(
    session: Session, rulebook: Rulebook, created_by: str, activated_at: datetime | None = None
) -> RulebookVersion:
    """The version that holds exactly this text; two processes that keep it at once get the same one."""
    found = of_digest(session, rulebook.sha256)
    if found is None:
        row = {
            "name": rulebook.name,
            "version": rulebook.version,
            "sha256": rulebook.sha256,
            "toml": rulebook.toml,
            "created_by": created_by,
            "created_at": now(),
            "activated_at": activated_at,
        }
        session.execute(_insert(session).values(row).on_conflict_do_nothing(index_elements=["sha256"]))
        found = of_digest(session, rulebook.sha256)
    if found is None:
        raise Conflict("The rule book's version was removed while it was being kept.", cure="Try again.")
    return found


def save(session: Session, toml: str, created_by: str, *, based_on: str | None = None) -> RulebookVersion:
    """Keep a person's draft. ``based_on`` is the sha256 of the version it was edited from.

    Raises RulebookError when the text is no rule book, and Conflict when somebody else saved a newer version of the
    same rule book since, or when this version number already stands for another text.
    """
    rulebook = parse(toml, "draft")
    _one_at_a_time(session)
    newest = newest_of(session, rulebook.name)
    if based_on is not None and newest is not None and newest.sha256 not in (based_on, rulebook.sha256):
        raise Conflict(
            f"{newest.created_by or 'Another person'} saved version {newest.version} of this rule book meanwhile.",
            cure="Compare your text with it, merge the changes and save again.",
        )
    twin = session.scalar(
        select(RulebookVersion).where(
            RulebookVersion.name == rulebook.name,
            RulebookVersion.version == rulebook.version,
            RulebookVersion.sha256 != rulebook.sha256,
        )
    )
    if twin is not None:
        raise Conflict(
            f"Version {rulebook.version} of {rulebook.name} is kept already, with another text.",
            cure="Give yours a new number in its line `version`.",
        )
    return keep(session, rulebook, created_by)


def activate(session: Session, version_id: int, by: str) -> RulebookVersion:
    """Put a version in force and retire every other one that a person had put in force.

    Raises RulebookError when the linter finds that it contradicts itself or asks what can never be met.
    """
    _one_at_a_time(session)
    version = get(session, version_id)
    wrong = errors_among(lint_text(version.toml))
    if wrong:
        raise RulebookError(
            "\n".join(problem.against(f"{version.name} {version.version}") for problem in wrong),
            cure="Correct it and save it as a new version; this one is not put in force.",
        )
    moment = now()
    session.execute(
        update(RulebookVersion)
        .where(RulebookVersion.activated_at.is_not(None), RulebookVersion.retired_at.is_(None))
        .where(RulebookVersion.id != version_id)
        .values(retired_at=moment)
    )
    version.activated_at, version.retired_at = moment, None
    version.created_by = version.created_by or by
    session.flush()
    return version


def get(session: Session, version_id: int) -> RulebookVersion:
    version = session.get(RulebookVersion, version_id)
    if version is None:
        raise NotFound(
            f"There is no version {version_id} of a rule book.",
            cure="The page Rule books, or `sonomark rules list`, shows their numbers.",
        )
    return version


def newest_of(session: Session, name: str) -> RulebookVersion | None:
    """The version of ``name`` that was kept last."""
    newest_first = select(RulebookVersion).order_by(RulebookVersion.id.desc())
    return session.scalar(newest_first.where(RulebookVersion.name == name).limit(1))


def versions(session: Session, name: str | None = None) -> list[RulebookVersion]:
    """Every version, newest first."""
    query = select(RulebookVersion).order_by(RulebookVersion.id.desc())
    return list(session.scalars(query.where(RulebookVersion.name == name) if name else query))


def parsed(version: RulebookVersion) -> Rulebook:
    """The rule book of a kept version."""
    return _parsed(version.toml)


@lru_cache(maxsize=32)
def _parsed(toml: str) -> Rulebook:
    return parse(toml, "kept rule book")


@lru_cache(maxsize=8)
def _loaded(file: Path, changed_ns: int, size: int) -> Rulebook:
    return load(file)


def of_digest(session: Session, sha256: str) -> RulebookVersion | None:
    """The version with exactly this text."""
    return session.scalar(select(RulebookVersion).where(RulebookVersion.sha256 == sha256))


def of_label(session: Session, label: str) -> Rulebook | None:
    """The rule book that a verdict names, as `Rulebook.label` writes it; None when it is not kept."""
    digest = label.rpartition("+")[2]
    if digest == label:
        return None
    if label not in _labelled:
        toml = session.scalar(
            select(RulebookVersion.toml).where(RulebookVersion.sha256.startswith(digest, autoescape=True)).limit(1)
        )
        if toml is None:
            return None
        _labelled[label] = toml
    return _parsed(_labelled[label])


_labelled: dict[str, str] = {}  # a label's text never changes, for its digest is part of it


def _one_at_a_time(session: Session) -> None:
    """Let two people who save or activate at once do so one after the other: the later one sees what the first did."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer anyway
        session.execute(text("LOCK TABLE rulebook_versions IN SHARE ROW EXCLUSIVE MODE"))


def _insert(session: Session) -> Any:
    """INSERT … ON CONFLICT of the database in use."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return dialect.insert(RulebookVersion)
