"""Ultrasound regions of the header, DICOM PS3.3 section C.8.5.5: a cross-check on the pixels, never the sole truth."""

from typing import Any

from service.dicom.values import Values

SEQUENCE_OF_ULTRASOUND_REGIONS = 0x00186011
MOST = 64  # regions kept of one image; real ones have a handful

DATA_TYPES = {1: "tissue", 2: "color_flow", 3: "pw_doppler", 4: "cw_doppler", 0x0D: "gray_bar", 0x0E: "color_bar"}
SPATIAL_FORMATS = {1: "2d", 2: "m_mode", 3: "spectral"}


def regions(values: Values) -> list[dict[str, Any]]:
    """Each region as ``{data_type, spatial_format, kind, format, x0, y0, x1, y1}``, pixels from the upper left."""
    found = []
    for item in values.items(SEQUENCE_OF_ULTRASOUND_REGIONS):
        data_type, spatial_format = item.integer(0x00186014), item.integer(0x00186012)
        found.append(
            {
                "data_type": data_type,
                "spatial_format": spatial_format,
                "kind": DATA_TYPES.get(data_type or 0, "other"),
                "format": SPATIAL_FORMATS.get(spatial_format or 0, "other"),
                "x0": item.integer(0x00186018),
                "y0": item.integer(0x0018601A),
                "x1": item.integer(0x0018601C),
                "y1": item.integer(0x0018601E),
            }
        )
        if len(found) == MOST:
            break
    return found
