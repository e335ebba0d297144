"""Recipes, data sets, and a run of a few cells from frames to the page."""

import csv
import errno
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from models.cli import app
from models.dataset import CleanFrame, clean_frames
from models.errors import DataError, RecipeError
from models.reproduction import crops, recipes, results, tables, training
from models.reproduction.datasets import DRAW, parts
from models.reproduction.licences import may_be_shown
from models.reproduction.pipelines import PIPELINES, Defects
from models.reproduction.recipes import BLACK, NUMERALS, UNCHANGED, Cell, Recipe
from models.reproduction.report import Report
from models.reproduction.results import difference, interval
from models.reproduction.run import Job, Workshop
from models.reproduction.scales import Scale, scale, scales

TINY = Scale("tiny", 64, 8, 8, 3, 4, 4, seeds=(1,), example_side=64)
CELL = Cell("body_marker", "costumed_unet", "N2N", "linear", "L1", "AdamW", "corrected")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of speckle from four data sets, listed with licences."""
    root = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(6)
    with (root / "clean.csv").open("w", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["file", "source", "licence"])
        for number in range(12):
            source = ("busi", "usgra", "timtrack_ds2", "hc18")[number % 4]
            name = f"{source}_frame{number}x.png"
            cv2.imwrite(str(root / name), rng.gamma(2, 25, (300, 320)).clip(0, 255).astype(np.uint8))
            rows.writerow([name, source, "CC BY 4.0" if source == "usgra" else "unknown"])
    return root


@pytest.fixture(scope="module")
def workshop(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(folder, tmp_path_factory.mktemp("out"), TINY)


def test_the_recipes_make_all_eight_tables_of_the_paper() -> None:
    every = recipes.recipes()
    assert [numeral for recipe in every for numeral in recipe.tables] == list(NUMERALS)
    assert {recipe.kind for recipe in every} == set(DRAW)
    cells = {cell for recipe in every for cell in recipe.cells}
    for field, wanted in {
        "network": 2 + 8,
        "scheme": 2,
        "input": 2,
        "loss": 8,
        "optimiser": 2,
        "pipeline": 2,
    }.items():
        assert len({getattr(cell, field) for cell in cells}) == wanted, field
    assert len({cell.slug(1) for cell in cells}) == len(cells)


def test_every_scale_is_read_and_smoke_is_small() -> None:
    assert {"smoke", "cpu", "gpu"} <= set(scales())
    sizes = [scale(name).crops_seen * scale(name).side ** 2 for name in ("smoke", "cpu", "gpu")]
    assert sizes == sorted(sizes) and sizes[0] < 200_000
    with pytest.raises(RecipeError, match="enormous"):
        scale("enormous")


def test_a_recipe_with_an_unknown_network_is_refused(tmp_path: Path) -> None:
    text = (recipes.FOLDER / "losses.toml").read_text().replace("costumed_unet", "unet3000")
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(RecipeError, match="unet3000"):
        recipes.load(tmp_path / "wrong.toml")


def frames(*sources: str) -> list[CleanFrame]:
    return [CleanFrame(Path(f"{s}{i}.png"), s, f"{s}:{i // 2}") for s in sources for i in range(40)]


@pytest.mark.parametrize("sources", [("busi", "usgra", "carotids"), ("hospital",)])
def test_no_group_is_in_two_parts(sources: tuple[str, ...]) -> None:
    split = parts(frames(*sources), ("carotids",), ("usgra",), seed=1)
    groups = [{frame.group for frame in part} for part in (split.training, split.validation, split.test)]
    assert all(groups)
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    if len(sources) > 1:
        assert [{f.source for f in part} for part in (split.training, split.validation, split.test)] == [
            {"busi"},
            {"carotids"},
            {"usgra"},
        ]


def test_too_few_frames_for_three_parts_are_refused() -> None:
    with pytest.raises(DataError):
        parts(frames("hospital")[:1], ("carotids",), ("usgra",), seed=1)


def test_drawn_crops_are_kept_and_their_origin_recorded(workshop: Workshop) -> None:
    data = workshop.crops("radial_line", "corrected")
    assert (len(data.training), len(data.test)) == (8, 4)
    assert data.test.noisy.shape == (4, 64, 64, 3)
    assert (set(data.test.sources), set(data.validation.sources)) == ({"usgra"}, {"timtrack_ds2"})
    (manifest,) = workshop.out.glob("data/radial_line-*/manifest.json")
    origin = json.loads(manifest.read_text())
    assert origin["seed"] == TINY.data_seed
    assert set(origin["drawn"]) == {"training", "validation", "test", "examples"}
    before = manifest.stat().st_mtime_ns
    again = workshop.crops("radial_line", "corrected")
    assert manifest.stat().st_mtime_ns == before
    assert np.array_equal(again.test.noisy, data.test.noisy)


def test_room_for_crops_is_taken_before_they_are_drawn(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file that is mapped ends the process by *Bus error* when the disk is full."""

    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(crops, "sample", stop)
    with pytest.raises(Stopped):
        Workshop(folder, tmp_path, TINY).crops("radial_line", "corrected")
    (stored,) = tmp_path.glob("data/radial_line-*/training.npy")
    assert stored.stat().st_blocks * 512 >= stored.stat().st_size > 8 * 64 * 64 * 13

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as refused:
        Workshop(folder, tmp_path, TINY).crops("radial_line", "corrected")
    assert refused.value.filename == str(stored)


