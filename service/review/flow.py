"""Flow: what became of every acknowledged instance, and what is held back."""

from fastapi import APIRouter

from service.db import analyses
from service.db.session import database
from service.review import schemas
from service.review.deps import Reader
from service.review.problems import PROBLEM_RESPONSES

router = APIRouter()


@router.get("/api/flow", tags=["flow"], responses=PROBLEM_RESPONSES)
def get_flow(account: Reader) -> schemas.Flow:
    """acknowledged = terminal + in flight, at every moment."""
    with database().read() as session:
        return schemas.Flow.model_validate(analyses.flow(session))
