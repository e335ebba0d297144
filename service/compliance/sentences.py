"""Findings in plain words: what is missing, where, by which rule, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.compliance.answers import Answer, members_of
from service.compliance.conditions import Expectation
from service.compliance.facts import InstanceFacts
from service.compliance.outcome import FindingState
from service.compliance.rulebook import Requirement
from service.compliance.truth import Truth

About = Callable[[Sequence[InstanceFacts]], str]

_MOST_PLACES = 5  # images named in a sentence; the evidence lists them all

_NAMES = {
    "body_marker": "body marker",
    "caliper": "calipers",
    "color_box": "colour box",
    "text": "text label",
    "arrow": "arrow",
    "tissue": "tissue region in the header",
    "color_flow": "colour-flow region in the header",
    "pw_doppler": "pulsed-wave Doppler region in the header",
    "cw_doppler": "continuous-wave Doppler region in the header",
    "gray_bar": "grey-bar region in the header",
    "color_bar": "colour-bar region in the header",
}
_PLURAL = {"calipers"}
_FOUND_IN = {
    "pixels": "the pixels",
    "overlay": "an overlay",
    "presentation_state": "a presentation state",
    "sr": "a structured report",
}
_OBJECTS = {"presentation_state": "presentation state", "sr": "structured report"}
_VERBS = {
    "body_marker": "Draw the marker",
    "caliper": "Place the calipers",
    "color_box": "Record colour Doppler",
    "text": "Add the label",
    "arrow": "Draw the arrow",
}


def of(requirement: Requirement, state: FindingState, answers: Sequence[Answer]) -> str:
    """The sentence of a finding that is met, missing or uncertain."""
    if state is FindingState.MET:
        return f"{_met(requirement, answers)} (rule {requirement.id})."
    if state is FindingState.UNCERTAIN:
        return (
            f"{_uncertain(requirement, answers)} (rule {requirement.id}). "
            "Look at the image and confirm or override with a reason."
        )
    return f"{_missing(requirement, answers)} (rule {requirement.id}). {_remedy(requirement)}"


def excused(requirement: Requirement, reason: str) -> str:
    """The sentence of a requirement that is not held against this study."""
    return f"{requirement.title} is not asked for: {reason.rstrip('.')} (rule {requirement.id})."


def not_assessed(images: Sequence[InstanceFacts]) -> str:
    """The sentence about images whose assessment failed."""
    reasons = dict.fromkeys(f"{image.reason} {image.cure}".strip() for image in images)
    why = " ".join(reason for reason in reasons if reason) or "No reason was recorded."
    where = _capital(_listed([_name(image) for image in images]))
    return f"{where} could not be assessed, so that no verdict rests on {_them(images)}. {why}"


def several_versions(images: Sequence[InstanceFacts]) -> str:
    """The sentence about SOP instances that came more than once with different bytes."""
    where = _capital(_listed([_name(image) for image in images]))
    return (
        f"{where} came more than once under the same SOP Instance UID with different content; the newest version "
        "was judged. Compare the versions, then confirm or override with a reason."
    )


def named(expected: Expectation) -> str:
    """What is expected, without an article: "body marker", "calipers and text label"."""
    return " and ".join(part.removeprefix("a ").removeprefix("an ") for part in _phrases(expected))


def phrase(expected: Expectation) -> str:
    """What is expected, with its article: "a body marker", "at least 4 calipers and no arrow"."""
    return " and ".join(_phrases(expected))


def _met(requirement: Requirement, answers: Sequence[Answer]) -> str:
    met = [answer.image for answer in answers if answer.truth is Truth.YES]
    if requirement.agree is not None:
        return f"{_sources(requirement)} agree on {_images(len(met))}"
    if requirement.pair is not None:
        return f"{requirement.title}: there on {_images(len(met))}"
    thing = _expected(requirement)
    if requirement.each_of:
        return f"{_capital(thing)}: there for {_listed([member.name for member in requirement.each_of])}"
    if len(met) == 1 and len(answers) == 1:
        return f"{_capital(_name(met[0]))} shows {thing}"
    return f"{len(met)} of {_images(len(answers))} {'shows' if len(met) == 1 else 'show'} {thing}"


def _missing(requirement: Requirement, answers: Sequence[Answer]) -> str:
    lacking = [_place(answer.image) for answer in answers if answer.truth is Truth.NO]
    if requirement.each_of:
        absent = [name for name, truth in members_of(requirement, answers) if truth is Truth.NO]
        return f"{_capital(_expected(requirement))} is missing for {_listed(absent)}"
    if requirement.pair is not None:
        pair = requirement.pair
        partner = f"there is no image of the same view with {phrase(pair.other)}"
        return f"For {_listed(lacking)}, which shows {phrase(pair.one)}, {partner}"
    if requirement.limits is not None:
        return _miscounted(requirement, answers)
    expected = requirement.expect
    if expected is None or not _is_one_thing(expected):
        return f"{_capital(_listed(lacking))} must show {_expected(requirement)}, but does not"
    what = expected.words or named(expected)
    are = "are" if " and " in what or any(what.startswith(name) for name in _PLURAL) else "is"
    return f"{_capital(what)} {are} missing on {_listed(lacking)}"


def _miscounted(requirement: Requirement, answers: Sequence[Answer]) -> str:
    least, most = requirement.limits or (0, None)
    found = sum(answer.truth is Truth.YES for answer in answers)
    wanted = f"exactly {least}" if least == most else f"at least {least}" if most is None else f"at most {most}"
    number = least if most is None or least == most else most
    plural = "" if number == 1 else "s"
    return f"The study must hold {wanted} image{plural} with {_expected(requirement)} and holds {found or 'none'}"


def _uncertain(requirement: Requirement, answers: Sequence[Answer]) -> str:
    if requirement.each_of:
        vague = [name for name, truth in members_of(requirement, answers) if truth is not Truth.YES]
        return f"It is uncertain whether the study holds {_expected(requirement)} for {_listed(vague)}"
    unclear = [answer.image for answer in answers if answer.truth in (Truth.UNSURE, Truth.SILENT)]
    doubtful = unclear or [answer.image for answer in answers]
    where = _listed([_place(image) for image in doubtful])
    if requirement.agree is not None:
        seen = [image for image in doubtful if image.assessed]
        if seen:
            where = _listed([_place(image) for image in seen])
            return f"{_sources(requirement)} disagree, or are not clear, on {where}"
        return f"{_sources(requirement)} cannot be compared on {where}"
    verb = "shows" if len(doubtful) == 1 else "show"
    unread = requirement.asks_for_text and any(not frame.text_read for image in doubtful for frame in image.frames)
    why = ", because not all of its text was read" if unread else ""
    return f"It is uncertain whether {where} {verb} {_expected(requirement)}{why}"


def _expected(requirement: Requirement) -> str:
    if requirement.pair is not None:
        return phrase(requirement.pair.other)
    return phrase(requirement.expect) if requirement.expect else requirement.title


def _sources(requirement: Requirement) -> str:
    one, other = requirement.agree or (None, None)
    names = [phrase(source) for source in (one, other) if source]
    return _capital(" and ".join(names))


def _remedy(requirement: Requirement) -> str:
    if requirement.remedy:
        return requirement.remedy
    verb = _VERBS.get(requirement.expect.annotation or "") if requirement.expect else None
    if requirement.limits and requirement.limits[1] is not None:
        return "Check the images, or override with a reason."
    if requirement.of_study:
        return f"{verb or 'Add what is missing'} on a further image and send it, or override with a reason."
    return f"{verb or 'Correct the image'} and send the image again, or override with a reason."


def _phrases(expected: Expectation) -> list[str]:
    if expected.words:
        return [expected.words]
    said = []
    if expected.annotation:
        said.append(_annotation(expected))
    if expected.without:
        said.append(f"no {_NAMES[expected.without]}")
    if expected.region:
        said.append(_with_article(_NAMES[expected.region]))
    if expected.text:
        said.append(f"the text {' or '.join(f'/{source}/' for source in expected.text.sources)}")
    if expected.header:
        names = [*expected.header.records, *(name for name, _ in expected.header.fields)]
        said.append(f"the header's {' and '.join(name.replace('_', ' ') for name in names)} as required")
    if expected.measurements:
        said.append("a measurement in a structured report")
    if expected.any_of:
        said.append(" or ".join(phrase(part) for part in expected.any_of))
    said += [phrase(part) for part in expected.all_of]
    said += [f"not {phrase(part)}" for part in expected.none_of]
    return said


def _annotation(expected: Expectation) -> str:
    name = _NAMES[expected.annotation or "text"]
    text = _with_article(name) if expected.count == 1 else f"at least {expected.count} {name.removesuffix('s')}s"
    for kind, word in ((expected.overlaps, "on"), (expected.clear_of, "clear of")):
        text += f" {word} {_with_article(_NAMES[kind])}" if kind else ""
    if expected.found_in:
        text += f" in {' or '.join(_FOUND_IN[place] for place in expected.found_in)}"
    return text + (f" within {_with_article(_NAMES[expected.in_region])}" if expected.in_region else "")


def _is_one_thing(expected: Expectation) -> bool:
    """Whether a sentence may say "X is missing" of it."""
    return bool(expected.words) or not (
        expected.count > 1 or expected.without or expected.none_of or expected.header or expected.all_of
    )


def _with_article(name: str) -> str:
    if name in _PLURAL:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _name(image: InstanceFacts) -> str:
    name = image.sop_instance_uid if image.number is None else image.number
    what = _OBJECTS[image.says] if image.says else "image"
    return f"{what} {name}" if name else f"the {what}"


def _place(image: InstanceFacts) -> str:
    """Image and frame, or how many frames of a cine were looked at."""
    if not image.assessed or not image.frames:
        return f"{_name(image)} (could not be assessed)"
    if len(image.frames) == 1:
        return f"{_name(image)}, frame {image.frames[0].number}"
    return f"{_name(image)}, {len(image.frames)} sampled frames of {image.number_of_frames}"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_MOST_PLACES])
    rest = len(names) - len(shown)
    if rest:
        shown.append(f"{rest} more")
    joint = "; " if any("," in name for name in shown) else ", "
    return shown[0] if len(shown) == 1 else f"{joint.join(shown[:-1])} and {shown[-1]}"


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _them(images: Sequence[InstanceFacts]) -> str:
    return "it" if len(images) == 1 else "them"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
