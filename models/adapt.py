"""Adaptation: released weights fine-tuned on a site's own frames, and what they gained there and forgot elsewhere."""

from __future__ import annotations

import csv
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import tomli_w

from models import evaluate, recipe
from models.calibrate import CALIBRATION, calibrate
from models.dataset import CleanFrame, Split, clean_frames, groups_of, named_frames, read_frame, split
from models.errors import TrainingError
from models.export import MAX_SIDE, export, graph_of
from models.recipe import Recipe
from models.runs import SPLIT
from models.served import Graph, Weights
from models.train import train
from models.whole import made, write_json, write_whole
from service.analyse.residual import grown, inpainted

TEST_SHARE = 0.3
"""Share of the site's patient groups that neither training nor thresholds see."""
ENOUGH_FRAMES, ENOUGH_GROUPS = 20, 8
"""Validation frames and groups from which thresholds are fitted anew; with fewer, the parent's are better."""
_MOST_CASES = 400  # drawings that thresholds are fitted on, and frames as they are: each takes time
_OLD_FRAMES = 60
_SEED = 23

Figures = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """How weights are adapted: which ``layers`` are trained (see `models.layers.hold_still`), for how many minutes, and
    how many synthetic frames measure each side. ``overlaid`` frames carry marks already, which the released network
    takes away before they are drawn on."""

    layers: str = "normalisation"
    minutes: float = 6.0
    samples: int = 40
    overlaid: bool = False


@dataclass(frozen=True)
class Side:
    """What both weights are measured on: ``frames`` to draw on, and of a ``labels.csv`` the ``rows`` of frames that
    training saw nothing of; ``left_out`` counts the others."""

    frames: Sequence[CleanFrame]
    labels: Path | None = None
    rows: Sequence[Mapping[str, str]] = ()
    left_out: int = 0


def adapt(weights: Path, data: Path, out: Path, plan: Plan, old: Path | None, tell: Callable[[str], None]) -> Path:
    """Fine-tune the released ``weights`` on the frames below ``data`` and write a new weights folder.

    ``out`` gets model.onnx, card.toml with the parent's digest, and adaptation.md and .json with every figure before
    and after, on frames of the site and, where ``old`` is given, on frames the weights were made for. It appears whole
    or not at all. Raises `DataError`, `LeakySplit`, `RecipeError`, `TrainingError` and `Diverged`.
    """
    if out.exists():
        raise TrainingError(f"{out} is there already.", cure="Give a new folder: weights are never overwritten.")
    parent = Weights(weights)
    parent.card.require("name", "version", "architecture", "data", "steps", "minutes")
    chosen = _recipe(parent.card, plan.layers)
    site = split(clean_frames(data), (), TEST_SHARE, chosen.seed)
    chosen = _with_validation(chosen, site.training)
    new, home = measured_on(site, data), _home(old, parent.card) if old is not None else None
    with TemporaryDirectory() as folder, made(out.parent):
        frames, run = Path(folder) / "frames", Path(folder) / "run"
        taken = prepare(site.training, frames, parent if plan.overlaid else None)
        if plan.overlaid:
            new = replace(new, frames=_bared(site.validation, Path(folder) / "test", parent))
        train(chosen, frames, run, start_from=weights, time_budget_min=plan.minutes)
        fitted = _thresholds(run, frames, parent.card, tell)
        staged = out.with_name(f".{out.name}.part")
        shutil.rmtree(staged, ignore_errors=True)
        try:
            export(run, staged)
            child = Weights(staged)
            table = {"new": _change(parent, child, new, plan)}
            if home is not None:
                table["old"] = _change(parent, child, home, plan)
            facts = {
                "layers": plan.layers,
                "minutes": plan.minutes,
                "frames": len(site.training),
                "test_frames": len(site.validation),
                "overlaid": plan.overlaid,
                "labelled_frames": len(new.rows),
                "labelled_frames_left_out": new.left_out,
                "marks_taken_away": taken,
                "thresholds_fitted": fitted,
            }
            _describe(staged, out.name, parent.card, plan, facts, table)
            staged.replace(out)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    tell((out / "adaptation.md").read_text())
    return out


def _recipe(card: Mapping[str, Any], layers: str) -> Recipe:
    """The recipe `adapt` with the network that the card describes."""
    chosen = recipe.load("adapt")
    return replace(chosen, network=recipe.network_of(card), optimiser=replace(chosen.optimiser, layers=layers))


