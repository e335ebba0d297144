"""strace: faults injected into single system calls of a running part, and the order of its calls read back."""

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = 4096
CALLS = "fsync,fdatasync,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,rename,renameat,renameat2,openat,unlink"
CALLS += ",syncfs,sync,unlinkat,copy_file_range,sendfile,ftruncate,fallocate,mkdir"


def require_strace() -> None:
    done = subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("strace may not trace here")


def injecting(calls: str, fault: str, *, only: Sequence[Path] = ()) -> list[str]:
    """The prefix of a command under which ``calls`` meet ``fault``, for instance ``error=EIO:when=3``."""
    paths = [argument for path in only for argument in ("-P", str(path))]
    return ["strace", "-f", "-qq", "-o", "/dev/null", *paths, "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]


def recording(file: Path) -> list[str]:
    """The prefix of a command whose writes, syncs and sends go to ``file``, with the paths of their descriptors."""
    return ["strace", "-f", "-qq", "-y", "-s", "256", "-o", str(file), "-e", f"trace={CALLS}"]


@contextmanager
def window(
    pid: int, calls: str, fault: str, *, only: Sequence[Path] = (), record: Path = Path("/dev/null")
) -> Iterator[None]:
    """A fault in a process that runs already, for as long as the block; its calls go to ``record``."""
    paths = [argument for path in only for argument in ("-P", str(path))]
    command = ["strace", "-f", "-y", "-s", "256", "-p", str(pid), "-o", str(record), *paths]
    command += ["-e", f"trace={CALLS},{calls}", "-e", f"inject={calls}:{fault}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    if b"attached" not in tracer.stderr.readline():
        tracer.wait(10)
        pytest.skip("strace may not trace here")
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)


@dataclass(frozen=True)
class Call:
    """One finished system call."""

    thread: str
    name: str
    text: str  # its arguments
    result: str

    @property
    def paths(self) -> list[str]:
        """Files of its descriptors, then its quoted names."""
        return re.findall(r"\d+<(/[^>]*)>", self.text) + re.findall(r'"(/[^"]*)"', self.text)

    @property
    def ok(self) -> bool:
        return not self.result.startswith("-1")


def calls(file: Path) -> list[Call]:
    """The calls in the order in which they returned."""
    begun: dict[str, str] = {}
    found = []
    for line in file.read_text(errors="replace").splitlines():
        thread, rest = line.split(maxsplit=1)
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            rest = begun.pop(thread, "") + resumed.group(1)
        if finished := re.match(r"(\w+)\((.*)\)\s+= (.*)", rest):
            found.append(Call(thread, *finished.groups()))
    return found


@dataclass
class Answer:
    """What one thread had done for the instance that it then answered."""

    written: set[str]
    synced: set[str]
    unsynced: set[str]  # files whose bytes, and folders whose names, were not on disk when the answer went out


def answers(file: Path, folder: Path) -> list[Answer]:
    """Each send to a peer by a thread that had written below ``folder`` since its last one.

    A write dirties its file; a rename, or a new file, dirties the folder of the name; a sync that succeeded cleans.
    SQLite's ``-shm`` is shared memory, which a crash does without.
    """
    found: list[Answer] = []
    threads: dict[str, Answer] = {}
    for call in calls(file):
        if not call.ok:
            continue
        state = threads.setdefault(call.thread, Answer(set(), set(), set()))
        inside = [path for path in call.paths if path.startswith(str(folder)) and not path.endswith("-shm")]
        match call.name:
            case "fsync" | "fdatasync":
                state.unsynced -= set(inside)
                state.synced |= set(inside)
            case "rename" | "renameat" | "renameat2" if inside:
                source, target = inside[-2:]
                if source in state.unsynced:
                    state.unsynced = state.unsynced - {source} | {target}
                state.unsynced.add(str(Path(target).parent))
                # The folder of a temporary name need not be on disk: nothing looks for the file there.
                state.unsynced.discard(str(Path(source).parent))
            case "unlink" | "unlinkat":
                state.unsynced -= set(inside)
            case "openat" if inside and "O_CREAT" in call.text and "O_EXCL" in call.text:
                state.unsynced.add(str(Path(inside[-1]).parent))
            case "sendto" | "sendmsg" if state.written and not inside:
                found.append(state)
                threads[call.thread] = Answer(set(), set(), set(state.unsynced))
            case "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "sendfile" | "copy_file_range":
                state.unsynced |= set(inside[:1])
                state.written |= set(inside[:1])
    return found


def unfiled_at_recycling(file: Path, folder: Path) -> tuple[int, set[str]]:
    """How often a lane of the journal began anew, and what of the files taken out of it was not on disk then."""
    dirty: set[str] = set()
    recycled, late = 0, set()
    for call in calls(file):
        if not call.ok:
            continue
        inside = [path for path in call.paths if path.startswith(str(folder)) and "/journal/" not in path]
        match call.name:
            case "syncfs" | "sync":
                dirty.clear()
            case "fsync" | "fdatasync":
                dirty -= set(inside)
            case "rename" | "renameat" | "renameat2" if inside:
                source, target = inside[-2:]
                dirty = (dirty - {source}) | ({target} if source in dirty else set()) | {str(Path(target).parent)}
            case "pwritev" | "pwritev2" if _a_page(call.text) and call.paths[0].endswith(".lane"):
                recycled += 1
                late |= dirty
            case "write" | "pwrite64" | "pwritev" | "pwritev2" | "sendfile" | "copy_file_range":
                # The file that is written comes last: `sendfile` and `copy_file_range` name their source as well.
                dirty |= set(inside[:1])
            case "unlink" | "unlinkat":
                dirty -= set(inside)
    return recycled, late


def _a_page(text: str) -> bool:
    """Whether a vectored write is of one page at the beginning of its file."""
    return re.search(rf"iov_len={PAGE}\}}\], 1, 0(, 0)?$", text) is not None


def synced_again(file: Path, folder: Path) -> list[str]:
    """Files whose sync failed and was tried again with nothing written in between.

    The kernel drops the pages that it could not write and calls them clean, so the second try says nothing.
    """
    again = []
    failed: set[str] = set()
    for call in calls(file):
        inside = [path for path in call.paths if path.startswith(str(folder))]
        if call.name in ("fsync", "fdatasync"):
            again += [path for path in inside if path in failed]
            failed = failed - set(inside) if call.ok else failed | set(inside)
        else:
            failed -= set(inside)
    return again
