"""The tables of docs/conformance.md, made from what the code accepts: ``python -m service.receive.conformance``."""

from service.receive.contexts import (
    COMPANIONS,
    LOSSLESS,
    LOSSY,
    SECONDARY_CAPTURE,
    ULTRASOUND,
    UNCOMPRESSED,
    VERIFICATION,
    VIDEO,
)
from service.receive.status import Status

MEANINGS = {
    Status.SUCCESS: "on disk, in the database and queued; the sender may delete its copy",
    Status.OUT_OF_RESOURCES: "disk full or above its watermark, storage error, database away; send again later",
    Status.DATA_SET_MISMATCH: "data set, command and presentation context disagree, or a UID is missing or none",
    Status.CANNOT_UNDERSTAND: "no data set, cut off, or sequences nested deeper than 32",
}


def tables() -> str:
    """SOP classes, transfer syntaxes in order of preference, and statuses, as Markdown."""
    classes = {VERIFICATION: "Verification", **ULTRASOUND, **SECONDARY_CAPTURE, **COMPANIONS}
    syntaxes = {**LOSSLESS, **LOSSY, **VIDEO, **UNCOMPRESSED}
    parts = [
        _table("SOP Classes accepted as SCP", ("SOP Class", "UID"), [(name, uid) for uid, name in classes.items()]),
        _table(
            "Transfer Syntaxes of storage, the preferred one first",
            ("Transfer Syntax", "UID"),
            [(name, uid) for uid, name in syntaxes.items()],
        ),
        _table(
            "C-STORE response statuses",
            ("Status", "Meaning"),
            [(f"0x{status:04X} {status.label}", MEANINGS[status]) for status in Status],
        ),
    ]
    return "\n".join(parts)


def _table(title: str, heads: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"### {title}", "", f"| {heads[0]} | {heads[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {left} | {right} |" for left, right in rows), ""])


if __name__ == "__main__":
    print(tables())  # noqa: T201 - its output is the document's
