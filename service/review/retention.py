"""Retention over HTTP: policies with a dry run, legal holds, and the state of the archive's bytes."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from service.archive import policy as policies
from service.archive.retention import outlook
from service.db import audit, checks, retention, studies
from service.db.session import database
from service.db.tables import LegalHold, RetentionPolicy
from service.errors import Conflict
from service.review.deps import Admin, Reader, Reporter, Reviewer
from service.review.problems import PROBLEM_RESPONSES
from service.review.schemas import Id, Moment
from service.review.words import plural

router = APIRouter(tags=["retention"], responses=PROBLEM_RESPONSES)

Uid = Annotated[str, Path(max_length=64)]


class Archive(BaseModel):
    """The archive's bytes as the last looks found them."""

    stored: int
    checked: int
    damaged: int
    missing: int
    oldest_check: Moment | None
    last_full_pass: Moment | None


class Policy(BaseModel):
    """One version of a retention policy."""

    id: int
    name: str
    sha256: str
    toml: str
    created_by: str
    created_at: Moment
    activated_by: str
    activated_at: Moment | None
    retired_at: Moment | None


class Draft(BaseModel):
    toml: str = Field(max_length=100_000)


class DueStudy(BaseModel):
    study_instance_uid: str
    institution: str
    last_received_at: Moment
    rule: str
    instances: int
    octets: int


class Forecast(BaseModel):
    """What a policy would release now; nothing is changed. `kept_back`: old enough, by what protects them."""

    studies: int
    octets: int
    due: list[DueStudy]
    kept_back: dict[str, int]


class Activation(BaseModel):
    expected_studies: int = Field(description="`studies` of the dry run that the administrator has seen.")


class HoldRequest(BaseModel):
    reason: str = Field(min_length=3, max_length=2000)


class Hold(BaseModel):
    study_instance_uid: str
    reason: str
    placed_by: str
    placed_at: Moment
    lifted_by: str
    lifted_at: Moment | None


@router.get("/api/archive")
def get_archive(account: Reader) -> Archive:
    """How many objects there are, how many were looked at, and how many are damaged or missing."""
    with database().read() as session:
        found = checks.health(session)
    return Archive(
        stored=found.stored,
        checked=found.checked,
        damaged=found.damaged,
        missing=found.missing,
        oldest_check=found.oldest_check,
        last_full_pass=found.last_full_pass,
    )


@router.get("/api/retention/policies")
def list_policies(account: Admin) -> list[Policy]:
    """Every policy, newest first; the one in force is activated and not retired."""
    with database().read() as session:
        return [_policy(each) for each in retention.policies(session)]


@router.put("/api/retention/policies")
def put_policy(account: Admin, draft: Draft) -> Policy:
    """Keep a draft; it releases nothing until it is activated."""
    parsed = policies.parse(draft.toml)
    with database().begin() as session:
        kept = retention.keep_draft(session, parsed.name, policies.digest(draft.toml), draft.toml, account.user.name)
        audit.record(session, account.user.name, "retention.draft", str(kept.id), account.address)
        return _policy(kept)


@router.get("/api/retention/policies/{number}/due")
def dry_run(number: Id, account: Admin, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> Forecast:
    """The dry run: which studies' bytes this policy would release now."""
    with database().read() as session:
        found = outlook(session, policies.parse(retention.get(session, number).toml))
    return Forecast(
        studies=len(found.due),
        octets=found.octets,
        due=[
            DueStudy(
                study_instance_uid=each.study_instance_uid,
                institution=each.institution,
                last_received_at=each.last_received_at,
                rule=each.rule,
                instances=each.instances,
                octets=each.octets,
            )
            for each in found.due[:limit]
        ],
        kept_back=dict(found.kept_back),
    )


@router.post("/api/retention/policies/{number}/activate")
def activate(number: Id, account: Admin, asked: Activation) -> Policy:
    """Put the policy in force. 409 when it would release more studies than the dry run that was looked at."""
    with database().begin() as session:
        policy = retention.get(session, number)
        count = len(outlook(session, policies.parse(policy.toml)).due)
        if count > asked.expected_studies:
            raise Conflict(
                f"It would release {plural(count, 'study', 'studies')} by now.", cure="Look at the dry run again."
            )
        retention.activate(session, policy, account.user.name)
        told = {"policy": policy.name, "sha256": policy.sha256, "studies": count}
        audit.record(session, account.user.name, "retention.activate", str(number), account.address, told)
        return _policy(policy)


@router.post("/api/retention/retire")
def retire(account: Admin) -> list[Policy]:
    """Take the policy out of force: from now on everything is kept."""
    with database().begin() as session:
        retention.retire(session)
        audit.record(session, account.user.name, "retention.retire", "", account.address)
        return [_policy(each) for each in retention.policies(session)]


@router.get("/api/legal-holds")
def list_holds(account: Reporter) -> list[Hold]:
    """Studies under legal hold."""
    with database().read() as session:
        found = retention.standing_holds(session)
        return [
            _hold(study.study_instance_uid, held) for study, held in found if account.site in ("", study.institution)
        ]


@router.put("/api/studies/{study_instance_uid}/legal-hold")
def place_hold(study_instance_uid: Uid, account: Reviewer, asked: HoldRequest) -> Hold:
    """Keep the study's bytes whatever a policy says, until an administrator lifts the hold."""
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        held = retention.place_hold(session, study, asked.reason, account.user.name)
        told = {"reason": asked.reason}
        audit.record(session, account.user.name, "retention.hold", study_instance_uid, account.address, told)
        return _hold(study_instance_uid, held)


@router.delete("/api/studies/{study_instance_uid}/legal-hold")
def lift_hold(study_instance_uid: Uid, account: Admin) -> Hold:
    """Lift the hold."""
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        held = retention.lift_hold(session, study, account.user.name)
        audit.record(session, account.user.name, "retention.lift", study_instance_uid, account.address)
        return _hold(study_instance_uid, held)


def _policy(of: RetentionPolicy) -> Policy:
    return Policy.model_validate(of, from_attributes=True)


def _hold(study_instance_uid: str, of: LegalHold) -> Hold:
    return Hold(
        study_instance_uid=study_instance_uid,
        reason=of.reason,
        placed_by=of.placed_by,
        placed_at=of.placed_at,
        lifted_by=of.lifted_by,
        lifted_at=of.lifted_at,
    )
