"""What people's words make of single frames: which kinds of marks are there, and which are not.

A box speaks of its own frame. A decision speaks of a study, so it counts only where it can mean but one frame: where a
finding stands on one frame and one kind, which the network did not see there, or was not sure of.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from service.db import corrections, decisions, studies
from service.db.corrections import Box
from service.db.tables import Correction, Decision, Finding, FindingState, Instance, Review, Severity, Study

AT_ONCE = 500

# A retake's reasons that name a kind.
_RETAKEN = {"body_marker": "body_marker", "calipers": "caliper", "color_box": "color_box"}
_LACKING = (FindingState.MISSING, FindingState.UNCERTAIN)
_NOT_SEEN = ("absent", "uncertain")


@dataclass
class Testimony:
    """One frame: what was said of it, and the marks that stand on it."""

    instance: Instance
    frame: int
    said: list[Correction] = field(default_factory=list)
    decided: dict[str, bool] = field(default_factory=dict)  # by kind; where a box speaks too, the box counts
    marks: list[tuple[str, Box]] = field(default_factory=list)  # the network's that nobody rejected, and people's

    def there(self, kind: str) -> bool | None:
        """Whether the frame carries the kind; None where nobody said a word."""
        if any(each.kind == kind for each in self.said):
            return any(marked == kind for marked, _ in self.marks)
        return self.decided.get(kind)


def frames(session: Session) -> Iterator[Testimony]:
    """Every frame of which somebody said something, in the order in which the images came."""
    decided = _decided(session)
    boxed = set(corrections.corrected_frames(session))
    for instance_id, number in sorted(boxed | decided.keys()):
        instance = session.get_one(Instance, instance_id, options=[joinedload(Instance.study)])
        said = [each for each in corrections.of_instances(session, [instance_id]) if each.frame == number]
        assessed = studies.frame(instance, number)
        rejected = {each.annotation_id for each in said}
        marks = [
            (mark.kind, Box(mark.x, mark.y, mark.width, mark.height))
            for mark in (assessed.annotations if assessed else [])
            if mark.id not in rejected
        ]
        marks += [
            (each.kind, Box(each.x, each.y, each.width, each.height)) for each in said if each.annotation_id is None
        ]
        yield Testimony(instance, number, said, decided.get((instance_id, number), {}), marks)


def _decided(session: Session) -> dict[tuple[int, int], dict[str, bool]]:
    """What standing decisions say, by instance id and frame and by kind."""
    told: dict[tuple[int, int], dict[str, bool]] = defaultdict(dict)
    stand = decisions.standing(session, Study.decision.is_not(None), ~Study.synthetic)
    ids = [left[-1].id for left in stand.values()]
    for start in range(0, len(ids), AT_ONCE):
        some = session.scalars(select(Review).where(Review.id.in_(ids[start : start + AT_ONCE]))).all()
        findings = _findings(session, [each.verdict_id for each in some if each.verdict_id is not None])
        spoken = [
            (review, entry)
            for review in some
            for entry in map(_only_frame, findings.get(review.verdict_id, ()))
            if entry
        ]
        instances = _instances(session, {entry["sop_instance_uid"] for _, entry in spoken})
        for review, entry in spoken:
            there = _says(review, entry["kind"], alone=len(findings[review.verdict_id]) == 1)
            versions = instances.get((review.study_id, entry["sop_instance_uid"]), [])
            if there is not None and len(versions) == 1:  # of several versions nobody knows which one was looked at
                told[versions[0], entry["frame"]][entry["kind"]] = there
    return told


def _says(review: Review, kind: str, *, alone: bool) -> bool | None:
    """Whether the decision says that the kind, which was not seen, is there; None where it says nothing of it.

    Of several findings (not ``alone``) only a retake says which one it means.
    """
    if review.decision is not Decision.RETAKE and not alone:
        return None
    if review.decision is Decision.OVERRIDE:
        return True if review.reason == "present_missed" else None
    if review.decision is Decision.CONFIRM or _RETAKEN.get(review.reason) == kind:
        return False
    return None


def _findings(session: Session, verdict_ids: list[int]) -> Mapping[int | None, list[Finding]]:
    found: dict[int | None, list[Finding]] = defaultdict(list)
    query = select(Finding).where(
        Finding.verdict_id.in_(verdict_ids), Finding.state.in_(_LACKING), Finding.severity != Severity.INFO
    )
    for finding in session.scalars(query.order_by(Finding.id)):
        found[finding.verdict_id].append(finding)
    return found


def _only_frame(finding: Finding) -> Mapping[str, Any] | None:
    """The one frame and kind that the finding stands on; None where there are more, or none."""
    entries = [
        entry
        for entry in finding.evidence.get("frames", ())
        if entry.get("frame") is not None and entry.get("presence") in _NOT_SEEN and "kind" in entry
    ]
    return entries[0] if len(entries) == 1 else None


def _instances(session: Session, uids: Iterable[str]) -> dict[tuple[int, str], list[int]]:
    found: dict[tuple[int, str], list[int]] = defaultdict(list)
    query = select(Instance.study_id, Instance.sop_instance_uid, Instance.id)
    for study_id, uid, instance_id in session.execute(query.where(Instance.sop_instance_uid.in_(list(uids)))):
        found[study_id, uid].append(instance_id)
    return found
