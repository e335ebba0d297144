"""When a TLS certificate ends."""

from datetime import datetime
from pathlib import Path

from cryptography import x509

from service.errors import ConfigurationError


def end_of(file: Path) -> datetime:
    """The moment (UTC) at which the first certificate of a PEM chain ends.

    Raises ConfigurationError when the file cannot be read or holds none.
    """
    try:
        return first_end(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"The certificate {file} cannot be read: {error.strerror or error}.",
            cure="Correct the path in the settings, or the file's owner and mode.",
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"{file} holds no certificate.", cure="Give a certificate chain in PEM, the server's own first."
        ) from error


def first_end(pem: bytes) -> datetime:
    """The same of the chain's text. Raises ValueError when there is no certificate in it."""
    return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(pem))
