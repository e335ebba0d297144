"""How states, kinds, people and times read on a page."""

from datetime import UTC, date, datetime, timedelta

from service.db import days, switches
from service.db.peers import unusual
from service.db.tables import (
    Decision,
    DoubleRead,
    DoubleReadState,
    Finding,
    FindingState,
    Peer,
    Reading,
    Study,
    Verdict,
    now,
)
from service.dicom.character_sets import DEFINED_TERMS
from service.report.names import person as person
from service.report.names import requirement as requirement

# word, glyph and the class that colours the chip: a state never speaks by colour alone
VERDICTS: dict[Verdict | None, tuple[str, str, str]] = {
    Verdict.NON_COMPLIANT: ("Flagged", "⚑", "flagged"),
    Verdict.INDETERMINATE: ("Uncertain", "?", "uncertain"),
    Verdict.COMPLIANT: ("Complete", "✓", "met"),
    Verdict.NOT_APPLICABLE: ("No rule applies", "–", "quiet"),
    None: ("Waiting", "…", "quiet"),
}
# What a study counts as in a report, as its columns are headed.
PROBLEMS = {  # what the statuses of HTTP say, for people
    400: "Not understood",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    406: "Not to be had in this form",
    409: "Changed meanwhile",
    413: "Too large",
    422: "Not taken as it is",
    429: "Too many attempts",
    500: "Something went wrong",
    502: "Another system did not answer",
    503: "Not available right now",
}
COUNTED = {
    "compliant": "Complete",
    "non_compliant": "Missing",
    "indeterminate": "Uncertain",
    "not_applicable": "Excluded",
    "excluded": "Excluded",
    "flagged_reviewed": "Flagged and decided",
    "overridden": "Overridden",
    "corrected": "Corrected",
}
DECISIONS: dict[Decision, tuple[str, str, str]] = {
    Decision.CONFIRM: ("Confirmed", "✓", "decided"),
    Decision.OVERRIDE: ("Overridden", "↷", "decided"),
    Decision.RETAKE: ("Retake asked", "↻", "decided"),
    Decision.WITHDRAW: ("Taken back", "↶", "quiet"),
}
DEEDS = {
    Decision.CONFIRM: "confirmed this",
    Decision.OVERRIDE: "overrode this",
    Decision.RETAKE: "asked for a retake",
    Decision.WITHDRAW: "took a decision back",
}
FINDINGS: dict[FindingState, tuple[str, str, str]] = {
    FindingState.MET: ("Met", "✓", "met"),
    FindingState.MISSING: ("Missing", "⚑", "flagged"),
    FindingState.UNCERTAIN: ("Uncertain", "?", "uncertain"),
    FindingState.NOT_APPLICABLE: ("Not applicable", "–", "quiet"),
}
READINGS = {
    Reading.COMPLETE: "Complete",
    Reading.INCOMPLETE: "Something is missing",
    Reading.CANNOT_TELL: "Cannot tell",
}
SECOND_READS = {
    DoubleReadState.WAITING: "A second reader is awaited.",
    DoubleReadState.DISAGREED: "A second reader sees it otherwise: a third person decides.",
}
SWITCHES = {switches.PAUSED: "Work is paused", switches.DRAINING: "The door is draining"}
KINDS = {
    "body_marker": "Body marker",
    "caliper": "Caliper",
    "color_box": "Colour box",
    "text": "Text",
    "arrow": "Arrow",
}


def state_of(study: Study) -> tuple[str, str, str]:
    """What the worklist says of a study: a person's decision outranks the verdict."""
    return DECISIONS[study.decision] if study.decision is not None else VERDICTS[study.verdict]


def kind(name: str) -> str:
    """An annotation's kind in words."""
    return KINDS.get(name, name.replace("_", " ").capitalize())


def weighty(findings: list[Finding]) -> str:
    """What nobody overrides without a note: 'Breast body marker is critical'."""
    names = [requirement(each.requirement) for each in findings]
    severities = dict.fromkeys(each.severity.value for each in findings)
    said = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {' and '.join(severities)}"
    return said[:1].upper() + said[1:]


def second_read(of: DoubleRead) -> str:
    """How far the second reading has come that an override asked for."""
    if of.state is not DoubleReadState.DONE:
        return SECOND_READS[of.state]
    if of.adjudicated_at is None:
        return "A second reader sees it so, too."
    if of.adjudicated_answer is None:
        return "A second reader saw it otherwise; the override ended before a third person decided."
    return f"A second reader saw it otherwise; a third person's word: {READINGS[of.adjudicated_answer].lower()}."


def changed(change: str) -> str:
    """A change of verdict in the worklist's words: 'compliant>non_compliant' becomes 'complete → flagged'."""
    words = {verdict.value if verdict else "none": state[0].lower() for verdict, state in VERDICTS.items()}
    return " → ".join(words.get(each, each) for each in change.split(">"))


def options_of(peer: Peer) -> list[str]:
    """In what a peer that was entered differs from the usual."""
    told = {
        "tls": "must use TLS",
        "certificate": f"certificate of {peer.certificate}",
        "character_set": f"character set {peer.character_set} ({DEFINED_TERMS.get(peer.character_set, 'of its own')})",
        "priority": f"priority {peer.priority}",
        "max_associations": f"at most {plural(peer.max_associations, 'association')}",
        "reports": "reports on the association that asks",
    }
    differs = unusual(peer)
    return [words for option, words in told.items() if option in differs]


def age(at: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0, int((now() - at).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def lasting(span: timedelta) -> str:
    """A length of time in the largest unit that fits: '3 days'."""
    seconds = int(span.total_seconds())
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return plural(seconds // length, unit)
    return plural(seconds, "second")


def clock(at: datetime) -> str:
    """Time of day in the hospital's time zone; with the date when it is not today."""
    local = at.astimezone(days.zone())
    return f"{local:%H:%M}" if local.date() == days.today() else f"{local:%Y-%m-%d %H:%M}"


def iso(at: datetime | None) -> str:
    """UTC in ISO 8601, for machines."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at is not None else ""


def years(birth: date | None, at: date | None) -> str:
    """Age in years on a day."""
    if birth is None or at is None:
        return ""
    return f"{at.year - birth.year - ((at.month, at.day) < (birth.month, birth.day))} y"


def exam(study: Study) -> str:
    """What was examined, from the most telling field that was filled in."""
    what = study.description or study.procedure or study.body_part.capitalize()
    side = {"L": "left", "R": "right", "B": "both"}.get(study.laterality, "")
    return ", ".join(part for part in (what or "Ultrasound", side if side not in what.lower() else "") if part)


def octets(size: int) -> str:
    """A size as people read it: '3.4 GB', in powers of ten."""
    for unit, length in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} bytes"


def plural(count: int, one: str, many: str = "") -> str:
    """'1 image', '2 images'."""
    return f"{count} {one if count == 1 else many or one + 's'}"
