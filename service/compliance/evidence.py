"""The frames behind a finding, as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from service.compliance.answers import Answer
from service.compliance.facts import FrameFacts, InstanceFacts, Presence
from service.compliance.truth import Truth

_DIGITS = 4  # of a score
_MOST_FRAMES = 200  # listed for one finding; the counts are always complete


def evidence_of(answers: Sequence[Answer], kinds: Sequence[str]) -> dict[str, Any]:
    """``images``: how many were considered, met, missing, uncertain; ``frames``: the frames to look at.

    A frame is ``{sop_instance_uid, frame, kind, score, presence}``. Of an image that meets the requirement the frame
    with the best score is listed, of any other every assessed frame.
    """
    truths = [answer.truth for answer in answers]
    met, missing = truths.count(Truth.YES), truths.count(Truth.NO)
    counts = {"considered": len(truths), "met": met, "missing": missing, "uncertain": len(truths) - met - missing}
    telling = sorted(answers, key=lambda answer: _ORDER[answer.truth])  # stable: reading order within
    frames = [frame for answer in telling for frame in _frames(answer, kinds)]
    return {"images": counts, "frames": frames[:_MOST_FRAMES]}


_ORDER = {Truth.NO: 0, Truth.UNSURE: 1, Truth.SILENT: 1, Truth.YES: 2}


def _frames(answer: Answer, kinds: Sequence[str]) -> Iterable[dict[str, Any]]:
    image = answer.image
    if not image.frames or not kinds:
        yield {"sop_instance_uid": image.sop_instance_uid, "frame": None}
        return
    for kind in kinds:
        frames = image.frames
        if answer.truth is Truth.YES:
            frames = (max(frames, key=lambda frame: (frame.scores.get(kind, 0.0), -frame.number)),)
        for frame in frames:
            yield _entry(image, frame, kind)


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
