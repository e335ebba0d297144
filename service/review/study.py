"""One study: the page on which a person decides, and `/api/studies/{uid}`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, Path, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from service.db import audit, corrections, double_reads, overrides, reviews, studies, worklist
from service.db.session import database
from service.db.tables import (
    NOTE_LENGTH,
    AnalysisState,
    Correction,
    Decision,
    DoubleReadState,
    FindingState,
    Instance,
    Review,
    Study,
    Verdict,
    VerdictRecord,
)
from service.errors import Conflict, NotFound
from service.review import frames, heat, schemas, shaping, words
from service.review.deps import Account, Decider, Reader, note
from service.review.news import news
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES
from service.review.worklist import filter_of, queue_query

router = APIRouter()

CINE_FPS = 20  # of a cine whose header names no frame time

Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="Study Instance UID")]
Text = Annotated[str, Form(max_length=4000)]
CHOICE = r"^(confirm|withdraw|(override|retake):[a-z_0-9]{1,64})$"


@dataclass
class Item:
    """One image of the filmstrip."""

    instance: Instance
    state: AnalysisState | None
    frames: list[dict[str, Any]] = field(default_factory=list)
    flagged: bool = False
    asked: bool = True  # whether a rule asks anything of this image by itself
    reason: str = ""
    cure: str = ""

    @property
    def failed(self) -> bool:
        """Whether it could not be assessed."""
        return bool(self.reason) or self.state is AnalysisState.QUARANTINED


@router.get("/studies/{study_instance_uid}", include_in_schema=False)
def study_page(request: Request, study_instance_uid: Uid, account: Reader) -> Response:
    """The frames, the finding in a sentence, and the decision."""
    with database().read() as session:
        found = studies.brief(session, study_instance_uid, account.site)
        if double_reads.is_blind_for(session, found, account.second_reader):
            return RedirectResponse(f"/second-reads/{study_instance_uid}", status_code=303)
        context = _context(session, request.query_params, account, study_instance_uid)
    note(account, "study.view", study_instance_uid)
    return render(request, "study.html", context)


@router.get("/studies/{study_instance_uid}/ahead", include_in_schema=False, status_code=204)
def make_ready(study_instance_uid: Uid, account: Reader) -> Response:
    """Decode the frame that the study opens with, so that it is at hand. Nothing is shown, so nothing was viewed."""
    with database().read() as session:
        first = opening(session, study_instance_uid, account.site)
    if first is not None:
        frames.image(first[0].instance, first[1], webp=True)
    return Response(status_code=204)


@router.post("/studies/{study_instance_uid}/reviews", include_in_schema=False)
def decide_on_page(
    request: Request,
    study_instance_uid: Uid,
    account: Decider,
    choice: Annotated[str, Form(pattern=CHOICE)],
    version: Annotated[int, Form(ge=0, le=2**31 - 1)],
    text: Annotated[str, Form(alias="note", max_length=NOTE_LENGTH)] = "",
    queue: Text = "",
) -> Response:
    """Record a decision, then go on to the next study of the queue it was opened from."""
    named, _, reason = choice.partition(":")
    decision = Decision(named)
    asked = dict(parse_qsl(queue))
    wanted = filter_of(asked, account)
    in_place = request.headers.get("hx-request") == "true"  # the page's script sends it and stays where it is
    try:
        with database().begin() as session:
            study = studies.brief(session, study_instance_uid, account.site)
            _, after = worklist.neighbours(session, wanted, study)
            record_decision(session, study, account, decision, reason, text, version)
    except (Conflict, reviews.UnknownReason) as error:
        with database().begin() as session:
            reviews.save_draft(session, studies.brief(session, study_instance_uid, account.site), account.user, text)
        status = 409 if isinstance(error, Conflict) else 422
        if in_place and status == 422:
            raise
        with database().read() as session:
            if in_place:
                study = studies.brief(session, study_instance_uid, account.site)
                told = {"sentence": news(session, study, account), "choice": choice, "study": study}
                return render(request, "study_conflict.html", told, status=status)
            context = _context(session, asked, account, study_instance_uid)
        note(account, "study.view", study_instance_uid)
        return render(request, "study.html", context | {"problem": error, "note": text}, status=status)
    if decision is Decision.WITHDRAW or after is None:
        target = f"/studies/{study_instance_uid}"
    else:
        target = f"/studies/{after}"
        asked["decided"] = study_instance_uid
    target = f"{target}?{urlencode(asked)}"
    return Response(status_code=204, headers={"HX-Redirect": target}) if in_place else RedirectResponse(target, 303)


@router.get("/api/studies/{study_instance_uid}", tags=["studies"], responses=PROBLEM_RESPONSES)
def get_study(study_instance_uid: Uid, account: Reader) -> schemas.StudyDetail:
    """Everything known of a study: instances, annotations, findings, every verdict and every decision."""
    with database().read() as session:
        found = studies.find(session, study_instance_uid, account.site)
        held = reviews.holder(session, found)
        shaped = shaping.study(
            found,
            studies.verdicts(session, found),
            studies.instance_verdicts(session, found),
            reviews.history(session, found),
            held.user.name if held else "",
            corrections.of_study(session, found),
            double_reads.asked_for(session, found),
        )
    note(account, "study.view", study_instance_uid)
    return shaped


@router.post(
    "/api/studies/{study_instance_uid}/reviews", tags=["studies"], responses=PROBLEM_RESPONSES, status_code=201
)
def decide(study_instance_uid: Uid, account: Decider, given: schemas.NewReview) -> schemas.Reviewed:
    """Confirm or override the verdict, or ask for a retake. A study that changed since `version` answers 409."""
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        review = record_decision(session, study, account, given.decision, given.reason, given.note, given.version)
        session.refresh(study, ["version"])
        review.user = account.user
        return schemas.Reviewed(review=shaping.review(review), version=study.version)


def record_decision(
    session: Session, study: Study, account: Account, decision: Decision, reason: str, text: str, version: int
) -> Review:
    """The decision, or its withdrawal, with its trace in the audit trail."""
    earlier = double_reads.answers(session, study)
    if decision is Decision.WITHDRAW:
        review = reviews.withdraw(session, study, account.user)
    else:
        review = reviews.decide(session, study, account.user, decision, reason, text, version)
    detail = {"reason": review.reason, "study_version": version}
    asked = double_reads.asked_for(session, study)
    if asked is not None and asked.state is DoubleReadState.WAITING:
        detail |= {"second_reader": "asked"} | ({"read_before": earlier} if earlier else {})
    audit.record(
        session, account.user.name, f"review.{decision.value}", study.study_instance_uid, account.address, detail
    )
    return review


def _context(session: Session, query: Mapping[str, str], account: Account, uid: str) -> dict[str, Any]:
    """Everything the study page shows."""
    study = studies.find(session, uid, account.site)
    wanted = filter_of(query, account)
    before, after = worklist.neighbours(session, wanted, study)
    verdicts = studies.verdicts(session, study)
    standing = next((record for record in verdicts if record.superseded_at is None), None)
    history = reviews.history(session, study)
    decisions = reviews.standing(session, study)
    draft = reviews.draft(session, study, account.user)
    items = _items(session, study)
    findings = sorted(standing.findings, key=_weight) if standing else []
    queue = queue_query(query)
    return {
        "study": study,
        "items": items,
        "verdicts": verdicts,
        "standing": standing,
        "findings": [each for each in findings if each.state is not FindingState.NOT_APPLICABLE],
        "history": history,
        "decision": decisions[-1] if decisions else None,
        "stand": decisions,
        "weighty": overrides.weighty(session, study),
        "second_read": double_reads.asked_for(session, study),
        "mine": bool(decisions) and decisions[-1].user_id == account.user.id,
        "held": reviews.holder(session, study),
        "reasons": reviews.REASONS,
        "reason_words": reviews.words_of,
        "Decision": Decision,
        "queue": queue,
        "back": f"/worklist?{queue + '&' if queue else ''}at={uid}",
        "before": before,
        "after": after,
        "place": worklist.position(session, wanted, study) + 1,
        "total": worklist.count(session, wanted),
        "in_queue": study.rank in worklist.TABS[wanted.tab],
        "decided": _decided(session, query.get("decided", ""), account),
        "note": draft.note if draft else "",
        "draft": draft,
        "problem": None,
        "first": first_of(items),
        "data": viewer_data(study, items, account, corrections.of_study(session, study)),
    }


def _items(session: Session, study: Study) -> list[Item]:
    """The study's images as the filmstrip shows them."""
    standing = next((record for record in studies.verdicts(session, study) if record.superseded_at is None), None)
    judged = studies.instance_verdicts(session, study)
    return [_item(each, judged.get(each.id), standing) for each in study.instances]


