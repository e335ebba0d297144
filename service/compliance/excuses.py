"""When a requirement is not held against an image: not in force, exempt, or waived for a while.

Everything follows the study's own date and never the clock, so that judging a study again next year answers the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from service.compliance.facts import InstanceFacts
from service.compliance.matching import fits
from service.compliance.rulebook import Requirement, Rulebook, Waiver


def not_excused(
    rulebook: Rulebook, requirement: Requirement, images: Sequence[InstanceFacts]
) -> tuple[Sequence[InstanceFacts], str]:
    """The images of which the requirement asks something, and why it asks nothing of the first of the others."""
    waivers = [waiver for waiver in rulebook.waivers if waiver.requirement == requirement.id]
    dated = requirement.effective_from or requirement.effective_until
    if not (waivers or dated or requirement.exemptions):
        return images, ""
    reasons = [_reason(requirement, waivers, image) for image in images]
    held = [image for image, reason in zip(images, reasons, strict=True) if not reason]
    return held, next(filter(None, reasons), "")


def in_grace(requirement: Requirement, day: date | None) -> bool:
    """Whether a lack found on ``day`` is still only information."""
    if requirement.effective_from is None or day is None:
        return False
    return (day - requirement.effective_from).days < requirement.grace_days  # whose end may lie behind all calendars


def _reason(requirement: Requirement, waivers: Sequence[Waiver], image: InstanceFacts) -> str:
    day = image.study_date
    if day and requirement.effective_from and day < requirement.effective_from:
        return f"it is in force from {requirement.effective_from} on"
    if day and requirement.effective_until and day > requirement.effective_until:
        return f"it was in force until {requirement.effective_until}"
    for exemption in requirement.exemptions:
        if fits(exemption.match, image):
            return f"exempt, {exemption.reason}"
    for waiver in waivers:
        if _holds(waiver, day) and (waiver.match is None or fits(waiver.match, image)):
            return f"waived until {waiver.until}, {waiver.reason}"
    return ""


def _holds(waiver: Waiver, day: date | None) -> bool:
    return day is not None and day <= waiver.until and (waiver.since is None or day >= waiver.since)
