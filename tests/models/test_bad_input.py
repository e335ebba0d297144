"""What a data scientist may get wrong: a clear error each, and nothing half-written."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w
import torch
from pydicom import examples
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UID_dictionary
from typer.testing import CliRunner

from models import calibrate as calibration
from models import evaluate, export, pool, recipe
from models import train as training
from models.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from models.cli import app
from models.compare import samples
from models.dataset import Split, clean_frames, read_frame, split
from models.distributed import Ranks
from models.errors import DataError, Diverged, LeakySplit, TrainingError, of_the_system
from models.runs import SPLIT, alone_in, average_runs
from models.served import Weights
from models.train import train
from service.analyse.annotations import Calibration, Thresholds
from service.dicom import pixels
from tests.descriptors import no_descriptor_left
from tests.models.tiny_weights import write_labels, write_speckle, write_tiny_weights

LIMITS = Thresholds(pixel=0.5, min_pixels=12, absent=0.2, present=0.5)
WEIGHTS = Calibration(-6.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speckle(tmp_path_factory.mktemp("frames"), 6)


@pytest.fixture
def tiny() -> recipe.Recipe:
    smoke = recipe.load("smoke")
    return replace(smoke, steps=4, batch=2, pool=16)


def test_an_interrupted_run_leaves_a_whole_checkpoint_and_goes_on(
    data: Path, tiny: recipe.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = training.follow
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)

    def interrupted(*arguments) -> None:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        follow(*arguments)

    monkeypatch.setattr(training, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, data, tmp_path / "run")
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["state"]["step"] == 2
    assert not list((tmp_path / "run").glob("*.part"))
    monkeypatch.setattr(training, "follow", follow)
    for other in ({"recipe": replace(tiny, seed=9)}, {"start_from": tmp_path / "elsewhere"}):
        with pytest.raises(TrainingError, match="holds a run already"):
            train(**{"recipe": tiny, "data": data, "run": tmp_path / "run", **other})
    train(tiny, data, tmp_path / "run")  # the same command again
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["state"]["step"] == 4
    with pytest.raises(TrainingError, match="holds a run already"):
        train(tiny, data, tmp_path / "run")
    train(replace(tiny, steps=5), data, tmp_path / "run", resume=True)
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["state"]["step"] == 5


def test_a_run_is_trained_by_one_process_at_a_time(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with alone_in(tmp_path / "run", Ranks()), pytest.raises(TrainingError, match="Another process trains"):
        train(tiny, data, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    train(replace(tiny, steps=1), data, tmp_path / "run")


def test_a_damaged_checkpoint_is_named(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"PK cut off")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged"):
        export.export(tmp_path, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_a_run_that_was_not_calibrated_is_not_exported(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    run = train(replace(tiny, steps=1), data, tmp_path / "run")
    (tmp_path / "there").mkdir()
    for weights, broken in (("weights", None), ("for/the/ward", "thresholds = "), ("there", "close_ups = 0")):
        if broken:
            (run / "calibration.toml").write_text(broken)
        with pytest.raises(TrainingError, match="not calibrated"):
            export.export(run, tmp_path / weights)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "there"} and not any((tmp_path / "there").iterdir())


def test_a_calibration_of_other_weights_is_not_exported(
    data: Path, tiny: recipe.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is calibrated, trained further and exported had the thresholds of before, and nobody was told."""
    monkeypatch.setattr(calibration, "fit", lambda *_: calibration.Fitted(LIMITS, WEIGHTS, 0.0, 1.0, 1.0))
    run = train(replace(tiny, steps=1), data, tmp_path / "run")
    calibrate = ["calibrate", str(run), "--data", str(data), "--samples", "1", "--close-ups", "0"]
    assert CliRunner().invoke(app, calibrate).exit_code == 0
    export.export(run, tmp_path / "first")
    train(replace(tiny, steps=2), data, run, resume=True)
    with pytest.raises(TrainingError, match=r"calibration\.toml was fitted on other weights") as refused:
        export.export(run, tmp_path / "second")
    assert "models calibrate" in refused.value.cure and not (tmp_path / "second").exists()
    tables = tomllib.loads((run / "calibration.toml").read_text())
    assert "weights" not in tomllib.loads((tmp_path / "first" / "card.toml").read_text())
    del tables["weights"]  # as runs of before have it
    (run / "calibration.toml").write_text(tomli_w.dumps(tables))
    export.export(run, tmp_path / "third")
    assert CliRunner().invoke(app, calibrate).exit_code == 0
    export.export(run, tmp_path / "fourth")


