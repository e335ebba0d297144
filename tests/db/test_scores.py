"""What the page of models tells of the week."""

from service.db import reviews, scores
from service.db.session import Database
from service.db.tables import Decision, Study, User, Verdict


def test_an_override_that_was_taken_back_does_not_count(any_db: Database) -> None:
    with any_db.begin() as session:
        anna = User(name="anna")
        flagged = [Study(study_instance_uid=f"1.{each}", verdict=Verdict.NON_COMPLIANT) for each in range(3)]
        session.add_all([anna, *flagged])
        session.flush()
        for study, decision in zip(flagged, (Decision.OVERRIDE, Decision.CONFIRM, Decision.OVERRIDE), strict=True):
            reason = "not_required" if decision is Decision.OVERRIDE else ""
            reviews.decide(session, study, anna, decision, reason, "", study.version)
        assert scores.overrides(session) == (2, 3)
        reviews.withdraw(session, flagged[2], anna)
        assert scores.overrides(session) == (1, 2)
        session.refresh(flagged[0])
        reviews.decide(session, flagged[0], anna, Decision.CONFIRM, "", "", flagged[0].version)
        assert scores.overrides(session) == (0, 2)
        reviews.withdraw(session, flagged[0], anna)
        assert scores.overrides(session) == (1, 2), "the one before stands again"
