"""The JSON shapes of the API. Times are UTC, ISO 8601; coordinates are pixels with the origin at the upper left."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer

from service.db.tables import NOTE_LENGTH, AnalysisState, Decision, DoubleReadState, FindingState, Severity, Verdict


def _day_or_moment(given: Any) -> Any:
    """ "2026-01-31" is that whole day, and no midnight, which pydantic would make of it."""
    return date.fromisoformat(given) if isinstance(given, str) and len(given) == len("2026-01-31") else given


DayOrMoment = Annotated[datetime | date | None, BeforeValidator(_day_or_moment)]
Moment = Annotated[
    datetime,
    PlainSerializer(
        lambda at: at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), return_type=str
    ),
]
Id = Annotated[int, Field(ge=1, le=2**62)]  # of a row; a larger number is no number to a database
Box = Annotated[list[int], Field(min_length=4, max_length=4, description="x, y, width, height")]


class Finding(BaseModel):
    requirement: str
    state: FindingState
    severity: Severity
    sentence: str
    evidence: dict[str, Any]


class Mark(BaseModel):
    """One annotation found on a frame."""

    id: int
    kind: str
    score: float
    box: Box
    pixels: int
    source: str
    found_in: str = Field("pixels", description="pixels, overlay, presentation_state or sr")
    text: str = Field("", description="What was read there, a line a line.")
    text_score: float | None = None


class Frame(BaseModel):
    frame: int
    rows: int
    columns: int
    scores: dict[str, float]
    annotations: list[Mark]
    mask: bool = Field(description="Whether a mask of this frame is kept.")


class Instance(BaseModel):
    sop_instance_uid: str
    sha256: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    rows: int
    columns: int
    number_of_frames: int
    photometric_interpretation: str
    received_at: Moment
    conflict: bool = Field(description="The same SOP Instance UID came with different bytes; both are kept.")
    state: AnalysisState | None
    attempts: int
    reason: str = Field(description="Why the last attempt failed.")
    cure: str
    network: str
    thresholds: str
    code_version: str
    provider: str
    milliseconds: dict[str, Any]
    verdict: Verdict | None
    findings: list[Finding]
    frames: list[Frame]
    annotations: list["PlacedMark"]


class PlacedMark(Mark):
    """An annotation with the place it was found at."""

    sop_instance_uid: str
    frame: int


class InstanceDetail(Instance):
    study_instance_uid: str
    versions: list[str] = Field(description="SHA-256 of every stored version, oldest first.")


class StudyHead(BaseModel):
    """What a study says of itself, and how it stands."""

    study_instance_uid: str
    patient_name: str
    patient_id: str
    patient_birth_date: date | None
    patient_sex: str
    accession_number: str
    study_date: date | None
    description: str
    body_part: str
    laterality: str
    institution: str
    station: str
    operator: str
    first_received_at: Moment
    last_received_at: Moment
    settled: bool
    conflict: bool
    verdict: Verdict | None
    decision: Decision | None
    version: int = Field(description="Send it back with a review; it grows with every change.")
    held_by: str


class StudySummary(StudyHead):
    instances: int
    missing: list[Finding]


class Studies(BaseModel):
    studies: list[StudySummary]
    next_cursor: str | None
    previous_cursor: str | None


class VerdictRecord(BaseModel):
    verdict: Verdict
    network: str
    thresholds: str
    rulebook: str
    code_version: str
    created_at: Moment
    superseded_at: Moment | None
    findings: list[Finding]


class Review(BaseModel):
    decision: Decision
    reason: str
    note: str
    user: str
    study_version: int
    created_at: Moment


class Correction(BaseModel):
    """A person's word on the marks of a frame."""

    id: int
    sop_instance_uid: str
    sha256: str
    frame: int
    kind: str
    box: Box
    annotation: int | None = Field(description="Set: this mark of the network is none. Null: a mark a person drew.")
    user: str
    created_at: Moment


class Corrections(BaseModel):
    corrections: list[Correction]
    next_after: int | None = Field(description="Send it as `after` for the next page.")


Kind = Annotated[str, Field(pattern="^(body_marker|caliper|color_box|text|arrow)$")]


class NewCorrection(BaseModel):
    """Draw a mark that the network missed (``kind``, ``box``), say that one is none (``annotation``), or both."""

    kind: Kind | None = None
    box: Annotated[list[Annotated[int, Field(ge=-(2**20), le=2**20)]], Field(min_length=4, max_length=4)] | None = None
    annotation: int | None = Field(None, ge=1, le=2**62, description="Id of the network's mark that is none.")
    replaces: int | None = Field(
        None, ge=1, le=2**62, description="Id of one's own earlier box, of the same study, that this one replaces."
    )


class StudyDetail(StudyHead):
    settles_at: Moment
    findings: list[Finding] = Field(description="Of the standing verdict.")
    verdicts: list[VerdictRecord] = Field(description="Newest first.")
    reviews: list[Review] = Field(description="Oldest first.")
    instances: list[Instance]
    annotations: list[PlacedMark]
    corrections: list[Correction] = Field(description="What people said about marks, oldest first.")
    second_read: DoubleReadState | None = Field(description="Of an override that the rule book wants read twice.")


class NewReview(BaseModel):
    """A decision on a study as it stood at ``version``."""

    decision: Decision = Field(description="confirm, override or retake; withdraw takes one's own decision back.")
    reason: str = Field("", max_length=64, description="Code of the reason; none is needed to confirm.")
    note: str = Field(
        "",
        max_length=NOTE_LENGTH,
        description="Needed for the reason other, and to override what the rule book wants read twice.",
    )
    version: int = Field(ge=0, le=2**31 - 1)


class Reviewed(BaseModel):
    review: Review
    version: int = Field(description="The study's version after this review.")


class Flow(BaseModel):
    """Every acknowledged instance is either terminal or in flight: one query, so the sum holds."""

    acknowledged: int
    terminal: int
    in_flight: int
    quarantined: int
    oldest_in_flight_s: float
