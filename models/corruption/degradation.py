"""What happens to a screen between overlay and archive; one draw serves all images of a sample."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.corruption.strokes import SHARE, Canvas, Image

# A mark that changes a pixel by fewer grey levels than this cannot be seen there.
VISIBLE = 8


@dataclass(frozen=True)
class Degradation:
    """`scale` of the size, `blur` in pixels, `gamma`, capture `gain` and `offset`, JPEG `quality` (None: lossless)."""

    scale: float = 1.0
    blur: float = 0.0
    gamma: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
    quality: int | None = None
    subsampled: bool = False
    monochrome: bool = False

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Degradation:
        captured = rng.random() < 0.2
        return cls(
            scale=float(rng.uniform(0.6, 1.4)) if rng.random() < 0.5 else 1.0,
            blur=float(rng.uniform(0.3, 0.8)) if rng.random() < 0.3 else 0.0,
            gamma=float(np.exp(rng.normal(0, 0.15))) if rng.random() < 0.4 else 1.0,
            gain=float(rng.uniform(0.8, 1.05)) if captured else 1.0,
            offset=float(rng.uniform(0, 20)) if captured else 0.0,
            quality=int(rng.integers(60, 96)) if rng.random() < 0.6 else None,
            subsampled=bool(rng.random() < 0.5),
            monochrome=bool(rng.random() < 0.1),
        )

    def image(self, image: Image) -> Image:
        """Degrade a uint8 HxWx3 image."""
        if self.monochrome:
            image = self._grey(image)
        if self.scale != 1.0:
            image = np.asarray(cv2.resize(image, self._size(image), interpolation=self._filter()), np.uint8)
        if self.blur:
            image = np.asarray(cv2.GaussianBlur(image, (3, 3), self.blur), np.uint8)
        if (self.gamma, self.gain, self.offset) != (1.0, 1.0, 0.0):
            level = np.arange(256) / 255.0
            image = np.asarray(
                cv2.LUT(
                    image, np.clip(255 * self.gain * level**self.gamma + self.offset + 0.5, 0, 255).astype(np.uint8)
                ),
                np.uint8,
            )
        if self.quality is not None:
            factor = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if self.subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
            _, code = cv2.imencode(
                ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
            )
            image = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
        return image

    def labels(self, canvas: Canvas, clean: Image) -> Image:
        """The kind at each pixel of the degraded canvas: where a visible mark covers a fair share of the pixel."""
        kinds = np.flatnonzero(np.bincount(canvas.kind.ravel(), minlength=2)[1:]) + 1
        if not len(kinds):
            return np.zeros(self._size(clean)[::-1] if self.scale != 1.0 else clean.shape[:2], np.uint8)
        before, after = (self._grey(image) if self.monochrome else image for image in (clean, canvas.image))
        red, green, blue = cv2.split(cv2.absdiff(after, before))
        coverage = canvas.coverage * (np.maximum(np.maximum(red, green), blue) >= VISIBLE)
        if self.scale == 1.0:
            return canvas.kind * (coverage >= SHARE * 255)
        # A line thinned by the reduction covers a smaller share of its pixel and is still the mark.
        best = np.full(self._size(coverage)[::-1], SHARE * 255 * min(1.0, self.scale), np.float32)
        labels = np.zeros(best.shape, np.uint8)
        for kind in kinds:
            own = coverage * (canvas.kind == kind)
            share = cv2.resize(own, self._size(own), interpolation=self._filter())
            labels[share >= best] = kind
            best = np.maximum(best, share)
        return labels

    @staticmethod
    def _grey(image: Image) -> Image:
        return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)

    def _size(self, image: Image) -> tuple[int, int]:
        return max(8, round(image.shape[1] * self.scale)), max(8, round(image.shape[0] * self.scale))

    def _filter(self) -> int:
        return cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
