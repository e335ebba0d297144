"""Disks that are small, few of inodes, read-only or cut off from power; each is undone when its block ends."""

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
    finally:
        _unmount(folder)


class LoopDisk:
    """An ext4 in a file, mounted; its power can be cut and come back."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image, self.folder = image, folder

    def mount(self) -> None:
        _or_skip("mount", "-o", "loop", self._image, self.folder)

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

    def remount(self, how: str) -> None:
        run("mount", "-o", f"remount,{how}", self.folder)


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
    finally:
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
