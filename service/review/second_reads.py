"""Second reads in the browser: the frames without marks, verdict or names, and one question."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from service.db import audit, double_reads, studies
from service.db.session import database
from service.db.tables import NOTE_LENGTH, FindingState, Reading, Role
from service.errors import Conflict, NotAllowed
from service.review import double_reads as api
from service.review.deps import Account, Decider
from service.review.pages import render
from service.review.study import Item, Uid, first_of, viewer_data
from service.review.words import READINGS

router = APIRouter(prefix="/second-reads", include_in_schema=False)

PAGE = 50


@router.get("")
def list_page(request: Request, account: Decider, thanks: bool = False) -> Response:
    """What waits for this person's blinded answer, and where two answers differ."""
    with database().read() as session:
        waiting = double_reads.waiting_for(session, account.user, account.site, PAGE)
        lists = [("Waiting for your answer", waiting, "Nothing waits for you.")]
        if account.may(Role.REVIEWER):
            differ = double_reads.disagreements(session, account.user, account.site, PAGE)
            lists.append(("Two readers differ", differ, "Nowhere do two readers differ."))
    return render(request, "second_reads.html", {"lists": lists, "thanks": thanks, "at_most": PAGE})


@router.get("/{study_instance_uid}")
def read_page(request: Request, study_instance_uid: Uid, account: Decider) -> Response:
    """The study blinded, or with both answers for a third person. Whoever has answered sees it as any other."""
    with database().begin() as session:
        context = _context(session, study_instance_uid, account)
        if context is None:
            return RedirectResponse(f"/studies/{study_instance_uid}", 303)
        audit.record(session, account.user.name, "double_read.view", study_instance_uid, account.address)
    return render(request, "second_read.html", context)


@router.post("/{study_instance_uid}")
def answer(
    request: Request,
    study_instance_uid: Uid,
    account: Decider,
    answer: Annotated[Reading, Form()],
    version: Annotated[int, Form(ge=0, le=2**31 - 1)] = 0,
    note: Annotated[str, Form(max_length=NOTE_LENGTH)] = "",
) -> Response:
    """Take the answer, or a third person's word; then go on to the next one."""
    in_place = request.headers.get("hx-request") == "true"  # the page's script sends it and stays where it is
    with database().read() as session:
        context = _context(session, study_instance_uid, account)
    try:
        if context is not None and context["answers"]:
            api.adjudicate(study_instance_uid, account, api.Word(answer=answer, note=note, version=version))
        else:
            api.answer(study_instance_uid, account, api.Answer(answer=answer, note=note))
    except (Conflict, NotAllowed) as error:
        if context is None or in_place:
            raise
        status = 409 if isinstance(error, Conflict) else 403
        return render(request, "second_read.html", context | {"problem": error, "note": note}, status=status)
    with database().read() as session:
        waiting = double_reads.waiting_for(session, account.user, account.site, 1)
    there = f"/second-reads/{waiting[0].study.study_instance_uid}" if waiting else "/second-reads?thanks=true"
    return Response(status_code=204, headers={"HX-Redirect": there}) if in_place else RedirectResponse(there, 303)


def _context(session: Session, uid: str, account: Account) -> dict[str, Any] | None:
    """What the page shows; None when the study is not for this person to answer."""
    study = studies.find(session, uid, account.site)
    drawn = double_reads.of(session, study)
    differ = drawn is not None and any(
        each.study_id == study.id for each in double_reads.disagreements(session, account.user, account.site, 1000)
    )
    third = differ and account.may(Role.REVIEWER)
    if drawn is None or not (third or double_reads.needs_second_read(session, study, account.user)):
        return None
    items = [Item(each, None) for each in study.instances]
    standing = next((each for each in studies.verdicts(session, study) if each.superseded_at is None), None)
    findings = standing.findings if standing else []
    return {
        "study": study,
        "items": items,
        "first": first_of(items),
        "data": viewer_data(study, items, account, []) | {"decides": False, "blinded": True},
        "required": sorted({each.requirement for each in findings if each.state is not FindingState.NOT_APPLICABLE}),
        "answers": double_reads.readers(drawn) if third else [],
        "READINGS": READINGS,
        "note": "",
        "problem": None,
    }
