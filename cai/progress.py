"""How far a long job is: a live bar in a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import IO, Protocol, Self

PLAIN_EVERY = 10.0
"""Seconds between two plain lines."""


class Reporter(Protocol):
    """What the pipeline tells; the command line decides how to show it."""

    def say(self, text: str) -> None: ...

    def start(self, total: int, done: int, *, what: str = "revise", unit: str = "rows") -> None: ...

    def update(self, done: int, *, tokens: int, quarantined: int) -> None: ...

    def show(self, done: int, told: str) -> None: ...

    def finish(self) -> None: ...


class Silent:
    """Shows nothing; for use as a library."""

    def say(self, text: str) -> None:
        return None

    def start(self, total: int, done: int, *, what: str = "revise", unit: str = "rows") -> None:
        return None

    def update(self, done: int, *, tokens: int, quarantined: int) -> None:
        return None

    def show(self, done: int, told: str) -> None:
        return None

    def finish(self) -> None:
        return None


def clock(seconds: float) -> str:
    """`1:02:03`, `2:03`; for a time left."""
    whole = int(max(0.0, seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class Progress:
    """Rows, tokens per second and time left, on `stream` (stderr), and each line said also in `log` (unbuffered).

    A line that cannot be written (full disk, closed terminal) is left out: telling must not end the work told of. The
    speed counts only what this attempt generated; rows that an earlier attempt finished are neither speed nor time.
    """

    def __init__(self, log: IO[bytes] | None = None, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._log = log
        self._live = self._stream.isatty()
        self._bar: object | None = None
        self._what = self._unit = ""
        self._total = self._first = self._done = 0
        self._begun = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self.note(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)  # type: ignore[attr-defined]
        else:
            with contextlib.suppress(OSError):
                print(text, file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """One line in the log only."""
        if self._log is not None:
            line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n"
            with contextlib.suppress(OSError):
                self._log.write(line.encode("utf-8", "backslashreplace"))

    def start(self, total: int, done: int, *, what: str = "revise", unit: str = "rows") -> None:
        """Begin a job of `total` units, of which `done` were finished before."""
        self._what, self._unit = what, unit
        self._total, self._first, self._done = total, done, done
        self._begun = self._shown = time.monotonic()
        if self._live and total > done:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
            bar = Bar(*columns, console=Console(file=self._stream), refresh_per_second=4)
            self._task = bar.add_task(what, total=total, completed=done, told="")
            self._bar = bar
            bar.start()

    def update(self, done: int, *, tokens: int, quarantined: int) -> None:
        """So many rows are done; speed is of the tokens generated since `start`."""
        seconds = max(1e-6, time.monotonic() - self._begun)
        more = [f"{quarantined} quarantined"] if quarantined else []
        self._show(done, [f"{tokens / seconds:,.0f} tok/s"], more)

    def show(self, done: int, told: str) -> None:
        """So many units are done; `told` stands before the time left."""
        self._show(done, [told], [])

    def _show(self, done: int, before: list[str], behind: list[str]) -> None:
        self._done = done
        told = ", ".join([*before, *self._left(), *behind])
        if self._bar is not None:
            self._bar.update(self._task, completed=done, told=told)  # type: ignore[attr-defined]
        now = time.monotonic()
        if self._bar is None and now - self._shown >= PLAIN_EVERY:
            self._shown = now
            self.say(f"{self._what} {done}/{self._total} {self._unit}, {told}")

    def _left(self) -> list[str]:
        new = self._done - self._first
        seconds = time.monotonic() - self._begun
        return [f"{clock((self._total - self._done) * seconds / new)} left"] if new > 0 else []

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]
            self._bar = None
