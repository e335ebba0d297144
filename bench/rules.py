"""What a rule book of 100 rules costs for a study: `python -m bench.rules [--images 10] [--studies 500]`.

The rules take every form a rule can take and are for ten kinds of exam, some for several of them; the studies'
headers come from 300 descriptions, as in a hospital. Printed are the times of the studies, evaluated one by one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from service.compliance.evaluate import judge_study
from service.compliance.facts import KINDS, FrameFacts, InstanceFacts, Mark, StudyFacts, Words, words_of
from service.compliance.rulebook import Rulebook, parse

EXAMS = ("breast", "thyroid", "carotid", "liver", "kidney", "testis", "venous", "obstetric", "hip", "appendix")
SHAPES = (
    'expect = {{ annotation = "{kind}" }}',
    'expect = {{ annotation = "{kind}" }}\nat_least = 2',
    'expect = {{ annotation = "{kind}" }}\nunless = {{ view = "biopsy|puncture" }}\ncine = "most"',
    'expect = {{ any_of = [{{ annotation = "{kind}" }}, {{ text = "unable to visuali[sz]e" }}] }}',
    'agree = [{{ region = "color_flow" }}, {{ annotation = "color_box" }}]',
    'pair = {{ one = {{ annotation = "caliper" }}, other = {{ without = "caliper" }}, same = ["view"] }}',
    'expect = {{ annotation = "{kind}" }}\neach_of = [{{ name = "left", match = {{ laterality = "L" }} }},'
    ' {{ name = "right", match = {{ laterality = "R" }} }}]',
    'expect = {{ annotation = "caliper", count = 4, clear_of = "text" }}\nseverity = "minor"',
)


def rulebook(rules: int) -> Rulebook:
    """A rule book of this many rules, over ten kinds of exam and every form a rule can take."""
    tables = ['name = "bench"', 'version = "1"']
    for number in range(rules):
        exam, kind = EXAMS[number % len(EXAMS)], KINDS[number % 3]
        form = SHAPES[number % len(SHAPES)].format(kind=kind)
        where = exam if number % 4 else f"{exam}|{EXAMS[(number + 1) % 10]}|{EXAMS[(number + 4) % 10]}"
        tables.append(f'[[requirement]]\nid = "r{number}"\ntitle = "Rule {number}"\n{form}')
        tables.append(f'applies_to = {{ exam = "{where}", modality = "US" }}')
    return parse("\n".join(tables))


def study(number: int, images: int, dice: random.Random) -> StudyFacts:
    """A study of one exam; a tenth of its images are cines of twelve sampled frames."""
    exam = dice.choice(EXAMS)
    headers = [
        words_of(
            {},
            study_description=f"US {exam.upper()} {number % 30}",
            series_description=f"{exam} {number % 7}",
            view=view,
            laterality=side,
            modality="US",
            station=f"US{number % 40:02d}",
        )
        for side in "LR"
        for view in ("long", "trans")
    ]
    return StudyFacts(
        f"1.2.{number}", tuple(_image(number, place, dice.choice(headers), dice) for place in range(1, images + 1))
    )


def _image(study: int, place: int, words: Words, dice: random.Random) -> InstanceFacts:
    frames = 12 if dice.random() < 0.1 else 1
    return InstanceFacts(
        f"1.2.{study}.{place}",
        place,
        words,
        number_of_frames=frames,
        frames=tuple(_frame(number, dice) for number in range(1, frames + 1)),
        bands=dict.fromkeys(KINDS, (0.3, 0.6)),
    )


def _frame(number: int, dice: random.Random) -> FrameFacts:
    scores: dict[str, float] = {kind: dice.random() for kind in KINDS}
    marks = [Mark(kind, score, (dice.randrange(700), dice.randrange(500), 30, 30)) for kind, score in scores.items()]
    return FrameFacts(number, scores, tuple(mark for mark in marks if mark.score >= 0.6))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rules", type=int, default=100)
    options.add_argument("--images", type=int, default=10)
    options.add_argument("--studies", type=int, default=500)
    given = options.parse_args()
    dice = random.Random(7)
    book = rulebook(given.rules)
    studies = [study(number, given.images, dice) for number in range(given.studies)]
    took, cpu, findings = [], time.process_time(), 0
    for each in studies:
        started = time.perf_counter()
        findings += len(judge_study(book, each).findings)
        took.append(1000 * (time.perf_counter() - started))
    cpu = time.process_time() - cpu
    took.sort()
    print(f"{given.rules} rules, {given.images} images a study, {findings / given.studies:.0f} findings a study")
    print(f"median {statistics.median(took):.2f} ms, p95 {took[int(0.95 * len(took))]:.2f} ms a study;")
    print(f"processor time {1000 * cpu / given.studies:.2f} ms a study")


if __name__ == "__main__":
    main()
