"""Crops of drawn samples, in files that all cells with the same data share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.dataset import CleanFrame, read_frame
from models.reproduction.datasets import STORED, Parts, Sample, sample
from models.reproduction.pipelines import Defects
from models.reproduction.scales import Scale
from models.whole import write_whole

Images = npt.NDArray[np.uint8]

DATA_SWITCHES = ("clean_target_skips_chain", "nearest_resize", "wrong_icon_masks", "fixed_places")
"""The defects that decide how samples look; the others act in training and scoring."""
EXAMPLES = 4

_ON_A_MARK = 0.75
_PLAIN = 24  # grey levels by which a mark stands out plainly, above what JPEG does to its surroundings


@dataclass(frozen=True)
class Crops:
    """Crops of one part: images uint8 (n, side, side, 3), `mask` bool (n, side, side), data set and group of each."""

    noisy: Images
    second: Images
    clean: Images
    target: Images
    mask: npt.NDArray[np.bool_]
    groups: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.noisy)

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[Images, Images, Images, npt.NDArray[np.bool_]]:
        """Noisy, second noisy, target of Noise2Clean and mask of some crops."""
        return self.noisy[rows], self.second[rows], self.target[rows], self.mask[rows]


@dataclass(frozen=True)
class Data:
    """What a cell is trained and measured on; `examples` are larger crops of test frames, for the pictures."""

    training: Crops
    validation: Crops
    test: Crops
    examples: Crops


@dataclass(frozen=True)
class _Part:
    """What is to be drawn: `count` crops of `side` pixels, `per_frame` from each frame, a share of them on a mark."""

    frames: tuple[CleanFrame, ...]
    count: int
    side: int
    per_frame: int = 1
    on_mark: float = 1.0


def data(
    folder: Path,
    root: Path,
    frames: Parts,
    may_show: Callable[[CleanFrame], bool],
    kind: str,
    defects: Defects,
    scale: Scale,
) -> Data:
    """The crops of one kind under one pipeline, drawn on the first call and read from `folder` on later ones.

    The folder's manifest.json records seed, switches and the file of every crop, relative to `root`. `may_show` says
    which test frames may appear in published pictures.
    """
    wanted = {
        "training": _Part(frames.training, scale.training_crops, scale.side, scale.crops_per_frame, _ON_A_MARK),
        "validation": _Part(frames.validation, scale.validation_crops, scale.side),
        "test": _Part(frames.test, scale.test_crops, scale.side),
        "examples": _Part(tuple(filter(may_show, frames.test)) or frames.test, EXAMPLES, scale.example_side),
    }
    manifest: dict[str, Any] = {
        "kind": kind,
        "switches": {switch: getattr(defects, switch) for switch in DATA_SWITCHES},
        "seed": scale.data_seed,
        "frames": {name: [f.named_from(root) for f in part.frames] for name, part in wanted.items()},
        "crops": {name: [part.count, part.side, part.per_frame] for name, part in wanted.items()},
    }
    home = folder / f"{kind}-{sha256(json.dumps(manifest).encode()).hexdigest()[:12]}"
    if not (home / "manifest.json").exists():
        home.mkdir(parents=True, exist_ok=True)
        manifest["drawn"] = {}
        for number, (name, part) in enumerate(wanted.items()):
            # Each part has a stream of its own: a longer training set leaves the test set as it was.
            used = _draw(home / f"{name}.npy", part, kind, defects, (scale.data_seed, number))
            manifest["drawn"][name] = [{"file": f.named_from(root), "source": f.source, "group": f.group} for f in used]
        write_whole(home / "manifest.json", json.dumps(manifest, indent=1))
    drawn = json.loads((home / "manifest.json").read_text())["drawn"]
    return Data(**{name: _read(home / f"{name}.npy", drawn[name]) for name in wanted})


def _draw(path: Path, part: _Part, kind: str, defects: Defects, seed: tuple[int, int]) -> list[CleanFrame]:
    """Write a part's crops and return the frame of each."""
    stored = np.lib.format.open_memmap(path, "w+", np.uint8, (part.count, part.side, part.side, 13))
    _take_room(path)
    order = np.random.default_rng(seed).permutation(len(part.frames))
    used: list[CleanFrame] = []
    for turn in range(-(-part.count // part.per_frame)):
        frame = part.frames[order[turn % len(part.frames)]]
        rng = np.random.default_rng([*seed, turn])
        whole = sample(read_frame(frame.path), kind, rng, defects)
        for index in range(len(used), min(len(used) + part.per_frame, part.count)):
            stored[index] = crop(whole, part.side, part.on_mark, rng)
            used.append(frame)
    stored.flush()
    return used


def _take_room(path: Path) -> None:
    """Give a file all of its blocks. What is mapped and has none ends the process without a word where the disk is
    full; raises OSError instead."""
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as refused:
            refused.filename = str(path)
            raise


def crop(whole: Sample, side: int, on_mark: float, rng: np.random.Generator) -> Images:
    """A square of the sample: noisy, second, clean, target and mask × 255 as 13 channels.

    With probability `on_mark` a part of what was drawn lies in it. What was drawn is seen in the pixels, not in the
    mask, which may be another icon's.
    """
    marked = np.argwhere(cv2.absdiff(whole.noisy, whole.clean).max(axis=2) > _PLAIN)
    if len(marked) and rng.random() < on_mark:
        corner = marked[rng.integers(len(marked))] - rng.integers(side, size=2)
    else:
        corner = rng.integers(STORED - side + 1, size=2)
    top, left = np.clip(corner, 0, STORED - side)
    window = np.s_[top : top + side, left : left + side]
    mask = whole.mask[..., None].astype(np.uint8) * np.uint8(255)
    parts = (whole.noisy, whole.second, whole.clean, whole.target, mask)
    return np.concatenate([part[window] for part in parts], axis=2)


def _read(path: Path, drawn: list[dict[str, str]]) -> Crops:
    stored = np.load(path, mmap_mode="r")
    noisy, second, clean, target = (stored[..., start : start + 3] for start in (0, 3, 6, 9))
    groups, sources = (tuple(one[key] for one in drawn) for key in ("group", "source"))
    return Crops(noisy, second, clean, target, mask=stored[..., 12] > 0, groups=groups, sources=sources)