def opening(session: Session, uid: str, site: str = "") -> tuple[Item, int] | None:
    """The image and frame that the study's page opens with."""
    return first_of(_items(session, studies.find(session, uid, site)))


def _decided(session: Session, uid: str, account: Account) -> dict[str, Any] | None:
    """The decision that led here, so that it can be undone here."""
    if not uid:
        return None
    try:
        study = studies.brief(session, uid, account.site)
    except NotFound:
        return None
    decisions = reviews.standing(session, study)
    if not decisions or decisions[-1].user_id != account.user.id:
        return None
    return {"study": study, "review": decisions[-1]}


def _item(instance: Instance, judged: VerdictRecord | None, standing: VerdictRecord | None) -> Item:
    analysis = studies.latest(instance)
    flagged_frames = _flagged_frames(instance, standing) | _flagged_frames(instance, judged)
    item = Item(
        instance,
        analysis.state if analysis else None,
        flagged=bool(flagged_frames) or (judged is not None and judged.verdict is Verdict.NON_COMPLIANT),
        asked=judged is None or judged.verdict is not Verdict.NOT_APPLICABLE,
        reason=analysis.reason if analysis else "",
        cure=analysis.cure if analysis else "",
    )
    for frame in analysis.frames if analysis else []:
        item.frames.append(
            {
                "number": frame.number,
                "rows": frame.rows,
                "columns": frame.columns,
                "scores": frame.scores,
                "mask": bool(frame.mask_key),
                "flagged": frame.number in flagged_frames,
                "marks": [
                    {
                        "id": mark.id,
                        "kind": mark.kind,
                        "score": round(mark.score, 3),
                        "box": [mark.x, mark.y, mark.width, mark.height],
                        "source": mark.source,
                    }
                    for mark in frame.annotations
                ],
            }
        )
    return item


