"""What was used longest ago goes first, and only as much as must."""

import subprocess
from pathlib import Path

from service.archive.cache import Cache
from tests.archive.conftest import age
from tests.faults.disks import tmpfs


def test_bytes_are_made_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path, 1 << 20), []

    def make() -> bytes:
        made.append(1)
        return b"picture"

    assert cache.bytes_of("ab/1.png", make) == cache.bytes_of("ab/1.png", make) == b"picture"
    assert len(made) == 1 and [path.name for path in tmp_path.rglob("*.*")] == ["1.png"]


def test_the_folder_stays_below_its_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    for number in range(30):
        cache.bytes_of(f"{number}", lambda: bytes(1000))
        age(tmp_path / f"{number}", 1000 - number)
        cache.bytes_of("0", lambda: bytes(1000))  # looked at all the time
    kept = {path.name for path in tmp_path.iterdir()}
    assert "0" in kept and "29" in kept and "1" not in kept
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 11_000


def test_a_full_disk_keeps_nothing_and_shows_everything(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "64k") as disk:
        cache = Cache(disk, 1 << 20)
        for _ in range(2):
            assert cache.bytes_of("ab/1.png", lambda: bytes(1 << 20)) == bytes(1 << 20)
        assert not [path for path in disk.rglob("*") if path.is_file()]
        assert cache.bytes_of("ab/2.png", lambda: b"small") == b"small"
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True, timeout=60)
        assert cache.bytes_of("ab/2.png", lambda: b"made again") == b"small"
        assert cache.bytes_of("ab/3.png", lambda: b"made again") == b"made again"
