"""What must hold for every rule book and every study."""

import json
from dataclasses import replace
from functools import lru_cache

from hypothesis import given
from hypothesis import strategies as st

from service.compliance.evaluate import judge_instance, judge_study
from service.compliance.facts import FrameFacts, HeaderRegion, InstanceFacts, Mark, StudyFacts
from service.compliance.outcome import Outcome, Verdict
from service.compliance.rulebook import Rulebook, parse

KINDS = ("body_marker", "caliper", "color_box", "text")
BANDS = dict.fromkeys(KINDS, (0.3, 0.6))
# From bad to good; not_applicable says nothing, so that an answer to it is no worsening.
ORDER = [Verdict.NON_COMPLIANT, Verdict.INDETERMINATE, Verdict.COMPLIANT]

RISING = [
    'expect = { annotation = "caliper" }',
    'expect = { without = "text" }',
    'expect = { annotation = "body_marker" }\napplies_to = { exam = "breast" }',
    'expect = { annotation = "caliper", count = 2 }\nat_least = 2',
    'expect = { annotation = "color_box" }\nat_least = 1\napplies_to = { view = "long" }',
    'expect = { any_of = [{ annotation = "text" }, { text = "rt" }] }\nseverity = "minor"',
    'expect = { annotation = "color_box" }\neach_of = [{ name = "l", match = { laterality = "L" } },'
    ' { name = "r", match = { laterality = "R" } }]',
    'agree = [{ region = "color_flow" }, { annotation = "color_box" }]',
]
FALLING = [
    'expect = { annotation = "caliper" }\nat_most = 1',
    'expect = { annotation = "caliper" }\nexactly = 2',
    'pair = { one = { annotation = "caliper" }, other = { without = "caliper" }, same = ["view"] }',
]


rulebook = lru_cache(parse)


def books(rules: list[str]) -> st.SearchStrategy[Rulebook]:
    def bound(chosen: list[str]) -> Rulebook:
        tables = [f'[[requirement]]\nid = "r{n}"\ntitle = "Title"\n{fields}' for n, fields in enumerate(chosen)]
        return rulebook("\n".join(['name = "t"', 'version = "1"', *tables]))

    return st.lists(st.sampled_from(rules), min_size=1, max_size=5).map(bound)


scores = st.sampled_from([0.0, 0.29, 0.3, 0.45, 0.6, 1.0])
marks = st.builds(
    Mark, st.sampled_from(KINDS), scores, st.just((0, 0, 9, 9)), st.sampled_from(["network", "person"]), st.just("rt")
)
frames = st.builds(
    FrameFacts,
    st.integers(1, 40),
    st.dictionaries(st.sampled_from(KINDS), scores),
    st.lists(marks, max_size=3).map(tuple),
    st.booleans(),
)
words = st.fixed_dictionaries(
    {},
    optional={
        "exam": st.sampled_from([("breast",), ("liver",)]),
        "view": st.sampled_from([("long",), ("trans",)]),
        "laterality": st.sampled_from([("L",), ("R",)]),
    },
)
images = st.builds(
    InstanceFacts,
    sop_instance_uid=st.integers(1, 9).map(str),
    number=st.none() | st.integers(1, 9),
    words=words,
    regions=st.sampled_from([None, (HeaderRegion("color_flow"),), (HeaderRegion("tissue"),)]),
    frames=st.lists(frames, min_size=1, max_size=3, unique_by=lambda frame: frame.number).map(tuple),
    bands=st.just(BANDS),
    assessed=st.booleans(),
    reason=st.just("Damaged."),
    received=st.integers(1, 10**9).map(str),
)
studies = st.lists(images, max_size=6, unique_by=lambda image: image.received)


def single(some: list[InstanceFacts]) -> list[InstanceFacts]:
    return [*{image.sop_instance_uid: image for image in some}.values()]


def written(outcome: Outcome) -> str:
    """All that is kept of an outcome."""
    return json.dumps([outcome.verdict, *(finding.as_json() for finding in outcome.findings)], sort_keys=True)


