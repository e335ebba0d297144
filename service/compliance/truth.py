"""Four-valued truth of an expectation on one image: yes, no, unsure, or silent where a source says nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from service.compliance.conditions import Expectation
from service.compliance.facts import FrameFacts, InstanceFacts, Mark, Presence
from service.compliance.matching import fits, has_region


class Truth(StrEnum):
    """Kleene's three values, and a fourth that a cross-check treats as "nothing to compare"."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"  # a score between its thresholds, or a step that failed
    SILENT = "silent"  # the source is not there: no regions in the header, no text read, no SR


def both(truths: Iterable[Truth]) -> Truth:
    """True when all are."""
    return _first_of(_DOUBT_OF_ALL, truths, Truth.YES)


def either(truths: Iterable[Truth]) -> Truth:
    """True when one is."""
    return _first_of(_DOUBT_OF_ONE, truths, Truth.NO)


def negated(truth: Truth) -> Truth:
    return _NEGATED[truth]


def _first_of(decisive: Sequence[Truth], truths: Iterable[Truth], none: Truth) -> Truth:
    """The most decisive of the truths; nothing more is asked once there is one that decides."""
    seen = set()
    for truth in truths:
        if truth is decisive[0]:
            return truth
        seen.add(truth)
    return next((truth for truth in decisive if truth in seen), none)


# What decides first: one "no" breaks "all of these", one "yes" makes "one of these".
_DOUBT_OF_ALL = (Truth.NO, Truth.UNSURE, Truth.SILENT, Truth.YES)
_DOUBT_OF_ONE = (Truth.YES, Truth.UNSURE, Truth.SILENT, Truth.NO)
_NEGATED = {Truth.YES: Truth.NO, Truth.NO: Truth.YES, Truth.UNSURE: Truth.UNSURE, Truth.SILENT: Truth.SILENT}


def shows(expected: Expectation, image: InstanceFacts, cine: str = "any") -> Truth:
    """Whether ``image`` meets ``expected``.

    Of a cine's sampled frames "any" one, "most" or "every" one must carry an annotation; an annotation that must *not*
    be there may be on none of them.
    """
    if expected.is_simple and expected.annotation is not None:
        return carries(image, expected.annotation, cine)
    return both(_parts(expected, image, cine))


def carries(image: InstanceFacts, kind: str, cine: str = "any") -> Truth:
    """Whether the image carries an annotation of this kind anywhere."""
    known: Truth | None = image.memo.get((kind, cine))
    if known is None:
        seen = _over_frames(image, cine, lambda frame: _TRUTH[frame.presence(kind, image.bands)])
        known = _unless(image.may_be_said(kind), seen)
        image.memo[kind, cine] = known
    return known


def _parts(expected: Expectation, image: InstanceFacts, cine: str) -> Iterable[Truth]:
    if expected.annotation is not None:
        kind = expected.annotation
        seen = _over_frames(image, cine, lambda frame: _annotated(expected, kind, image, frame))
        yield _unless(image.may_be_said(kind, expected.found_in), seen)
    if expected.without is not None:
        yield negated(carries(image, expected.without))
    if expected.text is not None:
        read = _over_frames(image, cine, lambda frame: _reads(expected, frame))
        yield _unless(image.may_be_said("text"), read)
    if expected.region is not None:
        known = image.regions is not None
        yield (Truth.YES if has_region(image, expected.region) else Truth.NO) if known else Truth.SILENT
    if expected.header is not None:
        yield Truth.YES if fits(expected.header, image) else Truth.NO
    if expected.measurements is not None:
        yield _measured(expected.measurements, image)
    if expected.any_of:
        yield either(shows(part, image, cine) for part in expected.any_of)
    for part in expected.all_of:
        yield shows(part, image, cine)
    for part in expected.none_of:
        yield negated(shows(part, image, "any"))


def _measured(wanted: int, image: InstanceFacts) -> Truth:
    if image.measurements is not None and image.measurements >= wanted:
        return Truth.YES
    if "sr" in image.unread:
        return Truth.UNSURE
    return Truth.SILENT if image.measurements is None else Truth.NO


def _unless(may_be_said: bool, truth: Truth) -> Truth:
    """What is nowhere seen is no lack while it may stand in an object that could not be read."""
    return Truth.UNSURE if may_be_said and truth is Truth.NO else truth


def _over_frames(image: InstanceFacts, cine: str, asked: Callable[[FrameFacts], Truth]) -> Truth:
    if not image.assessed or not image.frames:
        return Truth.UNSURE
    if cine == "most":
        return _most([asked(frame) for frame in image.frames])
    return (both if cine == "every" else either)(map(asked, image.frames))


def _most(truths: Sequence[Truth]) -> Truth:
    sure = truths.count(Truth.YES)
    if 2 * sure > len(truths):
        return Truth.YES
    open_ones = len(truths) - sure - truths.count(Truth.NO)
    return Truth.UNSURE if 2 * (sure + open_ones) > len(truths) else Truth.NO


_TRUTH = {
    Presence.PRESENT: Truth.YES,
    Presence.UNCERTAIN: Truth.UNSURE,
    Presence.ABSENT: Truth.NO,
    Presence.UNKNOWN: Truth.SILENT,
}


def _annotated(expected: Expectation, kind: str, image: InstanceFacts, frame: FrameFacts) -> Truth:
    truth = _TRUTH[frame.presence(kind, image.bands, expected.found_in)]
    if truth is not Truth.YES or not _asks_for_boxes(expected):
        return truth
    places = expected.found_in
    marks = [mark for mark in frame.annotations if mark.kind == kind and (not places or mark.found_in in places)]
    return Truth.YES if sum(_is_placed(expected, mark, image, frame) for mark in marks) >= expected.count else Truth.NO


def _asks_for_boxes(expected: Expectation) -> bool:
    return expected.count > 1 or bool(expected.overlaps or expected.clear_of or expected.in_region)


def _is_placed(expected: Expectation, mark: Mark, image: InstanceFacts, frame: FrameFacts) -> bool:
    if expected.overlaps and not _touches(mark, expected.overlaps, frame):
        return False
    if expected.clear_of and _touches(mark, expected.clear_of, frame):
        return False
    return expected.in_region is None or _lies_in(mark, expected.in_region, image)


def _touches(mark: Mark, kind: str, frame: FrameFacts) -> bool:
    """Whether another mark, of this kind, shares pixels with it."""
    x, y, width, height = mark.box
    others = [other.box for other in frame.annotations if other.kind == kind and other is not mark]
    return any(
        x < left + wide and left < x + width and y < top + high and top < y + height for left, top, wide, high in others
    )


def _lies_in(mark: Mark, data_type: str, image: InstanceFacts) -> bool:
    x, y, width, height = mark.box
    across, down = x + width / 2, y + height / 2
    boxes = [region.box for region in image.regions or () if region.data_type == data_type and region.box]
    return any(x0 <= across <= x1 and y0 <= down <= y1 for x0, y0, x1, y1 in boxes)


def _reads(expected: Expectation, frame: FrameFacts) -> Truth:
    texts = [mark.text for mark in frame.annotations if mark.text]
    if expected.text is not None and expected.text.found_in(*texts):
        return Truth.YES
    return Truth.NO if frame.text_read else Truth.SILENT
