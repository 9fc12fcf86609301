"""How far a long read has come: a bar with an estimate on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TextIO

EVERY = 10.0
"""Seconds between lines where the stream is not a terminal."""


@contextlib.contextmanager
def byte_progress(total: int, label: str, stream: TextIO, *, every: float = EVERY) -> Iterator[Callable[[int], None]]:
    """A function that is told how many of `total` bytes are done, and shows it on `stream`."""
    if stream.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(label), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=stream), transient=True) as bar:
            task = bar.add_task(label, total=total or None)
            yield lambda done: bar.update(task, completed=done)
        return
    started = shown = time.monotonic()

    def line(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < every or not done:
            return
        shown = now
        left = (now - started) * (total - done) / done
        print(f"{label}: {done / 1e6:.1f} of {total / 1e6:.1f} MB, about {left:.0f} s left", file=stream, flush=True)

    yield line
