"""One file's answer, as ``sonomark assess --json`` prints it: the same analysis and rules, without any server."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.analyse.pipeline import AssessedFrame, Assessment, Pipeline
from service.compliance.evaluate import judge_instance
from service.compliance.facts import FrameFacts, InstanceFacts, Mark, Words, age_of, regions_of, words_of
from service.compliance.outcome import Outcome
from service.compliance.rulebook import Rulebook
from service.dicom.header import Header, read_header
from service.errors import NotDicom, SonomarkError

Answer = dict[str, Any]


def answer(pipeline: Pipeline, rulebook: Rulebook, path: Path) -> Answer:
    """Assess and judge one file; what cannot be assessed has ``error`` set and no verdict."""
    found: Answer = {
        "path": str(path),
        "sop_instance_uid": None,
        "verdict": None,
        "network": pipeline.version,
        "frames": [],
        "findings": [],
        "error": None,
    }
    try:
        assessment = pipeline.assess(path)
        outcome = judge_instance(rulebook, _facts(path, assessment))
    except (SonomarkError, OSError) as error:
        return {**found, "error": str(error)}
    return {
        **found,
        "sop_instance_uid": assessment.sop_instance_uid or None,
        "verdict": outcome.verdict.value,
        "frames": [_frame(frame) for frame in assessment.frames],
        "findings": _findings(outcome),
    }


def answers(pipeline: Pipeline, rulebook: Rulebook, paths: Sequence[Path], at_once: int) -> Iterator[Answer]:
    """`answer` for many files, ``at_once`` of them at the same time, in the order of the files."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="assess")
    try:
        yield from pool.map(lambda path: answer(pipeline, rulebook, path), paths)
    finally:
        pool.shutdown(cancel_futures=True)


def _frame(frame: AssessedFrame) -> Answer:
    return {
        "frame": frame.number,
        "rows": frame.rows,
        "columns": frame.columns,
        "annotations": [{**asdict(mark), "box": list(mark.box)} for mark in frame.annotations],
        "scores": frame.scores,
    }


def _findings(outcome: Outcome) -> list[Answer]:
    return [
        {key: finding.as_json()[key] for key in ("requirement", "state", "severity", "sentence")}
        for finding in outcome.findings
    ]


def _facts(path: Path, assessment: Assessment) -> InstanceFacts:
    header = _header(path)
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
                tuple(Mark(mark.kind.value, mark.score, mark.box) for mark in frame.annotations),
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
    return words_of(
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
