"""A mail for each flagged study, without patient data: what is missing, on which station, and where to look."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime

from service.db.tables import now
from service.errors import ConfigurationError, PeerError, PeerRefused
from service.settings import Settings

TIMEOUT_S = 15.0


def send(to: str, subject: str, text: str, *, number: int, by: Settings) -> None:
    """Hand a mail to the server that the settings name; ``number`` makes its Message-ID, so that a repeat is one.

    Raises ConfigurationError without a server, PeerError when it does not take the mail.
    """
    if not by.smtp_host:
        raise ConfigurationError("No mail server is set.", cure="Set SONOMARK_SMTP_HOST.")
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, by.mail_from, to
    message["Message-ID"] = f"<sonomark-{number}@{by.mail_from.rpartition('@')[2]}>"
    message["Date"] = format_datetime(now())
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    try:
        with _server(by) as server:
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        kind = PeerRefused if isinstance(error, smtplib.SMTPDataError) else PeerError  # of this mail alone, or of all
        raise kind(
            f"The mail server did not take the mail ({_why(error)}).",
            cure="Look at SONOMARK_SMTP_HOST and the server's log.",
        ) from error


def _server(by: Settings) -> smtplib.SMTP:
    host, _, port = by.smtp_host.partition(":")
    context = ssl.create_default_context()
    if by.smtp_security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port or 465), timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(host, int(port or 587), timeout=TIMEOUT_S)
    if by.smtp_security == "starttls":
        server.starttls(context=context)
    if by.smtp_user:
        server.login(by.smtp_user, by.smtp_password)
    return server


def _why(error: Exception) -> str:
    """The server's status, never its text, which may quote what was sent."""
    code = getattr(error, "smtp_code", None)
    return f"{type(error).__name__} {code}" if code else type(error).__name__