def test_a_manifest_that_is_missing_broken_or_shares_a_patient_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Split.read(tmp_path / SPLIT, data)
    (tmp_path / SPLIT).write_text('{"training": []')
    with pytest.raises(DataError, match="cannot be read"):
        Split.read(tmp_path / SPLIT, data)
    parts = split(clean_frames(data), (), 0.3, 1)
    parts.write(tmp_path / SPLIT, data)
    with pytest.raises(DataError, match=r"6 files of the split in .* are not there") as refused:
        Split.read(tmp_path / SPLIT, tmp_path)
    assert "folder that the run was trained on" in refused.value.cure
    sides = json.loads((tmp_path / SPLIT).read_text())
    sides["validation"][0]["group"] = sides["training"][0]["group"]
    (tmp_path / SPLIT).write_text(json.dumps(sides))
    with pytest.raises(LeakySplit, match="share 1 groups"):
        Split.read(tmp_path / SPLIT, data)


def test_a_listing_without_its_columns_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "frames.csv").write_text("path,ward\na.png,here\n")
    with pytest.raises(DataError, match="no column 'file'"):
        clean_frames(tmp_path)
    (tmp_path / "labels.csv").write_text("file,source\na.png,here\n")
    weights = Weights(write_tiny_weights(tmp_path / "weights"))
    with pytest.raises(DataError, match="no column of any kind"):
        evaluate.real_frames(weights, tmp_path / "labels.csv", evaluate.Report("tiny"))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no weights"):
        Weights(tmp_path)
    weights = write_tiny_weights(tmp_path / "weights")
    (weights / "card.toml").write_text("name = ")
    with pytest.raises(DataError, match="holds no weights"):
        Weights(weights)


@pytest.mark.parametrize("seed", range(6))
def test_a_few_patients_are_enough_for_a_split(data: Path, seed: int) -> None:
    frames = clean_frames(data)[:3]
    parts = split(frames, (), 0.25, seed)
    assert parts.training and parts.validation
    with pytest.raises(DataError, match="no frame for"):
        split(frames[:1], (), 0.25, seed)


