"""Where commands write: results to standard output, everything else to standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

out = Console()
err = Console(stderr=True)
PIPED = 160  # characters of a line that no terminal shortens


def paper() -> Console:
    """Where tables go: a pipe is no terminal of eighty columns, so nothing is shortened there."""
    return out if out.is_terminal else Console(width=PIPED)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar with the time left; yields a function that moves it on by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def progress_of_unknown(what: str) -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    """The same when the total becomes known on the way; yields a function that sets it, and one that moves on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield (lambda total: bar.update(task, total=total)), (lambda: bar.advance(task))
