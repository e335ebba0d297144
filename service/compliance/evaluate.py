"""Rule book + facts → verdict. Pure: no clock, no database, no order; the same input gives the same bytes.

A requirement without a count asks every image it applies to. One with ``at_least``, ``at_most``, ``exactly``,
``each_of`` or ``pair`` asks the study as a whole, and a single image leaves it open. An image whose assessment failed
counts as unknown, and so does what a report or a presentation state that could not be read may say of any image: they
can turn "met" into "uncertain", never into "missing". Of several versions of one SOP instance the newest counts, and a
finding sends the study to a person, because only a person can say which one is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.compliance import sentences
from service.compliance.answers import Answer, answers_to, truth_of
from service.compliance.evidence import evidence_of
from service.compliance.excuses import in_grace, not_excused
from service.compliance.facts import InstanceFacts, StudyFacts
from service.compliance.headers import Headers
from service.compliance.outcome import Finding, FindingState, Outcome, Severity, Verdict, verdict_of
from service.compliance.rulebook import Requirement, Rulebook
from service.compliance.truth import Truth

_STATE = {
    Truth.YES: FindingState.MET,
    Truth.NO: FindingState.MISSING,
    Truth.UNSURE: FindingState.UNCERTAIN,
    Truth.SILENT: FindingState.UNCERTAIN,
}


def judge_instance(rulebook: Rulebook, image: InstanceFacts) -> Outcome:
    """The verdict on one image by itself: what the rule book asks of every image."""
    if not image.number_of_frames:
        return Outcome(Verdict.NOT_APPLICABLE, ())  # a report or a presentation state is no image
    headers = Headers(rulebook, [image])
    asked = [requirement for requirement in headers.asked() if not requirement.of_study]
    return _outcome([_assessed([image]), *(_finding(rulebook, requirement, headers) for requirement in asked)])


def judge_study(rulebook: Rulebook, study: StudyFacts) -> Outcome:
    """The verdict on a whole study."""
    newest = study.newest_versions()
    headers = Headers(rulebook, [image for image in newest if image.number_of_frames])
    heard = [each for each in newest if each.number_of_frames or each.says]
    asked = (_finding(rulebook, requirement, headers) for requirement in headers.asked())
    return _outcome([_assessed(heard), _one_version(heard), *asked])


def _outcome(findings: Iterable[Finding | None]) -> Outcome:
    kept = tuple(finding for finding in findings if finding is not None)
    return Outcome(verdict_of(kept), kept)


def _finding(rulebook: Rulebook, requirement: Requirement, headers: Headers) -> Finding | None:
    """What became of ``requirement``; None when it does not speak of any of these images."""
    spoken_of = headers.concerned(requirement)
    if not spoken_of:
        return None
    held, excuse = not_excused(rulebook, requirement, spoken_of)
    if not held:
        sentence = sentences.excused(requirement, excuse)
        return Finding(requirement.id, FindingState.NOT_APPLICABLE, requirement.severity, sentence)
    answers = answers_to(requirement, held)
    if not answers:
        return None
    state = _STATE[truth_of(requirement, answers)]
    if state is FindingState.MISSING and not any(image.assessed for image in held):
        state = FindingState.UNCERTAIN  # nothing is held against a study of which nothing could be assessed
    severity = requirement.severity
    if state is FindingState.MISSING and in_grace(requirement, held[0].study_date):
        severity = Severity.INFO
    sentence = sentences.of(requirement, state, answers)
    return Finding(requirement.id, state, severity, sentence, evidence_of(answers, requirement.kinds))


def _assessed(images: Sequence[InstanceFacts]) -> Finding | None:
    failed = [image for image in images if not image.assessed]
    return _doubt("image-assessed", failed, sentences.not_assessed) if failed else None


def _one_version(images: Sequence[InstanceFacts]) -> Finding | None:
    doubled = [image for image in images if image.conflict]
    return _doubt("one-version", doubled, sentences.several_versions) if doubled else None


def _doubt(name: str, images: Sequence[InstanceFacts], words: sentences.About) -> Finding:
    evidence = evidence_of([Answer(image, Truth.UNSURE) for image in images], kinds=())
    return Finding(name, FindingState.UNCERTAIN, Severity.MAJOR, words(images), evidence)