def test_a_run_is_never_written_over(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    run = train(replace(tiny, steps=1), data, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(TrainingError, match="holds a run already"):
        train(replace(tiny, seed=9), data, run)
    with pytest.raises(TrainingError, match="holds a run already"):
        average_runs([run, run], run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_loss_that_is_no_number_says_whether_there_is_a_checkpoint(
    data: Path, tiny: recipe.Recipe, tmp_path: Path
) -> None:
    wild = replace(tiny, optimiser=replace(tiny.optimiser, rate=float("inf")))
    with pytest.raises(Diverged, match=r"no checkpoint in .*run yet\. Begin again"):
        train(wild, data, tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    train(replace(tiny, steps=1), data, tmp_path / "other")
    with pytest.raises(Diverged, match="is from before"):
        train(wild, data, tmp_path / "other", resume=True)


def test_what_is_for_measuring_is_never_trained_on(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "ward")
    write_speckle(folder / "annotated", 2, side=120)
    assert len(clean_frames(folder)) == 8, "a folder of that name alone says nothing"
    write_labels(folder / "annotated", ["tissue_0a.png", "tissue_1a.png"])
    assert {frame.path.parent for frame in clean_frames(folder)} == {folder}


def test_a_spreadsheets_csv_is_read(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "Bilder für Größe")
    (folder / "frames.csv").write_bytes("file;source\r\ntissue_0a.png;Bäder\r\ntissue_1a.png\r\n".encode("utf-8-sig"))
    assert [frame.source for frame in clean_frames(folder)] == ["Bäder", ""]
    (folder / "frames.csv").write_bytes("file,source\ntissue_0a.png,Bäder\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"frames\.csv is not in UTF-8"):
        clean_frames(folder)
    (folder / "frames.csv").write_text("file,source\n,here\n")
    with pytest.raises(DataError, match=r"Line 2 of .*frames\.csv names no file"):
        clean_frames(folder)


def test_a_quote_that_is_not_closed_is_told(tmp_path: Path) -> None:
    rows = "".join(f"{number}.png,here\n" for number in range(12_000))
    (tmp_path / "frames.csv").write_text(f'file,source\n"0.png,here\n{rows}')
    with pytest.raises(DataError, match=r"frames\.csv cannot be read from line 2 on") as refused:
        clean_frames(tmp_path)
    assert "quote" in refused.value.cure


def test_whatever_the_system_refuses_has_a_cure() -> None:
    for number in (errno.EIO, errno.ENOSPC, errno.EACCES, errno.ENAMETOOLONG):
        assert of_the_system(OSError(number, os.strerror(number), "a/file")).cure


def test_weights_that_are_written_over_are_named(data: Path, tiny: recipe.Recipe, tmp_path: Path, monkeypatch) -> None:
    run = train(replace(tiny, steps=1), data, tmp_path / "run")
    weights = write_tiny_weights(tmp_path / "weights")
    card = tomllib.loads((weights / "card.toml").read_text())
    reading = {name: card[name] for name in ("thresholds", "calibration")}
    (run / "calibration.toml").write_text(tomli_w.dumps(reading))
    monkeypatch.chdir(weights)
    told = CliRunner().invoke(app, ["export", str(run), "."])
    assert told.exit_code == 0
    assert f"Written over: tiny@{card['sha256'][:12]}" in told.output
    assert tomllib.loads((weights / "card.toml").read_text())["name"] == "weights"


def test_a_listing_may_name_files_anywhere(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [data / "tissue_0a.png", data / "tissue_1a.png", "../beside.png"]
    shutil.copy(data / "tissue_2a.png", tmp_path / "beside.png")
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "frames.csv").write_text("file,source\n" + "".join(f"{file},here\n" for file in listed))
    monkeypatch.chdir(tmp_path)
    for root in (Path("ward"), tmp_path / "ward"):
        split(clean_frames(root), (), 0.3, 1).write(tmp_path / SPLIT, root)
        parts = Split.read(tmp_path / SPLIT, root)
        assert len([read_frame(frame.path) for frame in parts.training + parts.validation]) == 3


@pytest.mark.parametrize("said", ["yes", "2", "True"])
def test_a_label_that_is_none_is_refused(data: Path, tmp_path: Path, said: str) -> None:
    (tmp_path / "labels.csv").write_text(f"file,source,caliper,arrow\na.png,here,1,\nb.png,here,{said},0\n")
    with pytest.raises(DataError, match=f"says '{said}' of caliper in b.png") as refused:
        evaluate.labelled(tmp_path / "labels.csv")
    assert "unsure" in refused.value.cure


def without_pixels() -> bytes:
    from io import BytesIO

    header, file = examples.rgb_color, BytesIO()
    del header.PixelData
    header.save_as(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jpg", lambda: jpeg()[: len(jpeg()) // 2]),
        ("cut.png", lambda: cv2.imencode(".png", speckled())[1].tobytes()[:900]),
        ("nothing.png", lambda: b""),
        ("letter.dcm", lambda: b"Dear colleague, " * 30),
        ("report.dcm", without_pixels),
    ],
)
def test_a_file_that_is_no_image_is_named(data: Path, tmp_path: Path, name: str, content: Callable[[], bytes]) -> None:
    folder = shutil.copytree(data, tmp_path / "frames")
    (folder / name).write_bytes(content())
    with pytest.raises(DataError, match=f"{name} is not an image that can be read") as refused:
        clean_frames(folder)
    assert refused.value.cure


def test_a_disk_that_fails_is_no_reason_to_remove_a_frame() -> None:
    pixels.close_decoders()
    pixels.start_decoder()
    (decoder,) = pixels._decoders._idle
    path = Path(examples.get_path("rgb_color"))
    with no_descriptor_left(decoder._process.pid), pytest.raises(DataError, match="could not be read") as refused:
        read_frame(path)
    assert "remove" not in refused.value.cure
    assert read_frame(path).ndim == 3


def test_a_patient_of_a_dicom_export_is_one_group_in_whatever_folder(tmp_path: Path) -> None:
    """Exports have a folder for each series, and a table of contents."""
    for number, patient in enumerate("AABB"):
        frame = cv2.GaussianBlur(np.random.default_rng(number).integers(0, 255, (90, 120, 3), np.uint8), (0, 0), 2)
        file = examples.rgb_color
        file.PatientID, file.Rows, file.Columns, file.PixelData = patient, *frame.shape[:2], frame.tobytes()
        (tmp_path / f"series {number}").mkdir()
        file.save_as(tmp_path / f"series {number}" / "IM0")
    shutil.copy(get_testdata_file("DICOMDIR"), tmp_path)
    frames = clean_frames(tmp_path)
    groups = {frame.path.parent.name[-1]: frame.group for frame in frames}
    assert groups["0"] == groups["1"] != groups["2"] == groups["3"] and len(frames) == 4
    assert not any(group.endswith("A") for group in groups.values()), "a patient's number is no name of a group"
    shutil.rmtree(tmp_path / "series 2")
    shutil.rmtree(tmp_path / "series 3")
    with pytest.raises(DataError, match="2 frames of 1 groups"):
        split(clean_frames(tmp_path), (), 0.25, 1)


def other_object(name: str, **elements: object) -> bytes:
    """A DICOM file of a storage class by its name, without pixels."""
    from io import BytesIO

    of = Dataset()
    of.SOPClassUID = next((uid for uid, (called, *_) in UID_dictionary.items() if called == name), name)
    of.SOPInstanceUID, of.PatientID, of.StudyInstanceUID = "1.2.3.4", "A", "1.2.3"
    for keyword, value in elements.items():
        setattr(of, keyword, value)
    of.file_meta = FileMetaDataset()
    of.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    of.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_objects_of_an_export_that_are_no_pictures_are_passed_over_and_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first structured report in it ended the reading of a PACS's export."""
    folder = shutil.copytree(data, tmp_path / "export")
    others = {
        "IM9": other_object("Comprehensive SR Storage"),
        "report.dcm": other_object("Encapsulated PDF Storage", EncapsulatedDocument=b"%PDF"),
        "IM7": other_object("Grayscale Softcopy Presentation State Storage"),
        "IM8": other_object("Segmentation Storage", Rows=90, Columns=120),
        "IM6": other_object("1.3.46.670589.2.11.1.1"),
    }
    for name, content in others.items():
        (folder / name).write_bytes(content)
    assert [frame.path.name for frame in clean_frames(folder)] == [f"tissue_{n}a.png" for n in range(6)]
    told = capsys.readouterr().err
    assert told == f"{folder}: 5 DICOM objects that are no pictures (reports and the like) were passed over.\n"
    for image in data.iterdir():
        (folder / image.name).unlink()
    with pytest.raises(DataError, match="No image"):
        clean_frames(folder)


@pytest.mark.parametrize(
    "content",
    [
        lambda: other_object("Ultrasound Image Storage"),
        lambda: other_object("Enhanced US Volume Storage"),
        lambda: other_object("1.3.46.670589.2.11.1.1", Rows=90, Columns=120),
        lambda: other_object("1.2.840.10008.5.1.4.1.1.40", Rows=90, Columns=120),
        lambda: other_object("Comprehensive SR Storage").replace(b"\x08\x00\x16\x00", b"\x08\x00\x17\x00"),
        lambda: other_object("Comprehensive SR Storage")[:200],
    ],
    ids=["image", "volume", "unknown, with rows", "retired without a name, with rows", "of no class", "cut off"],
)
def test_a_picture_that_lacks_its_pixels_is_named(data: Path, tmp_path: Path, content: Callable[[], bytes]) -> None:
    folder = shutil.copytree(data, tmp_path / "export")
    (folder / "IM9").write_bytes(content())
    with pytest.raises(DataError, match="IM9 is not an image that can be read"):
        clean_frames(folder)


def test_an_object_that_a_listing_names_is_no_picture_to_pass_over(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "export")
    (folder / "IM9").write_bytes(other_object("Comprehensive SR Storage"))
    (folder / "frames.csv").write_text("file,source\ntissue_0a.png,here\nIM9,here\n")
    with pytest.raises(DataError, match="IM9 is not an image that can be read"):
        clean_frames(folder)


def test_crops_are_drawn_where_training_is_all_that_a_container_runs(data: Path, tmp_path: Path) -> None:
    """There it is process 1, which elsewhere adopts workers whose trainer is gone."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no process a numbering of its own")
    recipe_ = tmp_path / "tiny.toml"
    smoke = (recipe.RECIPES / "smoke.toml").read_text()
    recipe_.write_text(smoke.replace("steps = 60", "steps = 1").replace("pool = 64", "pool = 8"))
    train_ = ["-m", "models", "train", str(recipe_), "--data", str(data), "--out", str(tmp_path / "run")]
    ended = subprocess.run(
        [*command, sys.executable, *train_], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)["state"]["step"] == 1


def speckled() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8)


def jpeg() -> bytes:
    return cv2.imencode(".jpg", speckled())[1].tobytes()


def test_frames_of_any_kind_and_size_are_read_as_displayed(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    cv2.imwrite(str(tmp_path / "grey.png"), deep.astype(np.uint8))
    cv2.imwrite(str(tmp_path / "clear.png"), np.dstack([speckled(), speckled()[..., 0]]))
    cv2.imwrite(str(tmp_path / "large.jpg"), np.zeros((4000, 6000, 3), np.uint8))
    shutil.copy(examples.get_path("rgb_color"), tmp_path / "1.2.840.7")
    frames = {frame.path.name: read_frame(frame.path) for frame in clean_frames(tmp_path)}
    shapes = {name: frame.shape for name, frame in frames.items()}
    tall, wide = shapes.pop("1.2.840.7")[:2]
    assert min(tall, wide) > 200
    assert shapes == {
        "deep.png": (20, 30, 3),
        "grey.png": (20, 30, 3),
        "clear.png": (90, 120, 3),
        "large.jpg": (4000, 6000, 3),
    }
    assert (frames["deep.png"][..., 0] == deep >> 8).all() and (frames["clear.png"] == speckled()[..., ::-1]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card.update(second_look=2.0), "second_look is 2.0"),
        (lambda card: card.update(second_look=-1), "second_look is -1"),
        (lambda card: card.update(second_look="x"), "second_look is 'x'"),
        (lambda card: card.update(close_ups=17), "close_ups is 17"),
        (lambda card: card["thresholds"]["caliper"].update(close=-1), "thresholds.caliper.close is -1"),
        (lambda card: card["thresholds"]["caliper"].update(far="x"), "thresholds.caliper.far is 'x'"),
        (lambda card: card["thresholds"]["caliper"].update(far=1.5), "thresholds.caliper.far is 1.5"),
        (lambda card: card["thresholds"]["arrow"].update(near=0.5), "thresholds.arrow knows no near"),
        (lambda card: card["calibration"]["text"].pop("mass"), "calibration.text lacks mass"),
        (lambda card: card["thresholds"].pop("text"), "no table thresholds.text"),
        (lambda card: card.pop("calibration"), "has no 'calibration'"),
        (lambda card: card.update(max_side="large"), "cannot be used"),
    ],
)
def test_a_card_that_says_what_cannot_be_is_refused(
    tmp_path: Path, change: Callable[[dict], object], said: str
) -> None:
    weights = write_tiny_weights(tmp_path / "weights")
    card = tomllib.loads((weights / "card.toml").read_text())
    change(card)
    (weights / "card.toml").write_text(tomli_w.dumps(card))
    with pytest.raises(DataError, match="card") as refused:
        Weights(weights)
    assert said in str(refused.value) and refused.value.cure


def test_a_full_disk_is_told_and_leaves_nothing_half_written(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    """A real process whose files may not grow beyond 100 kB."""
    run, mean = train(replace(tiny, steps=1), data, tmp_path / "run"), tmp_path / "mean [1]"
    command = f"ulimit -f 100; exec {sys.executable} -m models average '{run}' '{run}' --out '{mean}'"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert f"{mean}/checkpoint.pt cannot be written" in ended.stderr and "Make room" in ended.stderr
    assert not mean.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    write_checkpoint(path, {"step": 1})
    path.with_name(f"{CHECKPOINT}.part").mkdir()  # in the way
    with pytest.raises(OSError, match="part"):
        write_checkpoint(path, {"step": 2})
    assert read_checkpoint(path, ["step"]) == {"step": 1}


def test_too_little_shared_memory_is_told_before_a_worker_dies_of_it(tmp_path: Path) -> None:
    pool.refuse_too_little(1, tmp_path)
    with pytest.raises(TrainingError, match="MB of shared memory") as refused:
        pool.refuse_too_little(10**15, tmp_path)
    assert "--shm-size" in refused.value.cure


def test_an_export_to_a_full_disk_leaves_what_was_there(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    run = train(replace(tiny, steps=1), data, tmp_path / "run")
    weights = write_tiny_weights(tmp_path / "weights")
    card = tomllib.loads((weights / "card.toml").read_text())
    reading = {name: card[name] for name in ("thresholds", "calibration")}
    (run / "calibration.toml").write_text(tomli_w.dumps(reading))
    before = {path.name: path.read_bytes() for path in weights.iterdir()}
    command = f"ulimit -f 20; exec {sys.executable} -m models export '{run}' '{weights}'"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and f"{weights}/model.onnx cannot be written" in ended.stderr
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == before


def test_figures_that_were_not_measured_again_stay_in_the_card(tmp_path: Path) -> None:
    weights = write_tiny_weights(tmp_path / "weights")
    evaluate.record(evaluate.Report("tiny", clean={"frames": 3}), weights)
    evaluate.record(evaluate.Report("tiny", restoration={"PSNR": 30.0}), weights)
    metrics = tomllib.loads((weights / "card.toml").read_text())["metrics"]
    assert metrics == {"clean": {"frames": 3}, "restoration": {"PSNR": 30.0}}


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def test_a_share_of_no_cases_is_null_in_json_and_nothing_in_words(tmp_path: Path) -> None:
    """RFC 8259 has no NaN; other languages' readers refuse it."""
    nothing = evaluate.accuracy([], [], 0.5)
    drawn = {"Dice": 0.5, "sensitivity": float("nan"), "AUROC": float("inf")}
    report = evaluate.Report("tiny", real={"caliper": nothing}, synthetic={"caliper": drawn})
    report.write(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=refuse)
    assert told["real"]["caliper"]["auroc"] == {"value": None, "low": 0.0, "high": 1.0, "cases": 0}
    assert told["synthetic"]["caliper"] == {"Dice": 0.5, "sensitivity": None, "AUROC": None}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| caliper | no cases | no cases | no cases |" in page and "| caliper | 0.5 | – | – |" in page


def test_of_a_kind_that_was_not_drawn_there_is_no_overlap(data: Path, tmp_path: Path) -> None:
    """It read as the worst there is: 0."""
    weights, report = Weights(write_tiny_weights(tmp_path / "weights")), evaluate.Report("tiny")
    evaluate.synthetic_frames(weights, clean_frames(data), 2, 1, report)
    undrawn = {kind for kind, row in report.synthetic.items() if math.isnan(row["sensitivity"])}
    assert 0 < len(undrawn) < len(report.synthetic)
    for name in ("Dice", "IoU", "Dice, 1 px"):
        assert {kind for kind, row in report.synthetic.items() if math.isnan(row[name])} == undrawn


@pytest.mark.parametrize(
    "arguments",
    [
        "train smoke --data . --threads 0",
        "train smoke --data . --time-budget -1",
        "train smoke --data . --start-from nowhere",
        "calibrate . --data . --samples 0",
        "adapt --data . --out new --minutes -1",
        "adapt --data . --out new --old nowhere",
        "quantise . --data . --frames 0",
        "compare . --run . --data . --samples 0",
        "evaluate . --data . --samples 0",
        "evaluate . --data . --run nowhere",
        "tables --data . --out new --time-budget -1",
    ],
)
def test_an_option_that_cannot_be_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, arguments.split())
    assert told.exit_code == 2 and "Invalid value" in told.output
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_says_what_to_install(data: Path, tmp_path: Path) -> None:
    """As where the service alone is installed."""
    arguments = ["models", "train", "smoke", "--data", str(data), "--out", str(tmp_path / "run")]
    program = (
        f"import runpy, sys; sys.modules['torch'] = None; sys.argv = {arguments};"
        "runpy.run_module('models', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and "torch is not installed" in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_screens_larger_than_the_network_takes_are_measured_on(tmp_path: Path) -> None:
    """Scanners send 1080 × 1920; all drawings on such were passed over."""
    rows = np.random.default_rng(2).normal(0, 1, (1080, 1920)).astype(np.float32)
    level = cv2.normalize(cv2.GaussianBlur(rows, (0, 0), 5), None, 0, 180, cv2.NORM_MINMAX, cv2.CV_8U)
    cv2.imwrite(str(tmp_path / "screen.png"), level)
    weights, frames = Weights(write_tiny_weights(tmp_path / "weights")), clean_frames(tmp_path)
    report = evaluate.Report("tiny")
    evaluate.synthetic_frames(weights, frames, 8, 1, report)
    assert all(0 <= row["Dice"] <= 1 and row["specificity"] >= 0 for row in report.synthetic.values())
    (drawn,) = samples(frames, 2, 1, 5, held_out=True)
    assert 500 < max(drawn.truth.shape) <= export.MAX_SIDE


def test_there_must_be_something_to_measure_on(data: Path, tmp_path: Path) -> None:
    weights = write_tiny_weights(tmp_path / "weights")
    told = CliRunner().invoke(app, ["evaluate", str(weights), "--data", str(data), "--out", str(tmp_path / "report")])
    assert told.exit_code == 1 and "holds no labels.csv" in " ".join(told.output.split())
    assert not (tmp_path / "report").exists()
