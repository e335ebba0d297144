"""The honest measure: real annotated frames, clean frames, unseen styles on unseen frames; thresholds are those of the
card."""

from __future__ import annotations

import math
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tomli_w
from rich.progress import track

from models.corruption import corrupt
from models.dataset import CleanFrame, Frame, read_frame, rows_of
from models.errors import DataError
from models.served import Output, Weights, reduced
from models.statistics import Estimate, auroc, proportion
from models.whole import write_json, write_whole
from service.analyse.annotations import Evidence, Kind
from service.analyse.residual import filled, grown, inpainted

COLOURS: dict[Kind, tuple[int, int, int]] = {
    Kind.BODY_MARKER: (255, 60, 220),
    Kind.CALIPER: (60, 255, 90),
    Kind.COLOR_BOX: (255, 140, 0),
    Kind.TEXT: (0, 190, 255),
    Kind.ARROW: (255, 255, 0),
}


@dataclass(frozen=True)
class Reading:
    """What was read on one real frame: presence scores, kinds found, and what a person said is there (unsure left
    out)."""

    path: Path
    source: str
    scores: dict[str, float]
    truth: dict[str, bool]


@dataclass
class Report:
    """Everything measured, ready for JSON and Markdown."""

    weights: str
    real: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    clean: dict[str, Any] = field(default_factory=dict)
    synthetic: dict[str, dict[str, float]] = field(default_factory=dict)
    drawings: dict[str, int] = field(default_factory=dict)
    """How many were drawn, and how many of them the figures of ``synthetic`` and ``restoration`` are of."""
    largest: int = 0
    """The network's longest side; larger drawings are not measured."""
    restoration: dict[str, float] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "report.json", asdict(self))
        write_whole(folder / "report.md", self.markdown())

    def markdown(self) -> str:
        lines = [f"# {self.weights}", ""]
        if self.real:
            lines += [
                "## Real annotated frames",
                "",
                "| kind | AUROC | sensitivity | specificity |",
                "|---|---|---|---|",
            ]
            lines += [f"| {k} | {r['auroc']} | {r['sensitivity']} | {r['specificity']} |" for k, r in self.real.items()]
        for title, table in (
            ("Clean frames", self.clean),
            ("Restoration", self.restoration),
            ("Latency (ms)", self.latency_ms),
        ):
            if table:
                lines += ["", f"## {title}", "", *(f"- {name}: {shown(value)}" for name, value in table.items())]
        if self.synthetic:
            names = list(next(iter(self.synthetic.values())))
            lines += [
                "",
                "## Synthetic marks of unseen styles",
                "",
                *([self._drawings(), ""] if self.drawings else []),
                f"| kind | {' | '.join(names)} |",
                "|---" * (len(names) + 1) + "|",
            ]
            lines += [
                f"| {k} | {' | '.join(shown(row[name]) for name in names)} |" for k, row in self.synthetic.items()
            ]
        if self.failures:
            lines += ["", "## Frames read wrongly", ""]
            lines += [
                f"- {f['file']}: {f['kind']} {'missed' if f['truth'] else 'false'} (score {f['score']:.2f})"
                for f in self.failures
            ]
        return "\n".join(lines) + "\n"

    def _drawings(self) -> str:
        drawn, measured = self.drawings["drawn"], self.drawings["measured"]
        if measured == drawn:
            return f"{drawn} drawings."
        return (
            f"{measured} of {drawn} drawings; the others are larger than the network takes, {self.largest} pixels, and"
            " were not measured."
        )


