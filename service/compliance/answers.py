"""What every image answers to a requirement, and what these answers make of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.compliance.conditions import Expectation
from service.compliance.facts import InstanceFacts
from service.compliance.matching import fits, might_fit
from service.compliance.rulebook import Member, Pair, Requirement
from service.compliance.truth import Truth, both, either, negated, shows


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's answer."""

    image: InstanceFacts
    truth: Truth


def answers_to(requirement: Requirement, images: Sequence[InstanceFacts]) -> list[Answer]:
    """The answers of all images of which the requirement asks something."""
    if requirement.pair is not None:
        return list(_pair_answers(requirement, requirement.pair, images))
    return [Answer(image, truth) for image in images if (truth := _answer(requirement, image)) is not None]


def truth_of(requirement: Requirement, answers: Sequence[Answer]) -> Truth:
    """What the answers together make of the requirement."""
    if requirement.each_of:
        return both(truth for _, truth in members_of(requirement, answers))
    return _counted(requirement, [answer.truth for answer in answers])


def members_of(requirement: Requirement, answers: Sequence[Answer]) -> list[tuple[str, Truth]]:
    """For each thing of which the study must hold one, whether it does."""
    return [
        (
            member.name,
            _counted(requirement, [both((a.truth, _belongs(member, a.image, requirement.cine))) for a in answers]),
        )
        for member in requirement.each_of
    ]


def _answer(requirement: Requirement, image: InstanceFacts) -> Truth | None:
    """None where the requirement asks nothing of this image."""
    condition = _concerned(requirement, image)
    if condition is Truth.NO:
        return None
    if requirement.agree is not None:
        truth = _agreement(requirement.agree, image, requirement.cine)
    elif requirement.expect is not None:
        truth = shows(requirement.expect, image, requirement.cine)
    if condition is Truth.UNSURE and (truth is Truth.NO or requirement.limits is not None):
        return Truth.UNSURE  # nor does an image count that may not be meant
    return truth


def _concerned(requirement: Requirement, image: InstanceFacts) -> Truth:
    return Truth.YES if requirement.when is None else _sought(requirement.when, image, requirement.cine)


def _sought(expected: Expectation, image: InstanceFacts, cine: str) -> Truth:
    """Whether the image shows that of which something is asked. It does not where there are no regions and no report;
    what nobody read or looked for may be there."""
    truth = shows(expected, image, cine)
    if truth is not Truth.SILENT:
        return truth
    unread = expected.asks_for_text and any(not frame.text_read for frame in image.frames)
    unseen = any(kind not in frame.scores for frame in image.frames for kind in expected.kinds)
    return Truth.UNSURE if unread or unseen else Truth.NO


def _agreement(sources: tuple[Expectation, Expectation], image: InstanceFacts, cine: str) -> Truth | None:
    """YES when both say the same, UNSURE when they differ, None when one has nothing to say."""
    one, other = (shows(source, image, cine) for source in sources)
    if Truth.SILENT in (one, other):
        return None
    return Truth.YES if one is other and one is not Truth.UNSURE else Truth.UNSURE


def _pair_answers(requirement: Requirement, pair: Pair, images: Sequence[InstanceFacts]) -> Iterable[Answer]:
    """For every image that shows the one, whether another of the same view shows the other."""
    cine = requirement.cine
    meant = [(image, truth) for image in images if (truth := _concerned(requirement, image)) is not Truth.NO]
    others = [(image, _view(pair, image), both((truth, shows(pair.other, image, cine)))) for image, truth in meant]
    for image, truth in meant:
        one = both((truth, _sought(pair.one, image, cine)))
        if one is Truth.NO:
            continue
        here = _view(pair, image)
        found = either(truth for other, view, truth in others if other is not image and view == here)
        certain = found is Truth.YES or (found is Truth.NO and one is Truth.YES)
        yield Answer(image, found if certain else Truth.UNSURE)


def _view(pair: Pair, image: InstanceFacts) -> tuple[tuple[str, ...], ...]:
    return tuple(image.words.get(name, ()) for name in pair.same)


def _belongs(member: Member, image: InstanceFacts, cine: str) -> Truth:
    """Whether the image is one of these; a header that says neither that nor the contrary leaves it open."""
    if member.expect is not None:
        return shows(member.expect, image, cine)
    if member.match is None or fits(member.match, image):
        return Truth.YES
    return Truth.UNSURE if might_fit(member.match, image) else Truth.NO


def _counted(requirement: Requirement, truths: Sequence[Truth]) -> Truth:
    if requirement.limits is None:
        return both(truths)
    least, most = requirement.limits
    enough = _at_least(least, truths)
    return enough if most is None else both((enough, negated(_at_least(most + 1, truths))))


def _at_least(wanted: int, truths: Sequence[Truth]) -> Truth:
    if truths.count(Truth.YES) >= wanted:
        return Truth.YES
    return Truth.UNSURE if len(truths) - truths.count(Truth.NO) >= wanted else Truth.NO
