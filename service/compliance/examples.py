"""Examples in a rule book, and whether it judges them as it says: the unit tests of rules.

[[example]]
name = "a breast image without a marker"
header = { study_description = "US BREAST" }
images = [{ shows = ["caliper"] }]
verdict = "non_compliant"
missing = ["breast-body-marker"]
"""

from __future__ import annotations

from dataclasses import dataclass

from service.compliance.evaluate import judge_study
from service.compliance.facts import KINDS, FrameFacts, HeaderRegion, InstanceFacts, Mark, StudyFacts, words_of
from service.compliance.outcome import FindingState, Outcome
from service.compliance.rulebook import Example, ExampleImage, Rulebook

_SCORES = {"absent": 0.0, "unsure": 0.5, "present": 1.0}
_BAND = (0.3, 0.7)


@dataclass(frozen=True, slots=True)
class Failure:
    """An example that is judged otherwise than it says."""

    example: str
    what: str


def failures(rulebook: Rulebook) -> list[Failure]:
    """The examples of the rule book that it does not live up to."""
    found = ((example, _difference(rulebook, example)) for example in rulebook.examples)
    return [Failure(example.name, what) for example, what in found if what]


def outcome_of(rulebook: Rulebook, example: Example) -> Outcome:
    """The verdict on an example."""
    images = tuple(_image(example, image, number) for number, image in enumerate(example.images, start=1))
    return judge_study(rulebook, StudyFacts("example", images))


def _difference(rulebook: Rulebook, example: Example) -> str:
    outcome = outcome_of(rulebook, example)
    if outcome.verdict is not example.verdict:
        said = " ".join(finding.sentence for finding in outcome.findings) or "No requirement speaks of it."
        return f"The verdict is {outcome.verdict.value}, not {example.verdict.value}. {said}"
    for state, expected in ((FindingState.MISSING, example.missing), (FindingState.UNCERTAIN, example.uncertain)):
        names = {finding.requirement for finding in outcome.findings if finding.state is state}
        if expected is not None and names != set(expected):
            listed = ", ".join(sorted(names)) or "nothing"
            return f"{listed} is {state.value}, not {', '.join(sorted(expected)) or 'nothing'}."
    return ""


def _image(example: Example, image: ExampleImage, number: int) -> InstanceFacts:
    marks = [
        Mark(kind, 1.0, (40 * place, 0, 30, 30)) for kind in image.shows for place in range(image.count.get(kind, 1))
    ]
    marks += [Mark("text", 1.0, (0, 40, 30, 9), text=text) for text in image.text or ()]
    present = {mark.kind for mark in marks}
    scores: dict[str, float] = {
        kind: _SCORES["present" if kind in present else "unsure" if kind in image.unsure else "absent"]
        for kind in KINDS
    }
    return InstanceFacts(
        sop_instance_uid=f"example.{number}",
        number=number,
        words={
            **words_of({}, **{**example.header, **image.header}),
            "records": tuple({*example.records, *image.records}),
        },
        regions=None if image.regions is None else tuple(HeaderRegion(name) for name in image.regions),
        frames=(FrameFacts(1, scores, tuple(marks), text_read=image.text is not None),),
        bands=dict.fromkeys(KINDS, _BAND),
        assessed=image.assessed,
        reason="" if image.assessed else "The example says so.",
        study_date=example.study_date,
        patient_age=example.patient_age,
        measurements=image.measurements,
    )
