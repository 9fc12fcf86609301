"""Ending well: on Ctrl-C after the step at hand, and in one clear line where memory runs out."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

from cai.training.base import TrainingError


class Stop:
    """While entered, SIGINT and SIGTERM ask for an end; a second one ends at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked = False
        self._say = say
        self._before: dict[int, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._say("stopping after this step, with a state to resume from; again: at once, without it")

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """Turn what torch says when memory runs out into one line that helps.

    Raises:
        TrainingError: there was not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        text = str(error)
        known = ("out of memory", "not enough memory", "can't allocate memory")
        if isinstance(error, RuntimeError) and not any(sign in text.lower() for sign in known):
            raise
        raise TrainingError(
            "not enough memory",
            mend="lower micro_batch or the lengths, or set lora, dtype: bfloat16 or gradient_checkpointing",
        ) from error
