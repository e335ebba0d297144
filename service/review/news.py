"""What happened to a study last, in a sentence for whoever reads it at the moment."""

from sqlalchemy.orm import Session

from service.db import audit, reviews, studies
from service.db.tables import Study
from service.review import words
from service.review.deps import Account

REMOVALS = ("study.remove", "study.delete", "retention")  # how the audit trail may name it


def news(session: Session, study: Study, account: Account) -> str:
    """What happened last, by whom and when: 'ann confirmed this at 14:02.'"""
    last = next(reversed(reviews.history(session, study)), None)
    judged = next(iter(studies.verdicts(session, study)), None)
    happened = [(study.last_received_at, "A further image came at")]
    if judged is not None:
        happened.append((judged.created_at, "The study was judged anew at"))
    if last is not None:
        who = "You" if last.user_id == account.user.id else last.user.name
        happened.append((last.created_at, f"{who} {words.DEEDS[last.decision]} at"))
    at, what = max(happened, key=lambda each: each[0])
    return f"{what} {words.clock(at)}."


def removed(session: Session, uid: str) -> str:
    """Who removed the study and when, as far as the audit trail knows."""
    for action in REMOVALS:
        for found in audit.search(session, action=action, subject=uid, limit=1):
            return f"This study was removed at {words.clock(found.at)} by {found.actor}."
    return "This study was removed."
