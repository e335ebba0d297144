"""One requirement at a time: what an image or a study must show, and what the finding says."""

from dataclasses import replace
from datetime import date

import pytest

from service.compliance.evaluate import judge_instance, judge_study
from service.compliance.facts import FrameFacts, HeaderRegion, InstanceFacts, Mark, StudyFacts
from service.compliance.outcome import Finding, FindingState, Outcome, Severity, Verdict
from service.compliance.rulebook import Rulebook, parse

BANDS = dict.fromkeys(("body_marker", "caliper", "color_box", "text", "arrow"), (0.3, 0.6))


def book(rules: str) -> Rulebook:
    return parse(f'name = "t"\nversion = "1"\n{rules}')


def rule(fields: str, name: str = "rule") -> Rulebook:
    return book(f'[[requirement]]\nid = "{name}"\ntitle = "A title"\n{fields}')


def frame(number: int = 1, marks: tuple[Mark, ...] = (), text_read: bool = False, **scores: float) -> FrameFacts:
    absent = dict.fromkeys(BANDS, 0.0)
    return FrameFacts(number, {**absent, **scores}, marks, text_read)


def image(number: int = 1, *frames: FrameFacts, words: dict[str, str] | None = None, **facts: object) -> InstanceFacts:
    frames = frames or (frame(),)
    told = {name: (text,) for name, text in (words or {}).items()}
    given = {"number_of_frames": len(frames), "bands": BANDS, "received": str(number), **facts}
    return InstanceFacts(f"1.2.{number}", number=number, words=told, frames=frames, **given)


def study(*images: InstanceFacts) -> StudyFacts:
    return StudyFacts("1.2", images)


def only(outcome: Outcome) -> Finding:
    (finding,) = outcome.findings
    return finding


MARKER = rule('expect = { annotation = "body_marker" }\napplies_to = { exam = "breast" }')
BREAST = {"exam": "US BREAST LT"}


class TestOneImage:
    def test_a_mark_that_is_there_is_met(self) -> None:
        outcome = judge_instance(MARKER, image(3, frame(body_marker=0.6), words=BREAST))
        assert outcome.verdict is Verdict.COMPLIANT
        assert only(outcome).sentence == "Image 3 shows a body marker (rule rule)."

    def test_a_mark_that_is_not_there_is_missing_and_the_sentence_says_what_to_do(self) -> None:
        outcome = judge_instance(MARKER, image(3, frame(body_marker=0.29), words=BREAST))
        assert outcome.verdict is Verdict.NON_COMPLIANT
        assert only(outcome).sentence == (
            "Body marker is missing on image 3, frame 1 (rule rule). "
            "Draw the marker and send the image again, or override with a reason."
        )
        assert only(outcome).evidence == {
            "images": {"considered": 1, "met": 0, "missing": 1, "uncertain": 0},
            "frames": [
                {"sop_instance_uid": "1.2.3", "frame": 1, "kind": "body_marker", "score": 0.29, "presence": "absent"}
            ],
        }

    @pytest.mark.parametrize("score", [0.3, 0.45, 0.5999])
    def test_a_score_between_the_thresholds_goes_to_a_person(self, score: float) -> None:
        outcome = judge_instance(MARKER, image(3, frame(body_marker=score), words=BREAST))
        assert outcome.verdict is Verdict.INDETERMINATE
        assert only(outcome).sentence.startswith("It is uncertain whether image 3, frame 1 shows a body marker")
        assert only(outcome).evidence["frames"][0]["band"] == [0.3, 0.6]

    def test_an_image_no_rule_speaks_of_is_not_applicable(self) -> None:
        assert judge_instance(MARKER, image(1, words={"exam": "US ABDOMEN"})) == Outcome(Verdict.NOT_APPLICABLE, ())
        assert judge_instance(MARKER, image(1)).verdict is Verdict.NOT_APPLICABLE

    def test_a_failed_assessment_is_never_compliant_nor_non_compliant(self) -> None:
        failed = image(4, words=BREAST, assessed=False, reason="It cannot be decoded.", cure="Send it uncompressed.")
        outcome = judge_instance(MARKER, failed)
        assert outcome.verdict is Verdict.INDETERMINATE
        assert outcome.findings[0].requirement == "image-assessed"
        assert outcome.findings[0].sentence.endswith("It cannot be decoded. Send it uncompressed.")
        assert judge_instance(MARKER, image(4, assessed=False)).verdict is Verdict.INDETERMINATE

    def test_a_kind_the_network_does_not_know_goes_to_a_person(self) -> None:
        blind = image(1, FrameFacts(1, {"caliper": 0.9}), words=BREAST)
        assert judge_instance(MARKER, blind).verdict is Verdict.INDETERMINATE

    def test_what_a_person_drew_counts_whatever_the_score(self) -> None:
        drawn = frame(marks=(Mark("body_marker", 1.0, (0, 0, 9, 9), source="person"),))
        assert judge_instance(MARKER, image(1, drawn, words=BREAST)).verdict is Verdict.COMPLIANT

    def test_a_study_wide_rule_leaves_a_single_image_open(self) -> None:
        assert judge_instance(rule('expect = { annotation = "caliper" }\nat_least = 1'), image()).findings == ()


