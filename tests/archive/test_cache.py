"""What was used longest ago goes first, and only as much as must."""

from pathlib import Path

from service.archive.cache import Cache
from tests.archive.conftest import age


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
