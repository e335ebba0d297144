"""Disks that are small, few of inodes, read-only or cut off from power; each is undone when its block ends."""

import errno
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING_THE_LOG = 2


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextmanager
def tmpfs(folder: Path, size: str, inodes: int = 0) -> Iterator[Path]:
    """A file system of so many bytes, and inodes."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size}" + (f",nr_inodes={inodes}" if inodes else "")
    _or_skip("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    try:
        yield folder
    except BaseException:
        subprocess.run(["umount", "-l", folder], check=False, timeout=60)
        raise
    _unmount(folder)


class LoopDisk:
    """An ext4 in a file, mounted; its power can be cut and come back."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder

    def mount(self) -> None:
        _or_skip("mount", "-o", "loop,errors=remount-ro", self.image, self.folder)

    def unmount(self) -> None:
        _unmount(self.folder)

    def cut_power(self) -> None:
        """From here on nothing reaches the disk; what was not synced is gone."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
        finally:
            os.close(descriptor)

    def restore_power(self) -> None:
        """Mount what the disk holds: the journal is replayed, the page cache is empty."""
        self.unmount()
        self.mount()

    def turn_read_only(self) -> None:
        """What ext4 does when it meets an error of its own, open files or not."""
        number = self.folder.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("injected by a test")
        deadline = time.monotonic() + 10
        while self._takes_files():
            assert time.monotonic() < deadline, "the disk never turns read-only"
            time.sleep(0.05)

    def _takes_files(self) -> bool:
        probe = self.folder / "probe"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            return error.errno != errno.EROFS
        return True

    def repair(self) -> None:
        """Unmount, look for damage, and mount again."""
        self.unmount()
        subprocess.run(["e2fsck", "-p", "-f", self.image], check=False, capture_output=True, timeout=60)
        self.mount()


@contextmanager
def loop_disk(folder: Path, megabytes: int = 256, inodes: int = 0) -> Iterator[LoopDisk]:
    """A fresh ext4 on a loop device."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    run("mkfs.ext4", "-q", "-F", *(("-N", str(inodes)) if inodes else ()), image)
    disk = LoopDisk(image, folder)
    disk.mount()
    try:
        yield disk
    except BaseException:
        # The test's own failure counts; what it left running is ended later.
        subprocess.run(["umount", "-l", folder], check=False, timeout=60)
        raise
    _unmount(folder)
    image.unlink()


def _or_skip(*command: str | Path) -> None:
    """Mounting needs root and, where containers share a kernel, loop devices."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"this machine cannot {command[0]}: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while os.path.ismount(folder):
        done = subprocess.run(["umount", folder], capture_output=True, text=True, timeout=60)
        if done.returncode and time.monotonic() > deadline:
            subprocess.run(["umount", "-l", folder], check=True, timeout=60)
            raise AssertionError(f"something still uses the disk: {done.stderr}")
        time.sleep(0.05 if done.returncode else 0)
