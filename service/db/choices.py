"""What the worklist's filters offer, and what its emptiness says."""

from sqlalchemy import ColumnElement, TextClause, func, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.db.tables import LACKING, Finding, Study


def last_received(session: Session, site: str = "") -> Study | None:
    """The study whose image came last, for the words of an empty worklist."""
    query = select(Study).order_by(Study.last_received_at.desc()).limit(1)
    return session.scalar(query.where(Study.institution == site) if site else query)


def offered(session: Session, site: str = "") -> dict[str, list[str]]:
    """What the filters offer: stations, operators and requirements that occur, at most 200 of each."""
    of_site = [Study.institution == site] if site else []
    return {
        "station": _distinct(session, Study.station, *of_site),
        "operator": _distinct(session, Study.operator, *of_site),
        "missing": _distinct(session, Finding.requirement, text(LACKING)),
    }


def _distinct(
    session: Session, column: InstrumentedAttribute[str], *conditions: ColumnElement[bool] | TextClause
) -> list[str]:
    """The values of an indexed column, found by leaping from one to the next instead of reading every row."""
    following = select(func.min(column)).where(*conditions)
    leaps = following.where(column > "").label("value")
    found = select(leaps).cte("found", recursive=True)
    further = following.where(column > found.c.value).correlate(found).scalar_subquery()
    found = found.union_all(select(further).where(found.c.value.is_not(None)))
    values = select(found.c.value).where(found.c.value.is_not(None)).limit(200)
    return list(session.scalars(values))
