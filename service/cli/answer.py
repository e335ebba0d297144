"""One file's answer, as ``sonomark assess --json`` prints it: the same analysis and rules, without any server."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from service.analyse.pipeline import AssessedFrame, Assessment, Pipeline
from service.compliance.evaluate import judge_instance, judge_study
from service.compliance.facts import (
    FrameFacts,
    InstanceFacts,
    Mark,
    StudyFacts,
    Words,
    age_of,
    measurements_of,
    place_of,
    records_of,
    regions_of,
    with_remarks,
    words_of,
)
from service.compliance.outcome import Outcome
from service.compliance.rulebook import Rulebook
from service.dicom.header import Header, read_header
from service.dicom.remarks import Remark, Source, is_read, read_remarks, source_of
from service.errors import NotDicom, SonomarkError

Answer = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One file: its line, what rules may ask of it, and what it says of other files. Where it failed the line says so,
    and facts, if it has a header at all, are for its study."""

    line: Answer
    facts: InstanceFacts | None = None
    remarks: Sequence[Remark] = ()


def answers(pipeline: Pipeline, rulebook: Rulebook, paths: Sequence[Path], at_once: int) -> Iterator[Answer]:
    """Assess and judge files, ``at_once`` of them at the same time; what cannot be assessed has ``error`` set.

    Files of one study are judged together too, as the line's ``study`` says; their lines come when the last of them
    is assessed.
    """
    studies = [_study_of(path) for path in paths]
    left = Counter(studies)
    waiting: dict[str, list[Seen]] = defaultdict(list)
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="assess")
    try:
        for study, seen in zip(studies, pool.map(lambda path: _seen(pipeline, path), paths), strict=True):
            if not study:
                yield from _judged(rulebook, study, [seen])
                continue
            waiting[study].append(seen)
            left[study] -= 1
            if not left[study]:
                yield from _judged(rulebook, study, waiting.pop(study))
    finally:
        pool.shutdown(cancel_futures=True)


def answer(pipeline: Pipeline, rulebook: Rulebook, path: Path) -> Answer:
    """The same for one file by itself."""
    (line,) = answers(pipeline, rulebook, [path], 1)
    return line


def _seen(pipeline: Pipeline, path: Path) -> Seen:
    line: Answer = {
        "path": str(path),
        "sop_instance_uid": None,
        "verdict": None,
        "network": pipeline.version,
        "frames": [],
        "findings": [],
        "study": None,
        "error": None,
    }
    header = None
    try:
        header = _header(path)
        if header is not None and not header.instance.get("number_of_frames") and is_read(header.sop_class_uid):
            line["sop_instance_uid"] = header.sop_instance_uid or None
            says = source_of(header.sop_class_uid)
            facts = InstanceFacts(header.sop_instance_uid, number_of_frames=0, says=says)
            return Seen(line, facts, read_remarks(path))
        assessment = pipeline.assess(path)
    except (SonomarkError, OSError) as error:
        return Seen({**line, "error": str(error)}, header and _failed(header, error))
    line["sop_instance_uid"] = assessment.sop_instance_uid or None
    line["frames"] = [_frame(frame) for frame in assessment.frames]
    return Seen(line, _facts(header, assessment))


def _judged(rulebook: Rulebook, study: str, files: Sequence[Seen]) -> Iterator[Answer]:
    """The lines of a study's files, with the verdict on each and on all of them together."""
    said: dict[str, list[Remark]] = defaultdict(list)
    for remark in (remark for file in files for remark in file.remarks):
        said[remark.sop_instance_uid].append(remark)
    measured = any(remark.source == "sr" for of in said.values() for remark in of)
    failed = [file.facts for file in files if file.facts and not file.facts.assessed]
    unread = frozenset(facts.says for facts in failed if facts.says)
    images = [
        file.facts and _with_remarks(file.facts, said[file.facts.sop_instance_uid], measured, unread) for file in files
    ]
    whole = judge_study(rulebook, StudyFacts(study, tuple(image for image in images if image is not None)))
    together = {"study_instance_uid": study or None, "verdict": whole.verdict.value, "findings": _findings(whole)}
    for file, image in zip(files, images, strict=True):
        if image is None or not image.assessed:
            yield file.line
            continue
        outcome = judge_instance(rulebook, image)
        yield {
            **file.line,
            "verdict": outcome.verdict.value,
            "findings": _findings(outcome),
            "study": together if study else None,
        }