class TestCine:
    FRAMES = (frame(1), frame(7, body_marker=0.9), frame(13))

    @pytest.mark.parametrize(
        ("cine", "verdict"), [("any", "compliant"), ("most", "non_compliant"), ("every", "non_compliant")]
    )
    def test_the_rule_says_how_many_sampled_frames_must_carry_it(self, cine: str, verdict: str) -> None:
        rules = rule(f'expect = {{ annotation = "body_marker" }}\ncine = "{cine}"')
        assert judge_instance(rules, image(1, *self.FRAMES)).verdict == verdict

    def test_most_is_uncertain_as_long_as_the_doubtful_frames_could_tip_it(self) -> None:
        rules = rule('expect = { annotation = "body_marker" }\ncine = "most"')
        frames = (frame(1, body_marker=0.9), frame(2, body_marker=0.5), frame(3))
        assert judge_instance(rules, image(1, *frames)).verdict is Verdict.INDETERMINATE

    @pytest.mark.parametrize("doubtful", [0.9, 0.5])
    def test_half_of_the_frames_are_not_most(self, doubtful: float) -> None:
        rules = rule('expect = { annotation = "body_marker" }\ncine = "most"')
        frames = (frame(1, body_marker=0.9), frame(2, body_marker=doubtful), frame(3), frame(4))
        assert judge_instance(rules, image(1, *frames)).verdict is Verdict.NON_COMPLIANT

    def test_what_must_not_be_there_may_be_on_no_frame(self) -> None:
        rules = rule('expect = { without = "body_marker" }')
        assert judge_instance(rules, image(1, *self.FRAMES)).verdict is Verdict.NON_COMPLIANT

    def test_the_sentence_says_how_many_frames_were_looked_at(self) -> None:
        blank = image(5, frame(1), frame(17), number_of_frames=34, words=BREAST)
        assert "missing on image 5, 2 sampled frames of 34" in only(judge_instance(MARKER, blank)).sentence


class TestCounts:
    YES, MAYBE, NO = frame(caliper=0.9), frame(caliper=0.5), frame()

    @pytest.mark.parametrize(
        ("count", "frames", "state"),
        [
            ("at_least = 2", (YES, YES, NO), "met"),
            ("at_least = 2", (YES, MAYBE, NO), "uncertain"),
            ("at_least = 2", (YES, NO, NO), "missing"),
            ("at_most = 1", (YES, NO), "met"),
            ("at_most = 1", (YES, MAYBE), "uncertain"),
            ("at_most = 1", (YES, YES), "missing"),
            ("exactly = 1", (YES, NO), "met"),
            ("exactly = 1", (YES, MAYBE), "uncertain"),
            ("exactly = 1", (MAYBE, NO), "uncertain"),
            ("exactly = 1", (YES, YES), "missing"),
            ("exactly = 1", (NO, NO), "missing"),
            ("exactly = 0", (NO, NO), "met"),
            ("", (YES, YES), "met"),
            ("", (YES, MAYBE), "uncertain"),
            ("", (YES, MAYBE, NO), "missing"),
        ],
    )
    def test_images_of_the_study(self, count: str, frames: tuple[FrameFacts, ...], state: str) -> None:
        rules = rule(f'expect = {{ annotation = "caliper" }}\n{count}')
        images = [image(number, seen) for number, seen in enumerate(frames, start=1)]
        assert only(judge_study(rules, study(*images))).state == state

    def test_an_unassessed_image_could_be_the_one_that_is_looked_for(self) -> None:
        rules = rule('expect = { annotation = "caliper" }\nat_least = 1')
        outcome = judge_study(rules, study(image(1), image(2, assessed=False, reason="Damaged.")))
        assert [finding.state for finding in outcome.findings] == [FindingState.UNCERTAIN, FindingState.UNCERTAIN]

    def test_what_is_missing_on_an_assessed_image_stays_missing_beside_a_failed_one(self) -> None:
        outcome = judge_study(MARKER, study(image(1, words=BREAST), image(2, words=BREAST, assessed=False)))
        assert outcome.verdict is Verdict.NON_COMPLIANT

    def test_annotations_on_one_frame(self) -> None:
        rules = rule('expect = { annotation = "caliper", count = 4 }')
        crosses = tuple(Mark("caliper", 0.9, (10 * n, 0, 5, 5)) for n in range(4))
        assert judge_instance(rules, image(1, frame(marks=crosses, caliper=0.9))).verdict is Verdict.COMPLIANT
        fewer = judge_instance(rules, image(1, frame(marks=crosses[:3], caliper=0.9)))
        assert "at least 4 calipers" in only(fewer).sentence

    def test_the_study_sentence_counts(self) -> None:
        rules = rule('expect = { annotation = "caliper" }\nat_least = 2')
        sentence = only(judge_study(rules, study(image(1, self.YES), image(2)))).sentence
        assert sentence.startswith("The study must hold at least 2 images with calipers and holds 1 (rule rule).")


