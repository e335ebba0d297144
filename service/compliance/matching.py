"""Whether a header fits a rule's conditions. A field that the header leaves empty fits nothing."""

from __future__ import annotations

from collections.abc import Iterable

from service.compliance.conditions import Match
from service.compliance.facts import InstanceFacts
from service.compliance.rulebook import Requirement


def fits(match: Match, image: InstanceFacts) -> bool:
    """Whether every condition holds."""
    words = image.words
    for name, patterns in match.fields:
        texts = words.get(name)
        if not texts or not patterns.found_in(*texts):
            return False
    return match.reads_words_only or _fits_rest(match, image)


def fits_any(matches: Iterable[Match], image: InstanceFacts) -> bool:
    return any(fits(match, image) for match in matches)


def applies(requirement: Requirement, image: InstanceFacts) -> bool:
    """Whether the requirement speaks of an image with this header."""
    if requirement.applies_to and not fits_any(requirement.applies_to, image):
        return False
    return not fits_any(requirement.unless, image)


def might_fit(match: Match, image: InstanceFacts) -> bool:
    """Whether the header leaves a field empty that the conditions ask for, and contradicts none of them."""
    if match.image is not None and (match.image == "cine") != image.is_cine:
        return False
    asked = [(image.words.get(name), patterns) for name, patterns in match.fields]
    return any(not texts for texts, _ in asked) and all(patterns.found_in(*texts) for texts, patterns in asked if texts)


def _fits_rest(match: Match, image: InstanceFacts) -> bool:
    if match.image is not None and (match.image == "cine") != image.is_cine:
        return False
    if not set(match.records) <= set(image.words.get("records", ())):
        return False
    if match.region is not None and not has_region(image, match.region):
        return False
    if match.min_age is not None and (image.patient_age is None or image.patient_age < match.min_age):
        return False
    return match.max_age is None or (image.patient_age is not None and image.patient_age <= match.max_age)


def has_region(image: InstanceFacts, data_type: str) -> bool:
    return any(region.data_type == data_type for region in image.regions or ())
