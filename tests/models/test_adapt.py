"""Adaptation of released weights to a site, and their quantised form: what is written, and what is refused."""

from __future__ import annotations

import json
import shutil
import tomllib
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w
import torch

from models import adapt as adaptation
from models import quantise as quantisation
from models.adapt import Plan, adapt, prepare
from models.architectures.unshuffle_unet import UnshuffleUNet
from models.dataset import CleanFrame, Split, clean_frames, read_frame, split
from models.errors import DataError, RecipeError, TrainingError
from models.layers import hold_statistics, hold_still
from models.recipe import load
from models.served import Weights
from service.analyse.restoration import Network
from tests.models.tiny_weights import write_labels, write_speckle, write_tiny_weights

SHIPPED = Path("models/weights/sonomark")
PLAN = Plan(layers="normalisation", minutes=0.02, samples=4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speckle(tmp_path_factory.mktemp("site"), 14)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe of an adaptation with crops that a test has time for."""
    smoke, whole = load("smoke"), load("adapt")
    quick = whole.__class__(**{**vars(whole), "crops": smoke.crops, "pool": 16, "batch": 2})
    monkeypatch.setattr(adaptation.recipe, "load", lambda name: quick if name == "adapt" else load(name))


def silent(_: str) -> None:
    pass


@pytest.mark.usefixtures("small")
def test_adapted_weights_name_their_parent_and_say_what_changed(weights: Path, site: Path, tmp_path: Path) -> None:
    out = adapt(weights, site, tmp_path / "adapted", PLAN, site, silent)
    parent, card = (tomllib.loads((folder / "card.toml").read_text()) for folder in (weights, out))
    assert card["parent"]["sha256"] == parent["sha256"] != card["sha256"]
    assert card["steps"] > parent["steps"] and card["thresholds"] == parent["thresholds"]
    assert card["adaptation"]["frames"] + card["adaptation"]["test_frames"] == 14
    assert not card["adaptation"]["thresholds_fitted"]
    told = json.loads((out / "adaptation.json").read_text())
    assert set(told["change"]) == {"old", "new"}
    assert all(set(row) == {"before", "after"} for rows in told["change"].values() for row in rows.values())
    assert "caliper, drawn: Dice" in (out / "adaptation.md").read_text()
    assert Network(out).name.startswith("adapted@")
    assert [path.name for path in tmp_path.iterdir()] == ["adapted"]


@pytest.mark.usefixtures("small")
def test_what_could_not_be_measured_is_null_in_an_adaptations_json(
    weights: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a kind that was drawn on no frame there is no sensitivity."""
    change = {"arrow, drawn: sensitivity": {"before": float("nan"), "after": float("nan")}}
    monkeypatch.setattr(adaptation, "_change", lambda *_: change)
    out = adapt(weights, site, tmp_path / "adapted", PLAN, None, silent)
    text = (out / "adaptation.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["change"]["new"] == {"arrow, drawn: sensitivity": {"before": None, "after": None}}
    assert "| new | arrow, drawn: sensitivity | – | – |" in (out / "adaptation.md").read_text()


@pytest.mark.usefixtures("small")
def test_the_released_weights_without_a_minute_of_training_are_what_they_were(site: Path, tmp_path: Path) -> None:
    """What is read from their graph and exported again measures the same, on new data and on old."""
    out = adapt(SHIPPED, site, tmp_path / "adapted", Plan(minutes=0.0, samples=3), site, silent)
    change = json.loads((out / "adaptation.json").read_text())["change"]
    assert set(change) == {"new", "old"}
    for rows in change.values():
        assert any(row["before"] not in (None, 0) for row in rows.values())
        for row in rows.values():
            assert row["before"] == row["after"] or row["after"] == pytest.approx(row["before"], abs=0.01)


@pytest.mark.usefixtures("small")
def test_an_adaptation_that_fails_leaves_nothing(weights: Path, site: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("The measure failed.")

    monkeypatch.setattr(adaptation, "_change", fail)
    for out in ("adapted", "for/the/ward"):
        with pytest.raises(TrainingError, match="measure"):
            adapt(weights, site, tmp_path / out, PLAN, None, silent)
        assert list(tmp_path.iterdir()) == []


def test_validation_frames_are_drawn_anew_where_thresholds_can_be_fitted(site: Path) -> None:
    """The draw that set the test frames aside leaves one group below the share; thresholds need many."""
    chosen = load("adapt")
    frames = [CleanFrame(Path(f"{number}.png"), "ward", f"patient {number}") for number in range(200)]
    training = split(frames, (), adaptation.TEST_SHARE, chosen.seed).training
    drawn = adaptation._with_validation(chosen, training)
    assert len(split(training, (), drawn.split.share, drawn.seed).validation) >= adaptation.ENOUGH_FRAMES
    assert adaptation._with_validation(chosen, training[:40]) == chosen
    assert len(split(training[:40], (), chosen.split.share, chosen.seed).validation) == 1


@pytest.mark.usefixtures("small")
def test_adapted_weights_look_again_as_their_parent_does(site: Path, tmp_path: Path) -> None:
    """Its thresholds were fitted at its own scale; an own recipe's split is in the card, not among the recipes."""
    parent = write_tiny_weights(tmp_path / "parent")
    card = tomllib.loads((parent / "card.toml").read_text())
    card["thresholds"]["body_marker"]["far"] = 0.25
    card |= {"second_look": 0.5, "close_ups": 2, "recipe": "our-own", "split": {"held_out_sources": [], "share": 0.4}}
    (parent / "card.toml").write_text(tomli_w.dumps(card))
    adapted = adapt(parent, site, tmp_path / "adapted", PLAN, site, silent)
    child = tomllib.loads((adapted / "card.toml").read_text())
    assert (child["second_look"], child["close_ups"]) == (0.5, 2) and child["thresholds"] == card["thresholds"]
    assert child["split"]["share"] == load("adapt").split.share


@pytest.mark.parametrize(("scale", "most"), [(0.0, 0), (0.5, 3)])
def test_thresholds_of_a_site_are_fitted_on_its_parents_looks(
    scale: float, most: int, weights: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr(adaptation, "_enough", lambda frames: True)
    monkeypatch.setattr(adaptation, "graph_of", lambda run, path: shutil.copy(weights / "model.onnx", path))
    told = attrgetter("second_look", "most_close_ups")
    monkeypatch.setattr(adaptation, "calibrate", lambda graph, *_: looked.append(told(graph)))
    (tmp_path / "run").mkdir()
    split(clean_frames(site), (), 0.4, 1).write(tmp_path / "run" / "split.json", site)
    assert adaptation._thresholds(tmp_path / "run", site, {"second_look": scale, "close_ups": most}, silent)
    assert looked == [(scale, most)]


def test_weights_are_never_overwritten(weights: Path, site: Path) -> None:
    with pytest.raises(TrainingError, match="there already"):
        adapt(weights, site, weights, PLAN, None, silent)


def test_a_site_without_frames_and_changed_weights_are_refused(weights: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No image"):
        adapt(weights, tmp_path / "empty", tmp_path / "out", PLAN, None, silent)
    changed = write_tiny_weights(tmp_path / "changed")
    with (changed / "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(DataError, match="not the file its card describes"):
        adapt(changed, site, tmp_path / "out", PLAN, None, silent)


def test_marks_that_are_there_already_are_taken_away_first(tmp_path: Path) -> None:
    """The shipped network finds a caliper on speckle; what it finds is gone from what is trained on."""
    frame = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 120, (256, 320), np.uint8), (0, 0), 2)
    marked = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    for x, y in ((90, 120), (220, 140)):
        cv2.drawMarker(marked, (x, y), (255, 255, 0), cv2.MARKER_CROSS, 15, 1)
    cv2.imwrite(str(tmp_path / "marked.png"), marked[..., ::-1])
    frames = [CleanFrame(tmp_path / "marked.png", "site", "site:1", "", "CC0")]
    shipped = Weights(SHIPPED)
    taken = prepare(frames, tmp_path / "prepared", shipped)
    (prepared,) = clean_frames(tmp_path / "prepared")
    assert (prepared.source, prepared.group, prepared.licence) == ("site", "site:1", "CC0")
    yellow = [
        int(((image[..., 0] > 200) & (image[..., 2] < 60)).sum()) for image in (marked, read_frame(prepared.path))
    ]
    assert taken >= 1 and yellow[0] > 40 and yellow[1] < yellow[0] / 4
    assert prepare(frames, tmp_path / "as_they_are", None) == 0
    assert (read_frame(tmp_path / "as_they_are" / "0.png") == marked).all()


@pytest.mark.parametrize(("layers", "share"), [("all", 1.0), ("last", 0.5), ("normalisation", 0.1)])
def test_only_the_named_layers_are_trained(layers: str, share: float) -> None:
    network = UnshuffleUNet(channels=(8, 8, 8, 8, 8))
    hold_still(network, layers)
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    assert 0 < trained / sum(weight.numel() for weight in network.parameters()) <= share
    with pytest.raises(RecipeError, match="nothing"):
        hold_still(network, "nothing")


def test_quantised_weights_are_written_where_no_verdict_changes(site: Path, tmp_path: Path) -> None:
    weights = write_tiny_weights(tmp_path / "weights")
    write_labels(site, ["tissue_0a.png", "tissue_1a.png"])
    before = (weights / "model.onnx").read_bytes()
    graph = quantisation.quantise(weights, site, 2, silent)
    card = tomllib.loads((weights / "card.toml").read_text())
    assert card["quantised"]["sha256"] == sha256(graph.read_bytes()).hexdigest()
    assert card["quantised"]["verdicts_changed"] == 0 and card["quantised"]["real_frames"] == 2
    assert set(card["quantised"]["frames_per_second"]) == {"float32", "int8"}
    assert (weights / "model.onnx").read_bytes() == before
    assert Network(weights).name.endswith("+int8")
    frame = read_frame(site / "tissue_0a.png")
    in_bytes = Network(weights).restore([frame])[0].kinds.astype(int)
    assert np.abs(in_bytes - Weights(weights).graph(frame).kinds).mean() < 8


def test_a_changed_verdict_keeps_quantised_weights_from_being_written(site: Path, tmp_path: Path, monkeypatch) -> None:
    weights = write_tiny_weights(tmp_path / "weights")
    write_labels(site, ["tissue_0a.png"])
    answers = iter([[["absent"] * 5]] + [[["absent"] * 4 + ["uncertain"]]] * len(quantisation.KEPT_IN_FLOAT))
    monkeypatch.setattr(quantisation, "verdicts", lambda *_: next(answers))
    before = {path.name: path.read_bytes() for path in weights.iterdir()}
    told: list[str] = []
    with pytest.raises(TrainingError, match="nothing was written"):
        quantisation.quantise(weights, site, 1, told.append)
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == before
    assert any("arrow absent → uncertain" in line for line in told)


def test_without_annotated_frames_nothing_is_quantised(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv"):
        quantisation.quantise(weights, write_speckle(tmp_path / "plain", 4), 1, silent)


@pytest.mark.parametrize(("layers", "moves"), [("all", True), ("last", False), ("normalisation", False)])
def test_statistics_move_only_where_all_layers_learn(layers: str, moves: bool) -> None:
    network = UnshuffleUNet(channels=(8, 8, 8, 8, 8), dilations=(1,)).train()
    hold_statistics(network, layers)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.rand(2, 3, 64, 64))
    assert any(not torch.equal(before[name], buffer) for name, buffer in network.named_buffers()) is moves


def labelled_site(folder: Path) -> Path:
    """As `sonomark corrections` writes it: the same rows as frames.csv and labels.csv, of eight patients; and one frame
    more of each that is labelled alone."""
    write_speckle(folder, 16)
    files = [f"tissue_{number}a.png" for number in range(16)]
    write_labels(folder, files)
    head, *rows = (folder / "labels.csv").read_text().splitlines()
    named = [f"{head},group", *(f"{row},patient {number % 8}" for number, row in enumerate(rows))]
    (folder / "labels.csv").write_text("\n".join(named) + "\n")
    (folder / "frames.csv").write_text("\n".join(named[:9]) + "\n")
    return folder


@pytest.mark.usefixtures("small")
def test_what_was_trained_on_is_not_measured_on(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels of reviewers are of the very frames that are adapted to."""
    site = labelled_site(tmp_path / "site")
    parts = split(clean_frames(site), (), adaptation.TEST_SHARE, load("adapt").seed)
    trained, kept = ({int(frame.group.split()[1]) for frame in side} for side in (parts.training, parts.validation))
    looked_at = set()

    def noted(path: Path) -> np.ndarray:
        looked_at.add(int(path.stem.removeprefix("tissue_").removesuffix("a")))
        return read_frame(path)

    monkeypatch.setattr(adaptation.evaluate, "read_frame", noted)
    told: list[str] = []
    out = adapt(weights, site, tmp_path / "adapted", PLAN, None, told.append)
    assert trained and kept
    assert looked_at == {number for number in range(16) if number % 8 in kept}
    card = tomllib.loads((out / "card.toml").read_text())["adaptation"]
    assert (card["labelled_frames"], card["labelled_frames_left_out"]) == (2 * len(kept), 2 * len(trained))
    assert f"of {2 * len(kept)} labelled frames; {2 * len(trained)} others" in (out / "adaptation.md").read_text()


@pytest.mark.usefixtures("small")
def test_labels_of_nobody_else_are_not_measured_on(weights: Path, tmp_path: Path) -> None:
    site = labelled_site(tmp_path / "site")
    parts = split(clean_frames(site), (), adaptation.TEST_SHARE, load("adapt").seed)
    write_labels(site, [frame.path.name for frame in parts.training])
    out = adapt(weights, site, tmp_path / "adapted", PLAN, None, silent)
    assert not any(", real:" in name for name in json.loads((out / "adaptation.json").read_text())["change"]["new"])


@pytest.mark.usefixtures("small")
def test_marks_that_are_there_already_do_not_count_as_false(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test frames of an overlaid site bear a caliper each, which nobody drew for the measure."""
    bare, marked = write_speckle(tmp_path / "bare", 8, side=256), tmp_path / "marked"
    marked.mkdir()
    for path in bare.glob("*.png"):
        frame = cv2.imread(str(path))
        for x, y in ((90, 120), (190, 140)):
            cv2.drawMarker(frame, (x, y), (0, 255, 255), cv2.MARKER_CROSS, 15, 1)
        cv2.imwrite(str(marked / path.name), frame)
    measured: list[np.ndarray] = []

    def noted(weights: Weights, frames: list[CleanFrame], *_: object) -> None:
        measured.extend(read_frame(frame.path) for frame in frames)

    monkeypatch.setattr(adaptation.evaluate, "synthetic_frames", noted)
    overlaid = Plan(minutes=0.0, samples=3, overlaid=True)
    out = adapt(SHIPPED, marked, tmp_path / "adapted", overlaid, None, silent)
    assert measured
    for frame in measured:
        assert ((frame[..., 0] > 200) & (frame[..., 2] < 60)).sum() < 10, "a yellow cross is left"
    assert "Marks that the parent missed are still there" in (out / "adaptation.md").read_text()


def test_thresholds_of_a_large_site_are_fitted_on_as_much_as_memory_holds(
    weights: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each case is megabytes: a thousand frames and ten drawings of each ended the process without a word."""
    fitted = []
    monkeypatch.setattr(adaptation, "graph_of", lambda run, path: shutil.copy(weights / "model.onnx", path))
    monkeypatch.setattr(adaptation, "calibrate", lambda graph, parts, run, samples, *_: fitted.append((parts, samples)))
    (tmp_path / "run").mkdir()
    one, *others = clean_frames(site)
    many = tuple(CleanFrame(one.path, "ward", f"patient {number}") for number in range(1000))
    for held_out in (many, many[:30]):
        Split(tuple(others), held_out).write(tmp_path / "run" / "split.json", site)
        assert adaptation._thresholds(tmp_path / "run", site, {}, silent)
    (large, drawn_of_large), (small, drawn_of_small) = fitted
    assert 100 <= len(large.validation) <= 400 >= drawn_of_large and len(set(large.validation)) == len(large.validation)
    assert (len(small.validation), drawn_of_small) == (30, 300)