@pytest.mark.parametrize("kind", DRAW)
def test_test_crops_carry_marks_and_the_mask_says_where(workshop: Workshop, kind: str) -> None:
    test = workshop.crops(kind, "corrected").test
    for noisy, clean, mask in zip(test.noisy, test.clean, test.mask, strict=True):
        change = cv2.absdiff(np.ascontiguousarray(noisy), np.ascontiguousarray(clean)).max(axis=2)
        assert change.max() > 24
        near = cv2.dilate(mask.astype(np.uint8), np.ones((19, 19), np.uint8)) > 0  # JPEG blurs a mark into its block
        assert (change[~near] < 60).all()


def test_training_is_repeatable_and_goes_on_from_a_checkpoint(workshop: Workshop, tmp_path: Path, monkeypatch) -> None:
    data = workshop.crops("body_marker", "corrected")
    whole = training.train(CELL, TINY, 1, data, tmp_path / "whole.pt")
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)

    class Stopped(Exception):
        pass

    def stop(_: int) -> None:
        """The checkpoint of step 1 is on disk when step 2 reports."""
        if (tmp_path / "cut.pt").exists():
            raise Stopped

    with pytest.raises(Stopped):
        training.train(CELL, TINY, 1, data, tmp_path / "cut.pt", stop)
    resumed = training.train(CELL, TINY, 1, data, tmp_path / "cut.pt")
    for one, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert np.allclose(one.detach(), other.detach(), atol=1e-5)


def a_recipe(*cells: Cell, rows: str = "network") -> Recipe:
    return Recipe("some", "Some cells", ("I", "II"), "4", "body_marker", rows, cells)


def test_a_run_goes_from_frames_to_the_page_and_does_nothing_twice(workshop: Workshop, tmp_path: Path) -> None:
    networks = (UNCHANGED, BLACK, "costumed_unet")
    cells = [replace(CELL, network=network, pipeline=name) for network in networks for name in PIPELINES]
    recipe = a_recipe(*cells, *(replace(cell, scheme="N2C") for cell in cells))
    console = Console(file=io.StringIO())
    workshop.finish([recipe], console, None)
    done = {path: path.stat().st_mtime_ns for path in workshop.cells.glob("*.json")}
    assert len(done) == 12
    workshop.finish([recipe], console, None)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert not list(workshop.cells.glob("*.pt"))

    finished = workshop.finished([recipe])
    by_cell = {result.cell: result for result in finished}
    untouched = by_cell[replace(CELL, network=UNCHANGED)]
    assert untouched.parameters == 0 and np.mean(untouched.values["dice"]) == 0
    assert by_cell[CELL].parameters == 700_611
    assert by_cell[replace(CELL, pipeline="as-published")].threshold is None

    page = tmp_path / "page.md"
    Report(
        scale=TINY,
        recipes=[recipe],
        wanted=len(workshop.jobs([recipe])),
        results=finished,
        examples=lambda kind, name: workshop.crops(kind, name).examples,
        answers=lambda result: np.load(workshop.path(Job(result.cell, result.seed)).with_suffix(".npy")),
    ).write(page)
    text = page.read_text()
    for words in ("**Table I, as-published**", "**Table II, corrected**", "Costumed U-Net (0.7 M)", "usgra-seg"):
        assert words in text
    assert "12 of 12 cells" in text and "not run" not in text
    for picture in ("fig1.webp", "fig2.webp", "fig4.webp"):
        assert cv2.imread(str(page.with_suffix("") / picture)) is not None


