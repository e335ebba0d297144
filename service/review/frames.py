"""Pictures for the dashboard: decoded frames and what the network makes of them, kept on disk up to a size limit."""

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.analyse.pipeline import Pipeline, Restoration
from service.archive.cache import pictures
from service.archive.store import archive
from service.db import retention, studies, switches
from service.db.session import database
from service.db.tables import Instance
from service.dicom.pixels import read_frames
from service.dicomweb.retrieve import Released
from service.errors import NotFound
from service.review import heat
from service.settings import settings

Pixels = NDArray[np.uint8]

WEBP_QUALITY = 92
# Index of each kind in the typed mask, and the overlay colours of the dashboard (Okabe–Ito, lightened for speckle).
PALETTE = (0, 0, 0, 0x56, 0xB4, 0xE9, 0xE6, 0x9F, 0x00, 0xF0, 0xE4, 0x42, 0xE7, 0xA5, 0xCB, 0x3D, 0xDC, 0x97)


class Picture(NamedTuple):
    """Encoded bytes and their media type."""

    data: bytes
    media_type: str


def image(instance: Instance, number: int, *, webp: bool = False, width: int = 0) -> Picture:
    """The frame as displayed: PNG, which is exact, or WebP, which is small; scaled down to ``width`` if given."""
    _require_bytes(instance)
    kind = "webp" if webp else "png"
    name = f"{number}-{width or 'full'}.{kind}"

    def make() -> bytes:
        pixels = _decoded(instance, number)
        if width and width < pixels.shape[1]:
            height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
            pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        return _webp(pixels) if webp else _png(pixels)

    return Picture(_kept(instance, name, make), f"image/{kind}")


def mask(instance: Instance, number: int) -> Picture:
    """The typed mask, one colour for each kind, transparent where the network found no mark."""
    frame = studies.frame(instance, number)
    if frame is None:
        raise NotFound(f"Frame {number} of this instance was not assessed.", cure="A cine is sampled; see its frames.")

    def make() -> bytes:
        if frame.mask_key:
            kinds = np.array(Image.open(BytesIO(archive().get(frame.mask_key))))
        else:
            kinds = np.zeros((frame.rows, frame.columns), np.uint8)
        picture = Image.fromarray(kinds.astype(np.uint8), "P")
        picture.putpalette(PALETTE)
        out = BytesIO()
        picture.save(out, "PNG", transparency=0)
        return out.getvalue()

    return Picture(_kept(instance, f"{number}-mask-{frame.analysis_id}.png", make), "image/png")


def restoration(instance: Instance, number: int, *, webp: bool = False) -> Picture:
    """The frame as the network would have it without any mark. Not for diagnosis."""
    _require_bytes(instance)
    kind = "webp" if webp else "png"

    def make() -> bytes:
        restored = _restored(instance, number).restored
        return _webp(restored) if webp else _png(restored)

    name = f"{number}-restoration-{_network()}.{kind}"
    return Picture(_kept(instance, name, make), f"image/{kind}")


def residual(instance: Instance, number: int) -> Picture:
    """|frame − what the network made of it|, the largest of the three channels, as an 8-bit grey PNG."""
    _require_bytes(instance)

    def make() -> bytes:
        found = _restored(instance, number).residual
        heat.count(pipeline().version, found)
        return _png(found)

    return Picture(_kept(instance, f"{number}-residual-{_network()}.png", make), "image/png")


def _require_bytes(instance: Instance) -> None:
    """Raises Released for an image that was given up. What is cached of it here goes: the sweeper, who released it,
    may run where it does not reach this folder."""
    with database().read() as session:
        released = retention.is_released(session, instance.id)
    if released:
        pictures().forget(_folder(instance))
        raise Released("The image was released by the retention policy.", cure="Ask the PACS for the study.")


def _decoded(instance: Instance, number: int) -> Pixels:
    if not 1 <= number <= instance.number_of_frames:
        raise NotFound(f"This instance's last frame is {instance.number_of_frames}; there is no frame {number}.")
    return archive().reading(instance.archive_key, lambda path: read_frames(path, [number]))[0]


def _restored(instance: Instance, number: int) -> Restoration:
    frame = _decoded(instance, number)
    with _one_at_a_time:  # the network takes every core it is given; more at once would only take more memory
        return pipeline().restore(frame)


def pipeline() -> Pipeline:
    """The network in use, loaded when the first restoration is looked at."""
    with database().read() as session:
        named = switches.network(session)
    return loaded(named)


@lru_cache(maxsize=1)
def loaded(named: str) -> Pipeline:
    """The weights of that name; empty: those of the settings."""
    return Pipeline.of_settings(settings().with_network(named))


def _network() -> str:
    """The network's name and digest: another network's pictures have other names."""
    return pipeline().version.replace("/", "_")


_one_at_a_time = Lock()


def _png(pixels: Pixels) -> bytes:
    return _encoded(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def _webp(pixels: Pixels) -> bytes:
    return _encoded(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])


def _encoded(suffix: str, pixels: Pixels, options: list[int]) -> bytes:
    written, data = cv2.imencode(suffix, pixels[:, :, ::-1] if pixels.ndim == 3 else pixels, options)
    if not written:
        raise ValueError(f"a picture of shape {pixels.shape} could not be encoded as {suffix}")
    return data.tobytes()


def _kept(instance: Instance, name: str, make: Callable[[], bytes]) -> bytes:
    """The cached bytes, made when they are not there. Digest and number name them, so nothing ever goes stale."""
    return pictures().bytes_of(f"{_folder(instance)}/{name}", make)


def _folder(instance: Instance) -> str:
    return f"{instance.sha256[:2]}/{instance.sha256}"
