"""The JSON shape of the compliance report. Rates are in [0, 1], intervals and limits are pairs of them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]


class ComplianceTotal(BaseModel):
    """Counts and rates of one group of studies; `rate` is `numerator` / `denominator`."""

    model_config = ConfigDict(extra="forbid")

    group: dict[str, str] = Field(description="The group's value for each of `group_by`; empty for the whole.")
    numerator: int = Field(description="Compliant studies; of a requirement, those in which it is met.")
    denominator: int = Field(description="Compliant and non-compliant ones.")
    non_compliant: int
    indeterminate: int
    excluded: int = Field(description="No requirement applies, or no verdict yet.")
    rate: float | None
    interval: Bounds | None = Field(description="Wilson's, 95 %.")
    limits: Bounds | None = Field(description="Three sigmas around the whole report's rate.")
    signal: Literal["above", "below"] | None = Field(description="On which side the rate lies outside the limits.")
    small: bool = Field(description="Too few studies for the limits to mean much.")
    overridden: int
    flagged_reviewed: int
    override_rate: float | None
    minutes_to_correction: float | None = Field(description="Median.")
    corrected: int


class ComplianceRow(ComplianceTotal):
    studies: str = Field(description="Address of the studies behind the row.")


class ComplianceReport(BaseModel):
    """The report as JSON; the other formats hold the same numbers."""

    model_config = ConfigDict(extra="forbid")

    group_by: list[str]
    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    as_of: datetime
    time_zone: str = Field(description="Whose days, weeks and months the groups are.")
    site: str = Field(description="The one institution it speaks of; empty: all.")
    withheld: int = Field(description="Studies left out, as they await the blinded answer of whoever asks.")
    counted: Literal["studies", "judgements"] = Field(
        description="What `total` counts. Grouped by requirement it is judgements: each requirement in each study that"
        " it applies to, so that a study counts once for every one. Rows count studies in any case."
    )
    total: ComplianceTotal
    studies: ComplianceTotal = Field(description="Every study counted once, whatever it is grouped by.")
    rows: list[ComplianceRow]
    agreement: dict[str, Any]