def test_the_page_lies_with_its_cells_unless_another_place_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the repository's root, a quick look wrote over the page that is kept there."""
    kept = tmp_path / "docs" / "reproduction.md"
    kept.parent.mkdir()
    kept.write_text("what an earlier run found\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "recipes", lambda: [a_recipe(replace(CELL, network=BLACK))])
    monkeypatch.setattr(tables, "scale", lambda name: replace(TINY, name=name))
    monkeypatch.setattr(tables, "keep_freed_memory", lambda: None)
    run = ["tables", "--scale", "smoke", "--data", str(folder), "--out", "cells"]
    told = CliRunner().invoke(app, run)
    assert told.exit_code == 0, told.output
    assert "1 of 1 cells" in (tmp_path / "cells" / "tables-smoke.md").read_text()
    assert cv2.imread(str(tmp_path / "cells" / "tables-smoke" / "fig1.webp")) is not None
    assert kept.read_text() == "what an earlier run found\n" and [*kept.parent.iterdir()] == [kept]
    told = CliRunner().invoke(app, [*run, "--document", str(kept)])
    assert told.exit_code == 0 and "1 of 1 cells" in kept.read_text()


def test_a_page_of_several_seeds_can_be_complete(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What learns nothing is run once, and its interval cannot be over seeds."""
    monkeypatch.setattr(tables, "recipes", lambda: [a_recipe(replace(CELL, network=BLACK))])
    monkeypatch.setattr(tables, "scale", lambda name: replace(TINY, name=name, seeds=(1, 2, 3)))
    monkeypatch.setattr(tables, "keep_freed_memory", lambda: None)
    told = CliRunner().invoke(app, ["tables", "--data", str(folder), "--out", str(tmp_path / "cells")])
    assert told.exit_code == 0, told.output
    page = " ".join((tmp_path / "cells" / "tables-smoke.md").read_text().split())
    assert "1 of 1 cells" in page
    assert "over seeds; where a row has one seed, as what learns nothing has, over the patient groups" in page


def test_a_spent_time_budget_leaves_cells_for_later(folder: Path, tmp_path: Path) -> None:
    workshop = Workshop(folder, tmp_path, TINY)
    told = io.StringIO()
    workshop.finish([a_recipe(CELL)], Console(file=told, width=200), 0.0)
    assert "1 cells are left" in told.getvalue()
    assert workshop.finished([a_recipe(CELL)]) == []


def result(values: list[float], seed: int = 1) -> results.Result:
    groups = [f"patient {i // 2}" for i in range(len(values))]
    return results.Result(CELL, TINY, seed, 1, None, None, 1.0, {"dice": values}, groups, [])


def test_intervals_are_over_groups_for_one_seed_and_over_seeds_for_several() -> None:
    twins = interval([result([0.2, 0.2, 0.8, 0.8])], "dice")
    assert twins.over == "patient groups" and twins.mean == pytest.approx(0.5)
    # Two groups of two equal values tell as much as two values: t(0.975, 1) · 0.3.
    assert twins.half == pytest.approx(12.706 * 0.3, rel=1e-3)
    several = interval([result([0.4] * 4, 1), result([0.6] * 4, 2)], "dice")
    assert several.over == "seeds" and several.half == pytest.approx(12.706 * 0.1, rel=1e-3)


def test_a_difference_is_taken_crop_by_crop() -> None:
    one, other = [0.1, 0.5, 0.9, 0.3], [0.0, 0.4, 0.8, 0.2]
    assert difference([result(one)], [result(other)], "dice").sign == 1
    assert difference([result(other)], [result(one)], "dice").sign == -1
    assert difference([result(one)], [result([0.9, 0.5, 0.1, 0.3])], "dice").sign == 0


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    written = result([0.25, 0.5])
    written.write(tmp_path / "cell.json")
    assert results.read(tmp_path / "cell.json") == written


def test_pictures_show_only_frames_that_may_be_shown(folder: Path) -> None:
    frames_ = {frame.path.name: frame for frame in clean_frames(folder)}
    free = frames_["usgra_frame1x.png"]
    assert may_be_shown(free)
    assert not may_be_shown(frames_["busi_frame0x.png"])
    for other in ({"source": "busi"}, {"licence": "CC BY-SA 4.0"}, {"licence": ""}):
        assert not may_be_shown(replace(free, **other))


def test_cells_of_other_frames_or_another_size_do_not_count(folder: Path, tmp_path: Path) -> None:
    """One folder for the finished cells of all: what was measured elsewhere must not stand in one table."""
    fewer = shutil.copytree(folder, tmp_path / "fewer")
    rows = (fewer / "clean.csv").read_text().splitlines()
    (fewer / "clean.csv").write_text("\n".join(rows[:-1]) + "\n")
    places = {
        Workshop(data, tmp_path / "out", scale_).path(Job(CELL, 1))
        for data, scale_ in ((folder, TINY), (fewer, TINY), (folder, replace(TINY, crops_seen=16)), (folder, TINY))
    }
    assert len(places) == 3


def test_the_data_of_two_pipelines_with_the_same_samples_are_shared(workshop: Workshop) -> None:
    scoring_only = Defects(otsu_threshold=True, wrapping_uint8=True)
    assert not any(getattr(scoring_only, switch) for switch in crops.DATA_SWITCHES)
    one = workshop.crops("body_marker", "corrected")
    other = workshop.crops("body_marker", "corrected with otsu_threshold")
    assert np.array_equal(one.training.noisy, other.training.noisy)
    assert len(list(workshop.out.glob("data/body_marker-*"))) <= 2