class TestEachOf:
    RULES = rule(
        'expect = { annotation = "color_box" }\n'
        'each_of = [{ name = "left", match = { laterality = "L" } }, { name = "right", match = { laterality = "R" } }]'
    )

    def side(self, number: int, side: str | None, score: float = 0.9) -> InstanceFacts:
        return image(number, frame(color_box=score), words={"laterality": side} if side else {})

    def test_both_sides(self) -> None:
        assert judge_study(self.RULES, study(self.side(1, "L"), self.side(2, "R"))).verdict is Verdict.COMPLIANT

    def test_the_side_that_is_missing_is_named(self) -> None:
        finding = only(judge_study(self.RULES, study(self.side(1, "L"), self.side(2, "R", 0.1))))
        assert finding.state is FindingState.MISSING
        assert finding.sentence.startswith("A colour box is missing for right")

    def test_a_header_that_does_not_say_leaves_it_to_a_person(self) -> None:
        outcome = judge_study(self.RULES, study(self.side(1, "L"), self.side(2, None)))
        assert outcome.verdict is Verdict.INDETERMINATE

    @pytest.mark.parametrize(
        ("words", "frames", "verdict"),
        [
            ({"laterality": "R"}, 3, "non_compliant"),  # whatever view the header leaves open
            ({"view": "ICA"}, 3, "non_compliant"),
            ({"laterality": "L"}, 1, "non_compliant"),  # no cine, whatever its view
            ({"laterality": "L"}, 3, "indeterminate"),
            ({"view": "CCA"}, 3, "indeterminate"),
            ({}, 3, "indeterminate"),
            ({"laterality": "L", "view": "CCA"}, 3, "compliant"),
        ],
    )
    def test_what_a_header_says_otherwise_is_not_left_open(
        self, words: dict[str, str], frames: int, verdict: str
    ) -> None:
        rules = rule(
            'expect = { annotation = "color_box" }\n'
            'each_of = [{ name = "l", match = { laterality = "L", view = "CCA", image = "cine" } }]'
        )
        shown = image(1, *(frame(number, color_box=0.9) for number in range(1, frames + 1)), words=words)
        assert judge_study(rules, study(shown)).verdict == verdict


