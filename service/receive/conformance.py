"""The tables of docs/conformance.md, made from what the code accepts: ``python -m service.receive.conformance``."""

from service.receive.commitment import Failure, Refusal
from service.receive.contexts import (
    COMPANIONS,
    LOSSLESS,
    LOSSY,
    SECONDARY_CAPTURE,
    STORAGE_COMMITMENT,
    ULTRASOUND,
    UNCOMPRESSED,
    VERIFICATION,
    VIDEO,
)
from service.receive.status import Status

MEANINGS = {
    Status.SUCCESS: "on disk, in the database and queued; the sender may delete its copy",
    Status.NOT_AUTHORIZED: "called as SONOMARK_TEST from another machine of the house, "
    "and it is not the study of a self-test under way",
    Status.OUT_OF_RESOURCES: "disk full or above its watermark, storage error, database away; send again later",
    Status.DATA_SET_MISMATCH: "data set, command and presentation context disagree, or a UID is missing or none",
    Status.CANNOT_UNDERSTAND: "no data set, cut off, or sequences nested deeper than 32",
}

REFUSALS = {
    Refusal.NO_SUCH_INSTANCE: "not the well-known instance of the push model",
    Refusal.INVALID_ARGUMENT: "no transaction UID, no instances, or a data set that cannot be read",
    Refusal.NO_SUCH_ACTION: "another action type than 1",
    Refusal.PROCESSING_FAILURE: "database away; ask again later",
    Refusal.RESOURCE_LIMITATION: "more than 10,000 instances, or more than 100 requests of this peer wait",
}
FAILURES = {
    Failure.PROCESSING_FAILURE: "its bytes are missing or not those that came; send it again",
    Failure.NO_SUCH_OBJECT_INSTANCE: "not stored here",
    Failure.CLASS_INSTANCE_CONFLICT: "stored, but as an instance of another SOP class",
}


def tables() -> str:
    """SOP classes, transfer syntaxes in order of preference, and statuses, as Markdown."""
    services = {VERIFICATION: "Verification", STORAGE_COMMITMENT: "Storage Commitment Push Model"}
    classes = {**services, **ULTRASOUND, **SECONDARY_CAPTURE, **COMPANIONS}
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
        _table(
            "N-ACTION response statuses of storage commitment, besides 0x0000",
            ("Status", "Meaning"),
            [(f"0x{status:04X} {status.name.lower()}", REFUSALS[status]) for status in Refusal],
        ),
        _table(
            "Failure reasons in storage commitment reports",
            ("Reason", "Meaning"),
            [(f"0x{reason:04X} {reason.name.lower()}", FAILURES[reason]) for reason in Failure],
        ),
    ]
    return "\n".join(parts)


def _table(title: str, heads: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"### {title}", "", f"| {heads[0]} | {heads[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {left} | {right} |" for left, right in rows), ""])


if __name__ == "__main__":
    print(tables())  # noqa: T201 - its output is the document's