def _with_remarks(
    image: InstanceFacts, said: Sequence[Remark], measured: bool, unread: frozenset[Source]
) -> InstanceFacts:
    count = measurements_of(said) if measured else None
    return replace(image, frames=with_remarks(image.frames, said), measurements=count, unread=unread)


def _study_of(path: Path) -> str:
    """The Study Instance UID; '' and alone for a file that has none."""
    try:
        header = read_header(path)
    except (SonomarkError, OSError):
        return ""
    return header.study_instance_uid


def _frame(frame: AssessedFrame) -> Answer:
    return {
        "frame": frame.number,
        "rows": frame.rows,
        "columns": frame.columns,
        "annotations": [
            {**asdict(mark), "box": list(mark.box), "found_in": place_of(mark.source)} for mark in frame.annotations
        ],
        "scores": frame.scores,
        "text_read": frame.text_read,
    }


def _findings(outcome: Outcome) -> list[Answer]:
    return [
        {key: finding.as_json()[key] for key in ("requirement", "state", "severity", "sentence")}
        for finding in outcome.findings
    ]


def _failed(header: Header, error: SonomarkError | OSError) -> InstanceFacts:
    """Of a file that could not be assessed: what its header says, and why nothing is known of the rest."""
    frames = header.instance.get("number_of_frames") or 0
    return InstanceFacts(
        sop_instance_uid=header.sop_instance_uid,
        number=header.instance.get("instance_number"),
        words=_words(header),
        regions=regions_of(header.facts),
        number_of_frames=frames,
        says=None if frames else source_of(header.sop_class_uid),
        assessed=False,
        reason=str(error) if isinstance(error, SonomarkError) else "Its file cannot be read.",
        study_date=header.study.get("study_date"),
        patient_age=age_of(str(header.facts.get("patient_age", ""))),
    )


def _facts(header: Header | None, assessment: Assessment) -> InstanceFacts:
    kept = header.facts if header else {}
    return InstanceFacts(
        sop_instance_uid=assessment.sop_instance_uid,
        number=header.instance.get("instance_number") if header else None,
        words=_words(header) if header else {},
        regions=regions_of(kept),
        number_of_frames=assessment.number_of_frames,
        frames=tuple(
            FrameFacts(
                frame.number,
                frame.scores,
                tuple(
                    Mark(mark.kind.value, mark.score, mark.box, mark.source, mark.text) for mark in frame.annotations
                ),
                frame.text_read,
            )
            for frame in assessment.frames
        ),
        bands=assessment.bands,
        study_date=header.study.get("study_date") if header else None,
        patient_age=age_of(str(kept.get("patient_age", ""))),
    )


def _header(path: Path) -> Header | None:
    """None for a PNG or JPEG, which says nothing about the exam."""
    try:
        return read_header(path)
    except NotDicom:
        return None


def _words(header: Header) -> Words:
    study, series = header.study, header.series
    told = words_of(
        header.facts,
        study_description=study.get("description", ""),
        series_description=series.get("description", ""),
        body_part=[study.get("body_part", ""), series.get("body_part", "")],
        procedure=study.get("procedure", ""),
        laterality=series.get("laterality", ""),
        modality=series.get("modality", ""),
        station=study.get("station", ""),
        institution=study.get("institution", ""),
        operator=study.get("operator", ""),
        patient_sex=study.get("patient_sex", ""),
    )
    return {**told, **records_of(header.facts, study)}