def _flagged_frames(instance: Instance, record: VerdictRecord | None) -> set[int]:
    """Numbers of the frames that missing findings point at."""
    if record is None:
        return set()
    return {
        place.get("frame") or 0
        for finding in record.findings
        if finding.state in (FindingState.MISSING, FindingState.UNCERTAIN)
        for place in finding.evidence.get("frames", [])
        if place.get("sop_instance_uid") == instance.sop_instance_uid and place.get("presence") != "present"
    }


def first_of(items: list[Item]) -> tuple[Item, int] | None:
    """The image that is shown first: the first flagged one, else the first with pixels."""
    seen = [item for item in items if item.instance.number_of_frames > 0]
    if not seen:
        return None
    item = next((each for each in seen if each.flagged), seen[0])
    frame = next((each["number"] for each in item.frames if each["flagged"]), None)
    return item, frame or (item.frames[0]["number"] if item.frames else 1)


def viewer_data(study: Study, items: list[Item], account: Account, said: list[Correction]) -> dict[str, Any]:
    """What the viewer script reads."""
    first = first_of(items)
    return {
        "study": study.study_instance_uid,
        "version": study.version,
        "user": account.user.name,
        "decides": account.decides,
        "blinded": False,
        "heat_top": heat.top(),
        "kinds": words.KINDS,
        "start": [items.index(first[0]), first[1]] if first else None,
        "images": [
            {
                "uid": item.instance.sop_instance_uid,
                "sha256": item.instance.sha256,
                "rows": item.instance.rows,
                "columns": item.instance.columns,
                "count": item.instance.number_of_frames,
                "fps": _rate(item.instance),
                "state": item.state.value if item.state else "",
                "reason": item.reason,
                "cure": item.cure,
                "frames": item.frames,
                "corrections": [_correction(each) for each in said if each.instance_id == item.instance.id],
            }
            for item in items
        ],
    }


def _rate(instance: Instance) -> int:
    """Frames a second at which a cine was recorded, as far as its header tells and a browser can show."""
    milliseconds = (instance.header or {}).get("frame_time_ms") or 0
    return min(60, max(1, round(1000 / milliseconds))) if milliseconds > 0 else CINE_FPS


def _correction(said: Correction) -> dict[str, Any]:
    return {
        "id": said.id,
        "frame": said.frame,
        "kind": said.kind,
        "box": [said.x, said.y, said.width, said.height],
        "annotation": said.annotation_id,
        "user": said.user.name,
    }


def _weight(finding: Any) -> tuple[int, int]:
    """Missing before uncertain before met; the severest first."""
    states = (FindingState.MISSING, FindingState.UNCERTAIN, FindingState.MET, FindingState.NOT_APPLICABLE)
    return states.index(finding.state), finding.severity.rank