def shown(value: Any) -> str:
    """A figure in a table; a dash where there was nothing to measure."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else "–"


def real_frames(
    weights: Weights,
    labels: Path,
    report: Report,
    pictures: Path | None = None,
    rows: Sequence[Mapping[str, str]] | None = None,
) -> list[Reading]:
    """Image-level sensitivity, specificity and AUROC per kind on the frames of a ``labels.csv``, or on some of its
    ``rows``."""
    rows = labelled(labels) if rows is None else rows
    if pictures is not None:
        remove_pictures(pictures)
    readings, network_ms, reading_ms = [], [], []
    named = Counter(Path(row["file"]).stem for row in rows)
    for number, row in enumerate(track(rows, "Real frames", transient=True), start=1):
        path = labels.parent / row["file"]
        frame = read_frame(path)
        started = time.perf_counter()
        output = weights.graph(frame)
        answered = time.perf_counter()
        evidence = weights.read(output)
        network_ms.append((answered - started) * 1e3)
        reading_ms.append((time.perf_counter() - answered) * 1e3)
        truth = {kind.value: row[kind] == "1" for kind in Kind if row.get(kind) in ("0", "1")}
        reading = Reading(path, row["source"], {k.value: s for k, s in evidence.scores.items()}, truth)
        readings.append(reading)
        wrong = [
            kind for kind in truth if (reading.scores[kind] >= weights.thresholds[Kind(kind)].present) != truth[kind]
        ]
        report.failures += [
            {"file": row["file"], "kind": kind, "truth": truth[kind], "score": reading.scores[kind]} for kind in wrong
        ]
        if pictures is not None:
            folder = pictures / ("wrong" if set(wrong) - {"text", "arrow"} else "right")
            folder.mkdir(parents=True, exist_ok=True)
            name = path.stem if named[path.stem] == 1 else f"{number}_{path.stem}"
            _, coded = cv2.imencode(".png", cv2.cvtColor(overlay(output, evidence), cv2.COLOR_RGB2BGR))
            (folder / f"{name}.png").write_bytes(coded.tobytes())  # imwrite is silent about a full disk
    for kind in Kind:
        known = [reading for reading in readings if kind in reading.truth]
        report.real[kind.value] = accuracy(
            [reading.scores[kind] for reading in known],
            [reading.truth[kind] for reading in known],
            weights.thresholds[kind].present,
        )
    report.latency_ms |= {
        "network, median": float(np.median(network_ms)),
        "reading marks, median": float(np.median(reading_ms)),
    }
    return readings


def remove_pictures(pictures: Path) -> None:
    """Those of an earlier evaluation, which would be taken for this one's."""
    for picture in (each for side in ("right", "wrong") for each in (pictures / side).glob("*.png")):
        if picture.is_file():
            picture.unlink()


def labelled(labels: Path) -> list[dict[str, str]]:
    """The rows of a ``labels.csv``. Raises `DataError` when it lists no frame or says what is no label."""
    rows = rows_of(labels, "file", "source")
    if not rows:
        raise DataError(f"{labels} lists no frame.", cure="List annotated frames, or remove the file.")
    if not set(Kind) & set(rows[0]):
        raise DataError(f"{labels} has no column of any kind.", cure=f"Name columns {', '.join(Kind)}.")
    for row in rows:
        for kind in Kind:
            if row.get(kind, "") not in ("0", "1", "unsure", ""):
                what = f"{labels} says {row[kind]!r} of {kind} in {row['file']}."
                raise DataError(what, cure="Write 1, 0 or unsure.")
    return rows


def accuracy(scores: Sequence[float], truth: Sequence[bool], present: float) -> dict[str, Estimate]:
    positive = [score >= present for score, there in zip(scores, truth, strict=True) if there]
    negative = [score < present for score, there in zip(scores, truth, strict=True) if not there]
    return {
        "auroc": auroc(scores, truth),
        "sensitivity": proportion(sum(positive), len(positive)),
        "specificity": proportion(sum(negative), len(negative)),
    }


def clean_frames(weights: Weights, frames: Sequence[CleanFrame], report: Report) -> None:
    """How often something is found where nothing of interest was drawn."""
    false: dict[str, int] = dict.fromkeys((kind.value for kind in Kind), 0)
    any_false, any_of_three, masked, pixels = 0, 0, 0, 0
    for frame in track(frames, "Clean frames", transient=True):
        evidence = weights.read(weights.graph(read_frame(frame.path)))
        found = {annotation.kind for annotation in evidence.annotations}
        for kind in found:
            false[kind.value] += 1
        any_false += bool(found)
        any_of_three += bool(found & {Kind.BODY_MARKER, Kind.CALIPER, Kind.COLOR_BOX})
        masked += int((evidence.mask > 0).sum())
        pixels += evidence.mask.size
    report.clean = {
        "frames": len(frames),
        "with any false annotation": str(proportion(any_false, len(frames))),
        "with a false body marker, caliper or colour box": str(proportion(any_of_three, len(frames))),
        "share of pixels in the mask": masked / max(pixels, 1),
        **{f"false {kind}": count for kind, count in false.items()},
    }


