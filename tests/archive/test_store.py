"""The archive keeps what it was given, durably, and touches nothing that is not its own."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.archive.store import ArchiveStore, instance_key, storage, write_all
from service.errors import NotFound, OutOfSpace, StorageError


@pytest.fixture
def store(tmp_path: Path) -> ArchiveStore:
    return ArchiveStore(tmp_path / "archive")


def test_put_get_size_exists_delete(store: ArchiveStore) -> None:
    store.put("masks/1/1.png", b"mask")
    assert store.get("masks/1/1.png") == b"mask"
    assert store.exists("masks/1/1.png")
    assert store.size("masks/1/1.png") == 4
    assert list(store.keys("masks")) == ["masks/1/1.png"]
    store.delete("masks/1/1.png")
    assert not store.exists("masks/1/1.png")
    assert store.size("masks/1/1.png") is None
    with pytest.raises(NotFound):
        store.get("masks/1/1.png")


def test_many_are_put_with_one_sync_of_their_folder(store: ArchiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("masks/0/1-1.png", b"earlier")
    synced: list[Path] = []
    monkeypatch.setattr("service.archive.store.fsync_folder", synced.append)
    store.put_all([("masks/0/2-1.png", b"two"), ("masks/0/3-1.png", b"three")])
    assert store.get("masks/0/2-1.png") == b"two" and store.get("masks/0/3-1.png") == b"three"
    assert synced == [store.place("masks/0")]
    assert not list((store.root / "incoming").rglob("*.part"))


def test_of_many_that_cannot_be_put_nothing_temporary_stays(
    store: ArchiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("service.archive.store.fsync_file", full)
    with pytest.raises(OutOfSpace):
        store.put_all([("masks/0/2-1.png", b"two"), ("masks/0/3-1.png", b"three")])
    assert not list((store.root / "incoming").rglob("*.part"))
    assert not store.exists("masks/0/2-1.png")


def test_keep_renames_and_leaves_no_temporary(store: ArchiveStore) -> None:
    temporary = store.incoming()
    temporary.write_bytes(b"image")
    key = instance_key("ab" * 32)
    assert store.keep(temporary, key).read_bytes() == b"image"
    assert key.startswith("instances/ab/abab")
    assert not list((store.root / "incoming").rglob("*.part"))


@pytest.mark.parametrize("key", ["../outside", "/etc/x", "", "masks/../../x"])
def test_keys_never_leave_the_archive(store: ArchiveStore, key: str) -> None:
    with pytest.raises(StorageError):
        store.path(key)


def test_a_name_that_the_disk_does_not_look_up_is_its_refusal(store: ArchiveStore) -> None:
    """As a share that has gone stale refuses all of them."""
    store.put("masks/1.png", b"mask")
    with pytest.raises(StorageError, match="could not read"):
        store.path(f"masks/{'0' * 300}.png")


def test_incoming_names_are_unique(store: ArchiveStore) -> None:
    assert len({store.incoming() for _ in range(100)}) == 100


def test_only_abandoned_temporaries_are_removed(store: ArchiveStore, tmp_path: Path) -> None:
    ours = store.incoming()
    ours.write_bytes(b"being received")
    left = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from service.archive.store import ArchiveStore\n"
            "t = ArchiveStore(pathlib.Path(sys.argv[1])).incoming(); t.write_bytes(b'cut off'); print(t)",
            str(store.root),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(left).exists()
    assert ArchiveStore(store.root).remove_abandoned() == 1
    assert not Path(left).exists()
    assert ours.exists()


def test_short_writes_are_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:100]))
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), b"x" * 1234)
    assert (tmp_path / "file").read_bytes() == b"x" * 1234


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, StorageError), (errno.EROFS, StorageError)],
)
def test_errors_of_the_system_become_the_archives_own(code: int, expected: type[Exception]) -> None:
    with pytest.raises(expected), storage("It could not be kept"):
        raise OSError(code, os.strerror(code))


def test_keep_syncs_file_then_name_then_folder(store: ArchiveStore, tmp_path: Path) -> None:
    """The order a power cut cannot undo, as the kernel sees it."""
    script = (
        "import sys, pathlib; from service.archive.store import ArchiveStore\n"
        "s = ArchiveStore(pathlib.Path(sys.argv[1])); t = s.incoming()\n"
        "t.write_bytes(b'x'); s.keep(t, 'instances/a/b/c.dcm')"
    )
    trace = tmp_path / "trace"
    traced = subprocess.run(
        ["strace", "-f", "-y", "-e", "trace=fsync,rename", "-o", trace, sys.executable, "-c", script, str(store.root)],
        capture_output=True,
        check=False,
    )
    if traced.returncode:
        pytest.skip("strace may not trace here")
    calls = [
        line.split(maxsplit=1)[1] for line in trace.read_text().splitlines() if "instances" in line or ".part" in line
    ]
    file_sync = next(i for i, call in enumerate(calls) if call.startswith("fsync") and ".part" in call)
    rename = next(i for i, call in enumerate(calls) if call.startswith("rename"))
    folder_sync = max(i for i, call in enumerate(calls) if call.startswith("fsync") and "/instances/a/b>" in call)
    assert file_sync < rename < folder_sync
