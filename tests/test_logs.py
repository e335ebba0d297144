"""Logs go to standard error, whichever stream that is when a line is written."""

import io
import sys

import pytest

from service import logs


def test_a_stream_that_was_lent_and_closed_takes_no_logger_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lent, own = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", lent)
    logs.configure("test")
    log = logs.get("test")
    log.warning("first")
    monkeypatch.setattr(sys, "stderr", own)
    lent.close()
    log.warning("second")
    assert "second" in own.getvalue() and "role" in own.getvalue()
