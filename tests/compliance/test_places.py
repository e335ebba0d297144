"""Where an annotation was found, and what a rule makes of it."""

import pytest

from service.compliance.evaluate import judge_instance, judge_study
from service.compliance.facts import FrameFacts, InstanceFacts, Mark, StudyFacts, measurements_of, with_remarks
from service.compliance.outcome import Verdict
from service.compliance.rulebook import Rulebook, parse
from service.dicom.remarks import Remark

BANDS = {"caliper": (0.3, 0.6), "text": (0.3, 0.6)}
BOX = (10, 10, 20, 20)


def rule(expect: str) -> Rulebook:
    return parse(f'name = "t"\nversion = "1"\n[[requirement]]\nid = "r"\ntitle = "R"\n{expect}')


def image(*marks: Mark, score: float = 0.0, text_read: bool = False, **facts: object) -> InstanceFacts:
    frames = (FrameFacts(1, {"caliper": score, "text": 0.0}, marks, text_read),)
    return InstanceFacts("1.2", number=1, frames=frames, bands=BANDS, **facts)


@pytest.mark.parametrize(
    ("places", "source", "score", "verdict"),
    [
        ('"pixels"', "network", 0.9, "compliant"),
        ('"pixels"', "overlay", 0.9, "non_compliant"),
        ('"pixels"', "presentation_state", 0.0, "non_compliant"),
        ('"pixels"', "person", 0.0, "compliant"),
        ('"overlay"', "overlay", 0.9, "compliant"),
        ('"overlay"', "network", 0.9, "non_compliant"),
        ('["overlay", "presentation_state"]', "presentation_state", 0.0, "compliant"),
        ('"sr"', "sr", 0.0, "compliant"),
        ('["pixels", "sr"]', "sr", 0.0, "compliant"),
    ],
)
def test_a_rule_asks_for_places(places: str, source: str, score: float, verdict: str) -> None:
    book = rule(f'expect = {{ annotation = "caliper", found_in = {places} }}')
    assert judge_instance(book, image(Mark("caliper", 1.0, BOX, source), score=score)).verdict == verdict


def test_without_places_every_source_counts() -> None:
    book = rule('expect = { annotation = "caliper" }')
    for source in ("overlay", "presentation_state", "sr", "person"):
        assert judge_instance(book, image(Mark("caliper", 1.0, BOX, source))).verdict is Verdict.COMPLIANT


def test_the_sentence_says_where() -> None:
    book = rule('expect = { annotation = "caliper", found_in = ["overlay", "sr"] }')
    (finding,) = judge_instance(book, image()).findings
    assert finding.sentence.startswith("Calipers in an overlay or a structured report are missing on image 1")


def test_measured_in_the_report_and_not_seen_in_the_pixels_goes_to_a_person() -> None:
    book = rule('agree = [{ measurements = 1 }, { annotation = "caliper", found_in = "pixels" }]')
    measured = Mark("caliper", 1.0, BOX, "sr")
    assert judge_instance(book, image(measured, measurements=1)).verdict is Verdict.INDETERMINATE
    assert judge_instance(book, image(measured, score=0.9, measurements=1)).verdict is Verdict.INDETERMINATE
    seen = Mark("caliper", 0.9, BOX)
    assert judge_instance(book, image(measured, seen, score=0.9, measurements=1)).verdict is Verdict.COMPLIANT
    assert judge_instance(book, image(seen, score=0.9)).verdict is Verdict.NOT_APPLICABLE


def test_text_that_nobody_read_is_uncertain_and_says_why() -> None:
    book = rule('expect = { text = "left" }')
    (finding,) = judge_instance(book, image()).findings
    assert finding.state.value == "uncertain" and "because not all of its text was read" in finding.sentence
    assert judge_instance(book, image(text_read=True)).verdict is Verdict.NON_COMPLIANT
    written = Mark("text", 1.0, BOX, "presentation_state", "LEFT BREAST")
    assert judge_instance(book, image(written)).verdict is Verdict.COMPLIANT


def test_only_books_that_look_at_text_ask_for_a_reader() -> None:
    assert not rule('expect = { annotation = "text" }').asks_for_text
    assert rule('expect = { any_of = [{ annotation = "body_marker" }, { text = "x" }] }').asks_for_text
    assert rule('agree = [{ header = { laterality = "L" } }, { text = "left" }]').asks_for_text