class TestPair:
    RULES = rule(
        'pair = { one = { annotation = "caliper" }, other = { without = "caliper" }, same = ["view"] }',
    )

    def test_the_same_view_with_and_without(self) -> None:
        with_, without = frame(caliper=0.9), frame()
        view, other = {"view": "LONG"}, {"view": "TRANS"}
        good = study(image(1, with_, words=view), image(2, without, words=view))
        bad = study(image(1, with_, words=view), image(2, without, words=other))
        open_ = study(image(1, with_, words=view), image(2, frame(caliper=0.4), words=view))
        assert judge_study(self.RULES, good).verdict is Verdict.COMPLIANT
        assert judge_study(self.RULES, bad).verdict is Verdict.NON_COMPLIANT
        assert "no image of the same view with no calipers" in only(judge_study(self.RULES, bad)).sentence
        assert judge_study(self.RULES, open_).verdict is Verdict.INDETERMINATE

    def test_nothing_is_asked_where_the_one_is_not_there(self) -> None:
        assert judge_study(self.RULES, study(image(1))).verdict is Verdict.NOT_APPLICABLE

    @pytest.mark.parametrize(
        ("one", "other", "verdict"),
        [
            (0.9, 0.9, "compliant"),
            (0.0, 0.9, "not_applicable"),  # nothing is asked of the image with calipers
            (0.9, 0.0, "non_compliant"),  # what would be its partner is none of these images
            (0.5, 0.0, "indeterminate"),
            (0.9, 0.5, "indeterminate"),
            (0.5, 0.9, "compliant"),
        ],
    )
    def test_both_are_among_the_images_that_the_rule_speaks_of(self, one: float, other: float, verdict: str) -> None:
        rules = rule(
            'when = { annotation = "color_box" }\n'
            'pair = { one = { annotation = "caliper" }, other = { without = "caliper" }, same = ["view"] }'
        )
        images = image(1, frame(caliper=0.9, color_box=one)), image(2, frame(color_box=other))
        assert judge_study(rules, study(*images)).verdict == verdict

    def test_what_nobody_read_may_be_the_one(self) -> None:
        rules = rule('pair = { one = { text = "dual" }, other = { annotation = "caliper" }, same = ["view"] }')
        assert judge_study(rules, study(image(1), image(2))).verdict is Verdict.INDETERMINATE
        read = frame(text_read=True)
        assert judge_study(rules, study(image(1, read), image(2, read))).verdict is Verdict.NOT_APPLICABLE


class TestAgreement:
    RULES = rule('agree = [{ region = "color_flow" }, { annotation = "color_box" }]')
    FLOW, TISSUE = (HeaderRegion("color_flow"),), (HeaderRegion("tissue"),)

    @pytest.mark.parametrize(
        ("regions", "score", "verdict"),
        [
            (FLOW, 0.9, "compliant"),
            (TISSUE, 0.0, "compliant"),
            (FLOW, 0.0, "indeterminate"),
            (TISSUE, 0.9, "indeterminate"),
            (FLOW, 0.5, "indeterminate"),
            (None, 0.9, "not_applicable"),
        ],
    )
    def test_header_and_pixels(self, regions: tuple[HeaderRegion, ...] | None, score: float, verdict: str) -> None:
        seen = image(1, frame(color_box=score), regions=regions)
        assert judge_instance(self.RULES, seen).verdict == verdict

    def test_a_side_written_on_the_image_that_contradicts_the_header(self) -> None:
        rules = rule(
            'applies_to = { laterality = "^L" }\n'
            'agree = [{ header = { laterality = "^L" } }, { none_of = [{ text = [\'\\bRT?\\b\', "right"] }] }]'
        )

        def read(*texts: str, text_read: bool = True) -> Verdict:
            marks = tuple(Mark("text", 0.9, (0, 0, 9, 9), text=text) for text in texts)
            return judge_instance(
                rules, image(1, frame(marks=marks, text_read=text_read), words={"laterality": "L"})
            ).verdict

        assert read("LT UOQ") is Verdict.COMPLIANT
        assert read("RT UOQ") is Verdict.INDETERMINATE
        assert read(text_read=False) is Verdict.NOT_APPLICABLE

    def test_measurements_without_calipers(self) -> None:
        rules = rule('agree = [{ measurements = 1 }, { annotation = "caliper" }]')
        assert judge_instance(rules, image(1, measurements=2)).verdict is Verdict.INDETERMINATE
        assert judge_instance(rules, image(1)).verdict is Verdict.NOT_APPLICABLE


