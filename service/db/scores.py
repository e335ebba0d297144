"""How each network's scores are spread, then and now: drift of what the stations send."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import Analysis, Decision, Frame, Instance, Review, Study, Verdict, now

WEEK = timedelta(days=7)
BEFORE = timedelta(days=35)  # the reference: the four weeks before the week that is looked at
BINS = 10
FEWEST = 100  # frames on either side, below which an index is noise
MOST = 20_000
STABLE, SHIFTED = 0.1, 0.25  # usual bounds of the population stability index


@dataclass(frozen=True, slots=True)
class Drift:
    """The population stability index of one station's scores of one kind, this week against the four before."""

    station: str
    kind: str
    index: float | None  # None: too few frames
    frames: int
    before: int

    @property
    def word(self) -> str:
        if self.index is None:
            return "too few frames"
        return "stable" if self.index < STABLE else "moved" if self.index < SHIFTED else "shifted"


def stability_index(before: Sequence[float], after: Sequence[float], bins: int = BINS) -> float:
    """PSI of two samples of [0, 1] in equal bins; half a case is added to each so that an empty one has a logarithm."""
    shares: list[list[float]] = []
    for sample in (before, after):
        counts = [0.5] * bins
        for value in sample:
            counts[min(bins - 1, max(0, int(value * bins)))] += 1
        shares.append([count / sum(counts) for count in counts])
    was, is_now = shares
    return sum((late - early) * log(late / early) for early, late in zip(was, is_now, strict=True))


def drift(session: Session) -> list[Drift]:
    """Of every station and kind, by name."""
    at = now()
    late = _scores(session, at - WEEK, at)
    early = _scores(session, at - BEFORE, at - WEEK)
    found = []
    for station, kind in sorted(late.keys() | early.keys()):
        new, old = late.get((station, kind), []), early.get((station, kind), [])
        enough = min(len(new), len(old)) >= FEWEST
        index = stability_index(old, new) if enough else None
        found.append(Drift(station, kind, index, len(new), len(old)))
    return found


def overrides(session: Session) -> tuple[int, int]:
    """Of the flagged studies decided within a week: how many are overridden now, and how many there are."""
    decided = select(Review.study_id).where(Review.created_at > now() - WEEK, Review.decision != Decision.WITHDRAW)
    flagged = Study.verdict.in_((Verdict.NON_COMPLIANT, Verdict.INDETERMINATE))
    counted = session.execute(
        select(Study.decision, func.count())
        .where(Study.id.in_(decided), Study.decision.is_not(None), flagged, ~Study.synthetic)
        .group_by(Study.decision)
    )
    counts: dict[Decision | None, int] = {row[0]: row[1] for row in counted}
    return counts.get(Decision.OVERRIDE, 0), sum(counts.values())


def versions_in_use(session: Session) -> list[tuple[str, str, int, datetime]]:
    """What assessed anything within five weeks: name@digest, digest of its thresholds, instances, and when last."""
    rows = session.execute(
        select(Analysis.network, Analysis.thresholds, func.count(), func.max(Analysis.finished_at))
        .where(Analysis.finished_at > now() - BEFORE, Analysis.network != "")
        .group_by(Analysis.network, Analysis.thresholds)
        .order_by(func.max(Analysis.finished_at).desc())
    )
    return [(network, thresholds, count, last) for network, thresholds, count, last in rows if last is not None]


def _scores(session: Session, start: datetime, end: datetime) -> dict[tuple[str, str], list[float]]:
    rows = session.execute(
        select(Study.station, Frame.scores)
        .join(Analysis, Analysis.id == Frame.analysis_id)
        .join(Instance, Instance.id == Analysis.instance_id)
        .join(Study, Study.id == Instance.study_id)
        .where(Analysis.finished_at >= start, Analysis.finished_at < end, ~Study.synthetic)
        .order_by(Analysis.finished_at.desc())
        .limit(MOST)
    )
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for station, scores in rows:
        for kind, score in scores.items():
            found[station or "–", kind].append(float(score))
    return found
