import sys

# pydicom loads an HTTP client for the sample files it could download. A receiver downloads none, and its memory is
# budgeted: 4 MB less.
_absent = "requests" not in sys.modules
if _absent:
    sys.modules["requests"] = None  # type: ignore[assignment]  # an import of it fails, and pydicom forgives that
try:
    import pydicom.data.download  # noqa: F401
finally:
    if _absent:
        del sys.modules["requests"]