class TestExpectations:
    def test_places(self) -> None:
        box = Mark("color_box", 0.9, (100, 100, 100, 100))
        inside, outside = Mark("caliper", 0.9, (120, 120, 8, 8)), Mark("caliper", 0.9, (300, 300, 8, 8))
        regions = (HeaderRegion("tissue", (90, 90, 400, 250)),)

        def verdict(expect: str, *marks: Mark) -> Verdict:
            seen = image(1, frame(marks=marks, caliper=0.9, color_box=0.9), regions=regions)
            return judge_instance(rule(f"expect = {expect}"), seen).verdict

        on = '{ annotation = "caliper", overlaps = "color_box" }'
        off = '{ annotation = "caliper", clear_of = "color_box" }'
        within = '{ annotation = "caliper", in_region = "tissue" }'
        assert (verdict(on, box, inside), verdict(on, box, outside)) == ("compliant", "non_compliant")
        assert (verdict(off, box, inside), verdict(off, box, outside)) == ("non_compliant", "compliant")
        assert (verdict(within, inside), verdict(within, outside)) == ("compliant", "non_compliant")
        # It is the mark's centre that lies in the region: these two reach over its lower edge.
        above, below = (Mark("caliper", 0.9, (300, top, 8, 12)) for top in (243, 245))
        assert (verdict(within, above), verdict(within, below)) == ("compliant", "non_compliant")
        doubtful = image(1, frame(marks=(box,), caliper=0.45, color_box=0.9), regions=regions)
        assert judge_instance(rule(f"expect = {on}"), doubtful).verdict is Verdict.INDETERMINATE

    def test_only_marks_of_the_place_that_is_asked_for_count(self) -> None:
        rules = rule('expect = { annotation = "caliper", count = 2, found_in = "pixels" }')
        seen, overlaid = Mark("caliper", 0.9, (10, 10, 8, 8)), Mark("caliper", 1.0, (40, 10, 8, 8), "overlay")

        def verdict(*marks: Mark) -> Verdict:
            return judge_instance(rules, image(1, frame(marks=marks, caliper=0.9))).verdict

        assert (verdict(seen, seen), verdict(seen, overlaid)) == ("compliant", "non_compliant")

    @pytest.mark.parametrize(("apart", "touching"), [(8, False), (4, True)])
    def test_a_mark_does_not_touch_itself(self, apart: int, touching: bool) -> None:
        marks = [Mark("caliper", 0.9, (left, 100, 8, 8)) for left in (100, 100 + apart)]

        def verdict(word: str) -> Verdict:
            rules = rule(f'expect = {{ annotation = "caliper", {word} = "caliper" }}')
            return judge_instance(rules, image(1, frame(marks=tuple(marks), caliper=0.9))).verdict

        assert (verdict("overlaps") is Verdict.COMPLIANT) == touching
        assert (verdict("clear_of") is Verdict.COMPLIANT) != touching

    def test_one_of_several(self) -> None:
        rules = rule("expect = { any_of = [{ annotation = 'color_box' }, { text = 'unable to visuali[sz]e' }] }")
        said = frame(marks=(Mark("text", 0.9, (0, 0, 9, 9), text="Unable to visualise"),), text_read=True)
        assert judge_instance(rules, image(1, said)).verdict is Verdict.COMPLIANT
        assert judge_instance(rules, image(1, frame(text_read=True))).verdict is Verdict.NON_COMPLIANT
        assert judge_instance(rules, image(1)).verdict is Verdict.INDETERMINATE  # nobody read the text

    def test_header(self) -> None:
        rules = rule('expect = { header = { laterality = "^[LRB]" } }')
        assert judge_instance(rules, image(1, words={"laterality": "L"})).verdict is Verdict.COMPLIANT
        assert judge_instance(rules, image(1)).verdict is Verdict.NON_COMPLIANT

    def test_only_images_that_show_something(self) -> None:
        rules = rule('when = { annotation = "color_box" }\nexpect = { annotation = "text" }')
        assert judge_instance(rules, image(1)).verdict is Verdict.NOT_APPLICABLE
        assert judge_instance(rules, image(1, frame(color_box=0.9))).verdict is Verdict.NON_COMPLIANT
        assert judge_instance(rules, image(1, frame(color_box=0.5))).verdict is Verdict.INDETERMINATE

    def test_text_that_nobody_read_may_be_what_the_rule_speaks_of(self) -> None:
        rules = rule('when = { text = "nodule" }\nexpect = { annotation = "caliper" }')
        assert judge_instance(rules, image(1)).verdict is Verdict.INDETERMINATE
        assert judge_instance(rules, image(1, frame(text_read=True))).verdict is Verdict.NOT_APPLICABLE
        assert judge_instance(rules, image(1, frame(caliper=0.9))).verdict is Verdict.COMPLIANT

    def test_a_kind_that_nobody_looked_for_may_be_what_the_rule_speaks_of(self) -> None:
        rules = rule('when = { annotation = "arrow" }\nexpect = { annotation = "caliper" }')
        assert judge_instance(rules, image(1, FrameFacts(1, {"caliper": 0.0}))).verdict is Verdict.INDETERMINATE

    @pytest.mark.parametrize("shown", ['region = "color_flow"', "measurements = 1"])
    def test_where_there_are_no_regions_and_no_report_nothing_is_asked(self, shown: str) -> None:
        rules = rule(f'when = {{ {shown} }}\nexpect = {{ annotation = "caliper" }}')
        assert judge_instance(rules, image(1)).verdict is Verdict.NOT_APPLICABLE

    def test_an_image_that_may_not_be_meant_is_not_counted_as_one_that_is(self) -> None:
        rules = rule('when = { text = "left" }\nexpect = { annotation = "caliper" }\nat_least = 1')
        unread, right = image(1, frame(caliper=0.9)), image(1, frame(caliper=0.9, text_read=True))
        left = frame(marks=(Mark("text", 0.9, (0, 0, 9, 9), text="LEFT"),), text_read=True)
        assert judge_study(rules, study(unread, image(2, left))).verdict is Verdict.INDETERMINATE
        assert judge_study(rules, study(right, image(2, left))).verdict is Verdict.NON_COMPLIANT