def test_a_report_or_a_presentation_state_is_no_image() -> None:
    book = rule('expect = { annotation = "caliper" }')
    report = InstanceFacts("1.9", number_of_frames=0)
    assert judge_instance(book, report).verdict is Verdict.NOT_APPLICABLE
    assert judge_study(book, StudyFacts("1", (image(score=0.9), report))).verdict is Verdict.COMPLIANT
    assert judge_study(book, StudyFacts("1", (report,))).verdict is Verdict.NOT_APPLICABLE


def test_remarks_go_to_their_frame_or_to_the_nearest_one_that_was_assessed() -> None:
    frames = tuple(FrameFacts(number, {}) for number in (5, 15))
    said = [
        Remark("sr", "1.2", "caliper", 12, BOX, "Length", 3.0, "mm"),
        Remark("presentation_state", "1.2", "text", None, None, "LT"),
    ]
    five, fifteen = with_remarks(frames, said)
    assert [(mark.kind, mark.text) for mark in five.annotations] == [("text", "LT")]
    assert [(mark.kind, mark.text) for mark in fifteen.annotations] == [("caliper", ""), ("text", "LT")]
    assert measurements_of(said) == 1
    assert with_remarks((), said) == ()


class TestAnObjectThatCouldNotBeRead:
    """It may say of any image of its study what nobody knows now."""

    def test_a_measurement_it_may_hold_is_uncertain_and_never_missing(self) -> None:
        book = rule("expect = { measurements = 2 }")
        unread = frozenset({"sr"})
        assert judge_instance(book, image(measurements=1)).verdict is Verdict.NON_COMPLIANT
        assert judge_instance(book, image(measurements=1, unread=unread)).verdict is Verdict.INDETERMINATE
        assert judge_instance(book, image(unread=unread)).verdict is Verdict.INDETERMINATE
        assert judge_instance(book, image(measurements=2, unread=unread)).verdict is Verdict.COMPLIANT

    @pytest.mark.parametrize(
        ("expect", "object_", "verdict"),
        [
            ('annotation = "caliper"', "sr", "indeterminate"),
            ('annotation = "caliper"', "presentation_state", "indeterminate"),
            ('annotation = "caliper", found_in = "pixels"', "sr", "non_compliant"),
            ('annotation = "caliper", found_in = "sr"', "presentation_state", "non_compliant"),
            ('annotation = "caliper", count = 2', "sr", "indeterminate"),
            ('annotation = "text"', "sr", "non_compliant"),
            ('annotation = "text"', "presentation_state", "indeterminate"),
            ('text = "left"', "sr", "non_compliant"),
            ('text = "left"', "presentation_state", "indeterminate"),
            ('without = "caliper"', "sr", "indeterminate"),
        ],
    )
    def test_what_it_may_draw_or_write(self, expect: str, object_: str, verdict: str) -> None:
        book = rule(f"expect = {{ {expect} }}")
        seen = image(text_read=True, unread=frozenset({object_}))
        assert judge_instance(book, seen).verdict == verdict

    def test_it_is_told_of_and_leaves_the_study_to_a_person(self) -> None:
        book = rule('expect = { annotation = "caliper" }')
        failed = {"number": 7, "number_of_frames": 0, "assessed": False, "reason": "It cannot be read."}
        report = InstanceFacts("1.9", says="sr", **failed)
        outcome = judge_study(book, StudyFacts("1", (image(score=0.9), report)))
        assert outcome.verdict is Verdict.INDETERMINATE
        assert outcome.findings[0].requirement == "image-assessed"
        assert outcome.findings[0].sentence.startswith("Structured report 7 could not be assessed")
        other = InstanceFacts("1.9", **failed)  # a PDF, of which no rule asks anything
        assert judge_study(book, StudyFacts("1", (image(score=0.9), other))).verdict is Verdict.COMPLIANT

    def test_two_versions_of_it_go_to_a_person(self) -> None:
        book = rule('expect = { annotation = "caliper" }')
        state = InstanceFacts("1.9", number=3, number_of_frames=0, says="presentation_state", conflict=True)
        outcome = judge_study(book, StudyFacts("1", (image(score=0.9), state)))
        assert outcome.findings[0].requirement == "one-version"
        assert outcome.findings[0].sentence.startswith("Presentation state 3 came more than once")