def synthetic_frames(weights: Weights, frames: Sequence[CleanFrame], samples: int, seed: int, report: Report) -> None:
    """Dice per kind at 0 and 1 pixel tolerance, presence, and both ways of restoring, on ``frames`` that training never
    saw, in styles that it never draws."""
    rng = np.random.default_rng(seed)
    counts = {kind: np.zeros(6) for kind in Kind}
    presence: dict[Kind, list[tuple[float, bool]]] = {kind: [] for kind in Kind}
    errors: dict[str, list[float]] = {
        name: [] for name in ("learned fill", "inpainting", "learned fill, true mask", "inpainting, true mask")
    }
    measured = 0
    for _ in track(range(samples), "Unseen styles", transient=True):
        frame = read_frame(frames[int(rng.integers(len(frames)))].path)
        # Reduced before marks are drawn, not after: labels stay what was drawn, pixel by pixel.
        sample = corrupt(reduced(frame, weights.graph.max_side), rng, held_out=True)
        if max(sample.labels.shape) > weights.graph.max_side:
            continue
        measured += 1
        output = weights.graph(sample.noisy)
        evidence = weights.read(output)
        for number, kind in enumerate(Kind, start=1):
            truth = sample.labels == number
            presence[kind].append((evidence.scores[kind], bool(truth.any())))
            counts[kind] += overlaps(evidence.mask == number, truth)
        for name, mask in (("", evidence.mask), (", true mask", sample.labels)):
            if not sample.labels.any():
                continue
            wide = grown(mask, 1)
            marked = grown(sample.labels, 1) > 0
            errors[f"learned fill{name}"].append(
                squared_error(filled(sample.noisy, output.restoration, wide), sample.clean, marked)
            )
            errors[f"inpainting{name}"].append(squared_error(inpainted(sample.noisy, wide), sample.clean, marked))
    report.drawings, report.largest = {"drawn": samples, "measured": measured}, weights.graph.max_side
    for kind in Kind:
        hit, size, near_found, found, near_true, true = (float(pixels) for pixels in counts[kind])
        scores, truths = [score for score, _ in presence[kind]], [there for _, there in presence[kind]]
        row = accuracy(scores, truths, weights.thresholds[kind].present)
        drawn = 1.0 if true else float("nan")  # with nothing to overlap, there is no overlap, good or bad
        report.synthetic[kind.value] = {
            "Dice": drawn * 2 * hit / max(size, 1),
            "IoU": drawn * hit / max(size - hit, 1),
            "Dice, 1 px": drawn * (near_found + near_true) / max(found + true, 1),
            "AUROC": row["auroc"].value,
            "sensitivity": row["sensitivity"].value,
            "specificity": row["specificity"].value,
        }
    for name, values in errors.items():
        if not values:
            continue  # no sample had a mark
        report.restoration[f"{name}, PSNR under marks (dB)"] = float(
            10 * np.log10(255**2 / max(float(np.mean(values)), 1e-9))
        )


def overlaps(mask: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Pixels in both; in one and in the other together; of the mask within 1 pixel of the truth; of the mask; of the
    truth within 1 pixel of the mask; of the truth."""
    near_truth = grown(truth.astype(np.uint8), 1) > 0
    near_mask = grown(mask.astype(np.uint8), 1) > 0
    return np.array(
        [
            (mask & truth).sum(),
            mask.sum() + truth.sum(),
            (mask & near_truth).sum(),
            mask.sum(),
            (truth & near_mask).sum(),
            truth.sum(),
        ],
        np.float64,
    )


def squared_error(restored: Frame, clean: Frame, where: npt.NDArray[np.bool_]) -> float:
    difference = restored[where].astype(np.float64) - clean[where].astype(np.float64)
    return float((difference**2).mean())


def overlay(output: Output, evidence: Evidence) -> Frame:
    """Frame, typed mask on the darkened frame with boxes and scores, and restoration, side by side."""
    marked = (output.frame * 0.45).astype(np.uint8)
    for number, kind in enumerate(Kind, start=1):
        marked[evidence.mask == number] = COLOURS[kind]
        weak = (output.kinds[number - 1] >= 64) & (evidence.mask == 0)
        marked[weak] = np.array(COLOURS[kind], np.uint8) // 2
    for annotation in evidence.annotations:
        x, y, width, height = annotation.box
        cv2.rectangle(marked, (x - 2, y - 2), (x + width + 2, y + height + 2), COLOURS[annotation.kind], 1)
    for row, kind in enumerate(Kind):
        cv2.putText(
            marked, f"{kind} {evidence.scores[kind]:.2f}", (4, 14 + 14 * row), 0, 0.42, COLOURS[kind], 1, cv2.LINE_AA
        )
    return np.hstack([output.frame, marked, output.restoration])


def record(report: Report, weights: Path) -> None:
    """Write the figures into the card of the weights they were measured on; what was not measured now stays."""
    card = tomllib.loads((weights / "card.toml").read_text())
    measured = {
        "real": {kind: {name: asdict(value) for name, value in row.items()} for kind, row in report.real.items()},
        "clean": report.clean,
        "unseen_styles": report.synthetic,
        "drawings": report.drawings,
        "restoration": report.restoration,
    }
    card["metrics"] = card.get("metrics", {}) | {name: figures for name, figures in measured.items() if figures}
    card["latency"] = card.get("latency", {}) | report.latency_ms
    write_whole(weights / "card.toml", tomli_w.dumps(card))


def labels_of(data: Path) -> Path | None:
    """The ``labels.csv`` in a data folder or in its ``annotated`` folder."""
    return next((place for place in (data / "labels.csv", data / "annotated" / "labels.csv") if place.is_file()), None)