class TestApplicability:
    @pytest.mark.parametrize(
        ("conditions", "applies"),
        [
            ('{ exam = ["thyroid", "breast"] }', True),
            ('{ exam = "breast", modality = "US" }', True),
            ('{ exam = "breast", modality = "MR" }', False),
            ('[{ modality = "MR" }, { exam = "breast" }]', True),
            ('{ station = "US0[1-3]" }', True),
            ('{ station = "US0[4-9]" }', False),
            ('{ institution = "." }', False),
            ('{ image = "still" }', True),
            ('{ image = "cine" }', False),
            ("{ min_age = 18 }", True),
            ('{ pregnancy = ["possible", "definite"] }', True),
            ('{ pregnancy = "none" }', False),
            ("{ min_age = 40 }", True),
            ("{ min_age = 41 }", False),
            ("{ max_age = 17 }", False),
            ("{ max_age = 40 }", True),
            ('{ region = "tissue" }', True),
            ('{ region = "pw_doppler" }', False),
        ],
    )
    def test_header_conditions(self, conditions: str, applies: bool) -> None:
        rules = rule(f'expect = {{ annotation = "text" }}\napplies_to = {conditions}')
        words = {"exam": "US^BREAST_LEFT", "modality": "US", "station": "US02", "pregnancy": "definite"}
        seen = image(1, words=words, patient_age=40.0, regions=(HeaderRegion("tissue"),))
        assert bool(judge_instance(rules, seen).findings) is applies

    def test_unless(self) -> None:
        rules = rule('expect = { annotation = "text" }\nunless = { exam = "biopsy" }')
        assert judge_instance(rules, image(1, words={"exam": "BREAST BIOPSY"})).verdict is Verdict.NOT_APPLICABLE
        assert judge_instance(rules, image(1, words={"exam": "BREAST"})).verdict is Verdict.NON_COMPLIANT

    def test_unless_it_is_a_cine(self) -> None:
        rules = rule('expect = { annotation = "text" }\nunless = { image = "cine" }')
        assert judge_instance(rules, image(1, frame(1), frame(2))).verdict is Verdict.NOT_APPLICABLE
        assert judge_instance(rules, image(1)).verdict is Verdict.NON_COMPLIANT

    @pytest.mark.parametrize("condition", ["min_age = 18", "max_age = 17"])
    def test_of_an_unknown_age_no_condition_on_ages_holds(self, condition: str) -> None:
        rules = rule(f'expect = {{ annotation = "text" }}\napplies_to = {{ {condition} }}')
        assert judge_instance(rules, image(1, patient_age=None)).verdict is Verdict.NOT_APPLICABLE


