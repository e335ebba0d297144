"""From headers and columns to what rules may ask."""

from datetime import date

import pytest

from service.compliance.facts import (
    FrameFacts,
    HeaderRegion,
    Presence,
    age_in_years,
    age_of,
    records_of,
    regions_of,
    words_of,
)


def test_words_are_gathered_from_header_and_columns_without_doubles() -> None:
    header = {
        "study_description": "US BREAST",
        "procedure_codes": [{"value": "76642", "scheme": "C4", "meaning": "US breast limited"}],
        "view_codes": [{"value": "399368009", "scheme": "SCT", "meaning": "medio-lateral oblique"}],
        "image_laterality": "L",
        "image_type": ["ORIGINAL", "PRIMARY"],
        "mechanical_index": 0.9,
    }
    words = words_of(header, study_description="US BREAST", laterality="L", station="US02", operator="")
    assert words["study_description"] == ("US BREAST",)
    assert words["procedure"] == ("76642", "US breast limited")
    assert words["laterality"] == ("L",)
    assert words["station"] == ("US02",)
    assert set(words["exam"]) == {
        "US BREAST", "76642", "US breast limited", "399368009", "medio-lateral oblique", "ORIGINAL", "PRIMARY",
    }  # fmt: skip
    assert "operator" not in words
    assert "mechanical_index" not in words


def test_regions() -> None:
    header = {
        "regions": [{"data_type": 2, "kind": "color_flow", "x0": 1, "y0": 2, "x1": 3, "y1": 4}, {"kind": "other"}]
    }
    assert regions_of(header) == (HeaderRegion("color_flow", (1, 2, 3, 4)), HeaderRegion("other"))
    assert regions_of({}) is None


@pytest.mark.parametrize(
    ("score", "presence"),
    [(0.29, Presence.ABSENT), (0.3, Presence.UNCERTAIN), (0.59, Presence.UNCERTAIN), (0.6, Presence.PRESENT)],
)
def test_presence_by_the_network_s_two_thresholds(score: float, presence: Presence) -> None:
    assert FrameFacts(1, {"caliper": score}).presence("caliper", {"caliper": (0.3, 0.6)}) is presence
    assert FrameFacts(1, {}).presence("caliper", {}) is Presence.UNKNOWN


@pytest.mark.parametrize(
    ("written", "years"), [("045Y", 45.0), ("018M", 1.5), ("010D", 0.03), ("", None), ("45Y", None), ("ABCY", None)]
)
def test_age(written: str, years: float | None) -> None:
    assert age_of(written) == years


def test_age_by_dates() -> None:
    assert age_in_years(date(1980, 6, 1), date(2026, 6, 1)) == 46.0
    assert age_in_years(date(2027, 1, 1), date(2026, 1, 1)) is None
    assert age_in_years(None, date(2026, 1, 1)) is None


def test_what_the_header_records_is_known_by_name_alone() -> None:
    header = {"mechanical_index": 0.0, "content_date": "20260101", "acquisition_datetime": ""}
    found = records_of(header, {"patient_name": "CANARY^Name", "patient_id": "", "accession_number": False})
    assert found == {"records": ("patient_name", "date", "mechanical_index")}