def _with_validation(chosen: Recipe, frames: Sequence[CleanFrame]) -> Recipe:
    """The recipe with a seed that draws validation frames among ``frames``, where there are enough of them.

    The recipe's own seed has drawn the test frames already and finds one group more, which is as it should be where
    the others are too few to fit thresholds on: then they are trained on.
    """
    drawn_anew = replace(chosen, seed=chosen.seed + 1)
    return drawn_anew if _enough(split(frames, (), chosen.split.share, drawn_anew.seed).validation) else chosen


def _enough(frames: Sequence[CleanFrame]) -> bool:
    return len(frames) >= ENOUGH_FRAMES and len({frame.group for frame in frames}) >= ENOUGH_GROUPS


def _home(old: Path, card: Mapping[str, Any]) -> Side:
    """Data the weights were made for: what their first run held out, where its recipe is at hand."""
    made_by = card.get("home", card)
    how = recipe.split_of(made_by)
    side = measured_on(split(clean_frames(old), how.held_out_sources, how.share, made_by["seed"]), old)
    return replace(side, frames=side.frames[:: max(1, len(side.frames) // _OLD_FRAMES)])


def measured_on(parts: Split, data: Path) -> Side:
    """The frames of a split that are held out, and the labelled ones that neither are for training nor of a patient of
    those: `sonomark corrections` lists the same frames for both."""
    labels = evaluate.labels_of(data)
    if labels is None:
        return Side(parts.validation)
    trained = {frame.path.resolve() for frame in parts.training}
    held_out = {frame.path.resolve() for frame in parts.validation}
    # A group may have taken the name of another that looks alike.
    groups = {frame.group for frame in parts.training}
    groups |= {frame.group for frame in named_frames(data, lambda _: None) if frame.path.resolve() in trained}

    def unseen(row: Mapping[str, str]) -> bool:
        path = (labels.parent / row["file"]).resolve()
        return path not in trained and (path in held_out or not groups & groups_of(path, row))

    rows = evaluate.labelled(labels)
    kept = [row for row in rows if unseen(row)]
    return Side(parts.validation, labels, kept, len(rows) - len(kept))


def prepare(frames: Sequence[CleanFrame], folder: Path, network: Weights | None) -> int:
    """Copy frames as displayed into ``folder`` with a listing that keeps source and group; how many marks were taken
    away first, where a ``network`` is given to find them.

    What is in a frame already would else be taught as background: both of Noise2Noise's pictures hold it.
    """
    folder.mkdir(parents=True)
    taken = 0
    with (folder / "frames.csv").open("w", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["file", "source", "group", "licence"])
        for number, frame in enumerate(frames):
            image = read_frame(frame.path)
            if network is not None:
                output = network.graph(image)
                evidence = network.read(output)
                taken += len(evidence.annotations)
                image = inpainted(output.frame, grown(evidence.mask, 2))
            _, coded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            (folder / f"{number}.png").write_bytes(coded.tobytes())  # imwrite is silent about a full disk
            rows.writerow([f"{number}.png", frame.source, frame.group, frame.licence])
    return taken


def _bared(frames: Sequence[CleanFrame], folder: Path, network: Weights) -> list[CleanFrame]:
    """Copies of frames without the marks that the network finds in them: left in, those would count as false ones."""
    prepare(frames, folder, network)
    return [replace(frame, path=folder / f"{number}.png") for number, frame in enumerate(frames)]


def _thresholds(run: Path, frames: Path, card: Mapping[str, Any], tell: Callable[[str], None]) -> bool:
    """Fit thresholds on the site's validation frames where they are enough, else keep the parent's."""
    parts = Split.read(run / SPLIT, frames)
    enough = _enough(parts.validation)
    if enough:
        with TemporaryDirectory() as folder:
            # As often as its parent, and from where it did.
            looked, closely = float(card.get("second_look", 0.0)), int(card.get("close_ups", 0))
            path = Path(folder) / "model.onnx"
            digest = graph_of(run, path)
            graph = Graph(path, MAX_SIDE, second_look=looked, most_close_ups=closely)
            every = -(-len(parts.validation) // _MOST_CASES)
            some = Split(parts.training, parts.validation[::every])
            calibrate(graph, some, run, min(_MOST_CASES, 10 * len(some.validation)), _SEED, tell, digest)
    else:
        tell("Too few frames to fit thresholds on: the parent's are kept.")
        once = {"second_look": 0.0, "close_ups": 0}
        kept = once | {name: card[name] for name in (*once, "thresholds", "calibration") if name in card}
        write_whole(run / CALIBRATION, tomli_w.dumps(kept))
    return enough


def _change(parent: Weights, child: Weights, side: Side, plan: Plan) -> dict[str, dict[str, float]]:
    """Every figure of both weights on the same frames with the same marks: measure → before and after."""
    before, after = (_figures(each, side, plan) for each in (parent, child))
    return {name: {"before": before[name], "after": after[name]} for name in before if name in after}


def _figures(weights: Weights, side: Side, plan: Plan) -> Figures:
    report = evaluate.Report(weights.card["name"])
    found: Figures = {}
    if not plan.overlaid:
        evaluate.clean_frames(weights, side.frames, report)
        found["clean frames: share of pixels in the mask"] = float(report.clean["share of pixels in the mask"])
        false = sum(value for name, value in report.clean.items() if name.startswith("false "))
        found["clean frames: false annotations a frame"] = false / max(1, len(side.frames))
    evaluate.synthetic_frames(weights, side.frames, plan.samples, _SEED, report)
    found["drawings measured, larger ones left out"] = float(report.drawings.get("measured", 0))
    for kind, row in report.synthetic.items():
        found |= {f"{kind}, drawn: {name}": float(value) for name, value in row.items() if name != "IoU"}
    if side.labels is not None and side.rows:
        evaluate.real_frames(weights, side.labels, report, rows=side.rows)
        for kind, estimates in report.real.items():
            found |= {f"{kind}, real: {name}": float(one.value) for name, one in estimates.items() if one.cases}
    return found


def _describe(
    folder: Path,
    name: str,
    parent: Mapping[str, Any],
    plan: Plan,
    facts: dict[str, Any],
    table: dict[str, dict[str, dict[str, float]]],
) -> None:
    """Card, table and JSON of the adapted weights."""
    card = tomllib.loads((folder / "card.toml").read_text())
    card |= {
        "name": name,
        "parent": {key: parent[key] for key in ("name", "version", "sha256")},
        "parent_data": parent["data"],
        # How the first weights' data were split; the card's own entries are of the site's.
        "home": parent.get("home", {key: parent[key] for key in ("recipe", "seed", "split") if key in parent}),
        "adaptation": facts | {"change": table},
    }
    (folder / "card.toml").write_text(tomli_w.dumps(card))
    whole = {"parent": card["parent"], "sha256": card["sha256"], "plan": asdict(plan), **facts, "change": table}
    write_json(folder / "adaptation.json", whole)
    (folder / "adaptation.md").write_text(_markdown(name, parent, facts, table))


def _markdown(
    name: str, parent: Mapping[str, Any], facts: Mapping[str, Any], table: dict[str, dict[str, dict[str, float]]]
) -> str:
    lines = [
        f"# {name}, adapted from {parent['name']}@{parent['sha256'][:12]}",
        "",
        f"{facts['frames']} frames, layers: {facts['layers']}, {facts['minutes']:g} min; thresholds"
        f" {'fitted on the site' if facts['thresholds_fitted'] else 'of the parent'}. New:"
        f" {facts['test_frames']} frames of the site that training did not see. Old: frames of the data the parent was"
        " made for.",
        "",
        "| data | measure | before | after |",
        "|---|---|---:|---:|",
    ]
    for side, rows in table.items():
        lines += [
            f"| {side} | {what} | {evaluate.shown(row['before'])} | {evaluate.shown(row['after'])} |"
            for what, row in rows.items()
        ]
    if facts["overlaid"]:
        lines += [
            "",
            "The new frames carried marks: they were measured without those that the parent finds. Marks that the"
            " parent missed are still there and count as false where they are found now.",
        ]
    if facts["labelled_frames_left_out"]:
        lines += [
            "",
            f"Real marks of the new data are those of {facts['labelled_frames']} labelled frames;"
            f" {facts['labelled_frames_left_out']} others were left out: their patients were trained on.",
        ]
    if "old" not in table:
        lines += ["", "Forgetting was not measured: give `--old` a folder of the data the parent was made for."]
    return "\n".join(lines) + "\n"
