"""Rules in plain words."""

from __future__ import annotations

from service.compliance.conditions import Match
from service.compliance.rulebook import Requirement, Rulebook
from service.compliance.sentences import phrase

_CINE = {"any": "one sampled frame", "most": "most of the sampled frames", "every": "every sampled frame"}


def rulebook_in_words(rulebook: Rulebook) -> list[str]:
    """One sentence or two for each requirement and waiver."""
    rules = [f"{rule.id} ({rule.severity.value}): {_rule(rule)}" for rule in rulebook.requirements]
    if rulebook.second_reader_from is not None:
        weights = " or ".join(rulebook.second_reader_from.and_heavier)
        rules.append(f"Whoever overrides what is missing and {weights} says why, and a second reader is asked.")
    return rules + [
        f"{waiver.requirement}: waived until {waiver.until}"
        f"{f' where {_match(waiver.match)}' if waiver.match else ''}, because {waiver.reason}."
        for waiver in rulebook.waivers
    ]


def _rule(rule: Requirement) -> str:
    parts = [_whom(rule), _what(rule)]
    if rule.cine != "any":
        parts.append(f"(in a cine on {_CINE[rule.cine]})")
    sentence = " ".join(parts) + "."
    if rule.effective_from:
        grace = f", for {rule.grace_days} days as information only" if rule.grace_days else ""
        sentence += f" In force from {rule.effective_from}{grace}."
    if rule.effective_until:
        sentence += f" In force until {rule.effective_until}."
    for exemption in rule.exemptions:
        sentence += f" Exempt where {_match(exemption.match)}, because {exemption.reason}."
    return sentence + (f" Source: {rule.source}." if rule.source else "")


def _whom(rule: Requirement) -> str:
    where = f" where {_matches(rule.applies_to)}" if rule.applies_to else ""
    where += f", unless {_matches(rule.unless)}," if rule.unless else ""
    where += f" that shows {phrase(rule.when)}" if rule.when else ""
    if rule.limits is None:
        return f"every image{where}"
    least, most = rule.limits
    number = f"exactly {least}" if least == most else f"at most {most}" if most is not None else f"at least {least}"
    return f"of the images{where} {number}"


def _what(rule: Requirement) -> str:
    if rule.agree is not None:
        return f"must agree on {phrase(rule.agree[0])} and {phrase(rule.agree[1])}, else a person decides"
    if rule.pair is not None:
        same = ", ".join(name.replace("_", " ") for name in rule.pair.same)
        return f"that shows {phrase(rule.pair.one)} needs one of the same {same} that shows {phrase(rule.pair.other)}"
    shown = phrase(rule.expect) if rule.expect else "nothing"
    members = " and ".join(member.name for member in rule.each_of)
    return f"must show {shown}" + (f", for each of {members}" if members else "")


def _matches(matches: tuple[Match, ...]) -> str:
    return " or ".join(_match(match) for match in matches) or "nothing in particular is said"


def _match(match: Match) -> str:
    said = [f"{name.replace('_', ' ')} is like {' or '.join(patterns.sources)}" for name, patterns in match.fields]
    if match.records:
        said.append(f"the header records {', '.join(name.replace('_', ' ') for name in match.records)}")
    if match.image:
        said.append(f"the image is a {match.image}")
    if match.region:
        said.append(f"the header has a region of {match.region.replace('_', ' ')}")
    if match.min_age is not None:
        said.append(f"the patient is at least {match.min_age:g} years old")
    if match.max_age is not None:
        said.append(f"the patient is at most {match.max_age:g} years old")
    return " and ".join(said)
