"""The processes that `accelerate launch` or `torchrun` start together, told apart by their environment.

Nothing here loads torch before there is more than one of them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator


def processes() -> int:
    """How many train together; 1 where this one is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether others train with this one."""
    return processes() > 1


def main_process() -> bool:
    """Whether this is the first of the processes that were launched, or the only one: it writes files."""
    return os.environ.get("RANK", "0") == "0"


def leave_processes() -> None:
    """Take leave of the other processes, when all is written: what they share is given back in order."""
    if launched():
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


@contextlib.contextmanager
def no_teardown() -> Iterator[None]:
    """Around all that a launched process does: it ends without the interpreter being taken apart.

    A thread of torch's that drops its last tensor while the interpreter is being taken apart aborts the process
    (`terminate called without an active exception`, pytorch issue 190489), whether or not the group was destroyed
    before; a finished training would count as failed. So such a process ends by `os._exit`, with the status it would
    have had, once everything else that is to be done at exit was done. Enter it before anything else registers with
    `atexit`, which calls the first registered last. A process that is alone ends as ever.
    """
    if not launched():
        yield
        return
    status = 1

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
                stream.flush()
        os._exit(status)

    atexit.register(end)
    try:
        yield
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        raise