class TestExcuses:
    def judged(self, fields: str, day: date, more: str = "") -> Finding:
        rules = book(
            f'[[requirement]]\nid = "r"\ntitle = "A title"\nexpect = {{ annotation = "text" }}\n{fields}\n{more}'
        )
        return only(judge_instance(rules, image(1, study_date=day, words={"station": "US05"})))

    def test_a_rule_is_in_force_between_its_dates(self) -> None:
        dates = "effective_from = 2026-03-01\neffective_until = 2026-03-31"
        states = [self.judged(dates, date(2026, *day)).state for day in ((2, 28), (3, 1), (3, 31), (4, 1))]
        assert states == ["not_applicable", "missing", "missing", "not_applicable"]

    @pytest.mark.parametrize(("days", "severity"), [(30, "major"), (31, "info"), (99999999, "info")])
    def test_however_long_the_grace_period_is_it_is_judged(self, days: int, severity: str) -> None:
        fields = f"effective_from = 2026-03-01\ngrace_days = {days}"
        assert self.judged(fields, date(2026, 3, 31)).severity == severity

    def test_in_the_grace_period_a_lack_is_only_information(self) -> None:
        fields = "effective_from = 2026-03-01\ngrace_days = 14"
        assert self.judged(fields, date(2026, 3, 14)).severity is Severity.INFO
        assert self.judged(fields, date(2026, 3, 15)).severity is Severity.MAJOR

    def test_an_exemption_gives_its_reason(self) -> None:
        exempt = '[[requirement.exemptions]]\nmatch = { station = "US05" }\nreason = "the console draws no text"'
        finding = self.judged(exempt, date(2026, 3, 1))
        assert finding.state is FindingState.NOT_APPLICABLE
        assert finding.sentence == "A title is not asked for: exempt, the console draws no text (rule r)."

    def test_a_waiver_ends(self) -> None:
        until = 'until = 2026-03-31\nmatch = { station = "US05" }'
        waiver = f'[[waiver]]\nrequirement = "r"\nreason = "licence ordered"\n{until}'
        assert self.judged("", date(2026, 3, 31), waiver).state is FindingState.NOT_APPLICABLE
        assert self.judged("", date(2026, 4, 1), waiver).state is FindingState.MISSING

    def test_a_waiver_begins(self) -> None:
        days = "since = 2026-03-10\nuntil = 2026-03-31"
        waiver = f'[[waiver]]\nrequirement = "r"\nreason = "licence ordered"\n{days}'
        assert self.judged("", date(2026, 3, 9), waiver).state is FindingState.MISSING
        assert self.judged("", date(2026, 3, 10), waiver).state is FindingState.NOT_APPLICABLE


class TestVersions:
    def test_the_newest_version_counts_and_a_person_is_asked(self) -> None:
        old = image(1, frame(), words=BREAST, received="2026-01-01", conflict=True)
        new = image(1, frame(body_marker=0.9), words=BREAST, received="2026-01-02", conflict=True)
        outcome = judge_study(MARKER, study(new, old))
        assert outcome.verdict is Verdict.INDETERMINATE
        assert [(finding.requirement, finding.state) for finding in outcome.findings] == [
            ("one-version", FindingState.UNCERTAIN),
            ("rule", FindingState.MET),
        ]


class TestSeverity:
    def test_information_never_decides(self) -> None:
        rules = rule('severity = "info"\nexpect = { annotation = "text" }')
        outcome = judge_instance(rules, image(1))
        assert (outcome.verdict, only(outcome).state) == (Verdict.NOT_APPLICABLE, FindingState.MISSING)


class TestWhatTheHeaderRecords:
    NAMED = rule('expect = { header = { records = ["patient_name", "patient_id"], institution = "." } }')

    @pytest.mark.parametrize(
        ("records", "verdict"),
        [
            (("patient_id", "patient_name", "time"), Verdict.COMPLIANT),
            (("patient_name",), Verdict.NON_COMPLIANT),
            ((), Verdict.NON_COMPLIANT),
        ],
    )
    def test_each_must_hold_a_value(self, records: tuple[str, ...], verdict: Verdict) -> None:
        words = {"institution": ("North",), "records": records}
        assert judge_instance(self.NAMED, replace(image(), words=words)).verdict is verdict

    def test_a_requirement_may_be_for_such_images_only(self) -> None:
        only_named = rule('expect = { annotation = "text" }\napplies_to = { records = "time" }')
        assert judge_instance(only_named, image()).verdict is Verdict.NOT_APPLICABLE
        timed = replace(image(), words={"records": ("time",)})
        assert judge_instance(only_named, timed).verdict is Verdict.NON_COMPLIANT
        assert judge_study(only_named, study(image(1), replace(timed, number=2))).verdict is Verdict.NON_COMPLIANT
