"""A PNG or JPEG as it is displayed; serving and training decode them with this function alone."""

import cv2
import numpy as np

from service.dicom.display import RGB
from service.errors import Undecodable

_JPEG, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # ITU-T T.81, table B.1
_EXPORT_AGAIN = "Export the image again."


def plain_rgb(data: bytes) -> RGB:
    """The picture in a file's bytes as uint8 RGB (rows, columns, 3), turned as its orientation tag says.

    Raises `Undecodable` when it is damaged or cut off: what a decoder shows of half a JPEG is grey below.
    """
    # Within a scan, 0xFF is followed by 0 or a restart marker: the end of the image comes after it or not at all.
    if data.startswith(_JPEG) and data.rfind(_END) < data.rfind(_SCAN):
        raise Undecodable("The image file is cut off.", cure=_EXPORT_AGAIN)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # nothing at all, or more pixels than OpenCV takes
        image = None
    if image is None:
        raise Undecodable("The image file is damaged.", cure=_EXPORT_AGAIN)
    return np.asarray(image, np.uint8)
