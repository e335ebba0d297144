"""The one tree of errors.

Every error says what happened, to which file or instance, and what to do about it; the message never holds
patient data (identify instances by SOP Instance UID or by path).

    SonomarkError
    ├── ConfigurationError          a setting is wrong or missing
    │   ├── SchemaError             the database schema is missing, too old or too new
    │   ├── NetworkError            weights missing, damaged or not what their card says
    │   ├── RulebookError           a rule book cannot be used; names file, line and field
    │   └── PolicyError             a retention policy cannot be used; names the place
    ├── DicomError                  the bytes are not what they claim to be
    │   ├── NotDicom                not a DICOM data set at all
    │   ├── DataSetMismatch         data set and C-STORE command disagree
    │   └── Undecodable             pixels missing, oversized or not decodable
    │       └── DecoderFailed       the decoder crashed, hung or ran out of memory
    ├── StorageError                the archive cannot keep or return bytes
    │   ├── OutOfSpace              the disk is full or above its watermark
    │   ├── DiskFault               the disk failed: what was not synced before is in doubt
    │   ├── NotArchived             the archive answers, and does not have the object (yet)
    │   ├── Unreadable              a file is there and cannot be read now
    │   └── DamagedObject           stored bytes no longer match their digest
    ├── DatabaseAway                the database does not answer
    │   └── OutcomeUnknown          … to a commit: its rows may be there or not
    ├── BrokerAway                  the message broker does not answer
    ├── LeaseLost                   another worker holds the analysis now
    ├── PeerError                   another system refused or did not answer
    │   └── PeerRefused             it answers, and does not take this
    ├── NotFound                    no such study, instance, frame, user …
    ├── Conflict                    somebody changed it in the meantime
    └── NotAllowed                  the account may not do this
"""


class SonomarkError(Exception):
    """What happened, and (``cure``) what to do about it."""

    cure: str = ""

    def __init__(self, what: str, *, cure: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        if cure is not None:
            self.cure = cure

    def __str__(self) -> str:
        return f"{self.what} {self.cure}".rstrip()


class ConfigurationError(SonomarkError):
    """A setting is wrong or missing."""


class SchemaError(ConfigurationError):
    """The database schema does not fit this version of the code."""

    cure = "Run `sonomark migrate`."


class NetworkError(ConfigurationError):
    """The network's weights are missing, damaged or not what their card says."""


class RulebookError(ConfigurationError):
    """A rule book cannot be used."""


class PolicyError(ConfigurationError):
    """A retention policy cannot be used."""


class DicomError(SonomarkError):
    """The bytes are not what they claim to be."""


class NotDicom(DicomError):
    """Not a DICOM data set at all."""

    cure = "Send the original DICOM file from the modality or the PACS."


class DataSetMismatch(DicomError):
    """Data set and C-STORE command, or data set and itself, disagree."""

    cure = "Send the file as the modality made it; if that is what came, tell the sender's vendor."


class Undecodable(DicomError):
    """Pixels are missing, oversized or in a syntax that no decoder here reads."""


class DecoderFailed(Undecodable):
    """The decoder process crashed, hung or ran out of memory; the machine may be to blame, so another try may help."""


class StorageError(SonomarkError):
    """The archive cannot keep or return bytes."""

    cure = "Look at the archive's disk and the kernel's log. Nothing was acknowledged: the sender brings it again."


class OutOfSpace(StorageError):
    """The disk is full or above its watermark."""

    cure = "Free space on the archive's file system; the sender's retry will then succeed."


class DiskFault(StorageError):
    """The disk failed: what had been written and not synced is in doubt, and a second sync would not tell."""

    cure = "Look at the kernel's log and the disk's own health, and replace the disk."


class NotArchived(StorageError):
    """The archive answers, and does not have the object: it is still on its way, or lost."""

    cure = "If it was received a moment ago it is on its way; else `sonomark archive reconcile` says more."


class Unreadable(StorageError):
    """A file is there and cannot be read now, which says nothing about what is in it."""

    cure = "Look at the disk, at the kernel's log and at who may read the file; the worker tries again by itself."


class DamagedObject(StorageError):
    """Stored bytes no longer match the digest taken when they arrived."""

    cure = "Restore the object from backup or ask the modality or PACS to send it again."


class DatabaseAway(SonomarkError):
    """The database does not answer."""

    cure = "Check that the database runs and that SONOMARK_DATABASE_URL and its password are right."


class OutcomeUnknown(DatabaseAway):
    """The commit got no answer, or could not be synced: its rows may be there or not."""


class BrokerAway(SonomarkError):
    """The message broker does not answer; the sweeper will queue the work again."""

    cure = "Check that the broker runs and that SONOMARK_BROKER_URL and its password are right."


class LeaseLost(SonomarkError):
    """Another worker holds the analysis now; what this one computed is dropped."""

    cure = "Nothing need be done: the other worker finishes it."


class PeerError(SonomarkError):
    """Another system, mostly a DICOM node, refused or did not answer."""

    cure = "Look at the other system's own log, and at what it expects of Sonomark."


class PeerRefused(PeerError):
    """It answers, and does not take this; it may well take other things."""


class NotFound(SonomarkError):
    """There is no such study, instance, frame, user …"""

    cure = "Check how it is named; it may have been removed, or belong to a site that this account does not see."


class Conflict(SonomarkError):
    """Somebody changed it in the meantime."""


class NotAllowed(SonomarkError):
    """Whoever asks may not do this."""
