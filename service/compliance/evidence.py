"""The frames behind a finding, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.compliance.answers import Answer
from service.compliance.facts import FrameFacts, InstanceFacts, Presence
from service.compliance.truth import Truth

_DIGITS = 4  # of a score
_MOST_FRAMES = 200  # listed for one finding
_MOST_SHOWING = 10  # of them images that meet the requirement


def evidence_of(answers: Sequence[Answer], kinds: Sequence[str]) -> dict[str, Any]:
    """``images``: how many were considered, met, missing, uncertain; ``frames``: the frames to look at.

    A frame is ``{sop_instance_uid, frame, kind, score, presence}``. Of an image that meets the requirement the frame
    with the best score is listed, of any other every assessed frame; where that gets long the counts alone are whole.
    """
    truths = [answer.truth for answer in answers]
    met, missing = truths.count(Truth.YES), truths.count(Truth.NO)
    counts = {"considered": len(truths), "met": met, "missing": missing, "uncertain": len(truths) - met - missing}
    frames: list[dict[str, Any]] = []
    for telling in (Truth.NO, Truth.UNSURE, Truth.SILENT):
        for answer in answers:
            if answer.truth is telling:
                frames += _frames(answer.image, kinds, best_only=False)
    showing = [answer.image for answer in answers if answer.truth is Truth.YES]
    for image in showing[:_MOST_SHOWING]:
        frames += _frames(image, kinds, best_only=True)
    return {"images": counts, "frames": frames[:_MOST_FRAMES]}


def _frames(image: InstanceFacts, kinds: Sequence[str], *, best_only: bool) -> Sequence[dict[str, Any]]:
    if not image.frames or not kinds:
        return [{"sop_instance_uid": image.sop_instance_uid, "frame": None}]
    if len(kinds) == 1:
        return _frames_by(image, kinds[0], best_only)
    return [entry for kind in kinds for entry in _frames_by(image, kind, best_only)]


def _frames_by(image: InstanceFacts, kind: str, best_only: bool) -> list[dict[str, Any]]:
    known: list[dict[str, Any]] | None = image.memo.get(("evidence", kind, best_only))
    if known is None:
        frames = image.frames
        if best_only and len(frames) > 1:
            frames = (max(frames, key=lambda frame: (frame.scores.get(kind, 0.0), -frame.number)),)
        known = [_entry(image, frame, kind) for frame in frames]
        image.memo["evidence", kind, best_only] = known
    return known


def _entry(image: InstanceFacts, frame: FrameFacts, kind: str) -> dict[str, Any]:
    presence = frame.presence(kind, image.bands)
    score = frame.scores.get(kind)
    entry: dict[str, Any] = {
        "sop_instance_uid": image.sop_instance_uid,
        "frame": frame.number,
        "kind": kind,
        "score": None if score is None else round(score, _DIGITS),
        "presence": presence.value,
    }
    if presence is Presence.UNCERTAIN and kind in image.bands:
        entry["band"] = list(image.bands[kind])
    return entry