@given(books(RISING + FALLING), studies, st.randoms())
def test_the_order_of_instances_never_matters(rules: Rulebook, some: list[InstanceFacts], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (judge_study(rules, StudyFacts("1", tuple(order))) for order in (some, shuffled))
    assert written(one) == written(other)


@given(books(RISING), studies, images)
def test_a_compliant_image_never_makes_a_study_worse(
    rules: Rulebook, some: list[InstanceFacts], further: InstanceFacts
) -> None:
    some = [image for image in single(some) if image.sop_instance_uid != further.sop_instance_uid]
    if judge_instance(rules, further).verdict is not Verdict.COMPLIANT:
        return
    if some and not any(image.assessed for image in some):
        return  # it was indeterminate for want of any answer, whatever else may be known to be missing
    before = judge_study(rules, StudyFacts("1", tuple(some))).verdict
    after = judge_study(rules, StudyFacts("1", (*some, further))).verdict
    if before in ORDER:
        assert ORDER.index(after) >= ORDER.index(before)


@given(books(RISING + FALLING), studies)
def test_a_failed_step_is_never_compliant(rules: Rulebook, some: list[InstanceFacts]) -> None:
    outcome = judge_study(rules, StudyFacts("1", tuple(some)))
    newest = StudyFacts("1", tuple(some)).newest_versions()
    if not all(image.assessed for image in newest):
        assert outcome.verdict in (Verdict.NON_COMPLIANT, Verdict.INDETERMINATE)
    if newest and not any(image.assessed for image in newest):
        assert outcome.verdict is Verdict.INDETERMINATE


@given(books(RISING + FALLING), images)
def test_a_failed_image_decides_nothing_by_itself(rules: Rulebook, image: InstanceFacts) -> None:
    if not image.assessed:
        assert judge_instance(rules, image).verdict is Verdict.INDETERMINATE


MEASURED = [
    "expect = { measurements = 1 }",
    'when = { measurements = 1 }\nexpect = { annotation = "text" }',
    'when = { annotation = "caliper" }\nexpect = { annotation = "text" }\nat_least = 1',
    'expect = { none_of = [{ annotation = "caliper", found_in = "sr" }] }',
]

looked_at = st.builds(
    FrameFacts,
    st.just(1),
    st.fixed_dictionaries(dict.fromkeys(KINDS, st.sampled_from([0.0, 0.45, 1.0]))),
    text_read=st.just(True),
)
assessed = st.builds(
    InstanceFacts,
    sop_instance_uid=st.integers(1, 9).map(str),
    words=words,
    regions=st.sampled_from([None, (HeaderRegion("color_flow"),)]),
    frames=st.tuples(looked_at),
    bands=st.just(BANDS),
)


@given(
    books(RISING + FALLING + MEASURED),
    st.lists(st.tuples(assessed, st.integers(0, 2)), max_size=3, unique_by=lambda pair: pair[0].sop_instance_uid),
)
def test_a_report_that_could_not_be_read_makes_nothing_missing(
    rules: Rulebook, some: list[tuple[InstanceFacts, int]]
) -> None:
    """Whatever it says: what is met once it is read is never missing while it is not."""
    read = [replace(image, frames=measuring(image.frames, count), measurements=count, memo={}) for image, count in some]
    unread = [replace(image, unread=frozenset({"sr"}), memo={}) for image, _ in some]
    met = states(judge_study(rules, StudyFacts("1", tuple(read))), "met")
    assert not met & states(judge_study(rules, StudyFacts("1", tuple(unread))), "missing")


def measuring(frames: tuple[FrameFacts, ...], count: int) -> tuple[FrameFacts, ...]:
    marks = (Mark("caliper", 1.0, (0, 0, 9, 9), "sr"),) * count
    return tuple(replace(frame, annotations=(*frame.annotations, *marks)) for frame in frames)


def states(outcome: Outcome, state: str) -> set[str]:
    return {finding.requirement for finding in outcome.findings if finding.state == state}


@given(books(RISING + FALLING), studies)
def test_the_same_input_gives_the_same_bytes(rules: Rulebook, some: list[InstanceFacts]) -> None:
    study = StudyFacts("1", tuple(some))
    again = parse(rules.toml)
    assert written(judge_study(rules, study)) == written(judge_study(again, study))
