"""Every error that `cai` raises on purpose.

They are part of the interface: each says *what* is wrong, *where*, and how to *mend* it, in one line, and carries the
exit code of the command line (1: problems were found, 2: misuse or bad input). Anything else that escapes is a bug.
"""

from __future__ import annotations


class CaiError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what is wrong, a sentence without its full stop.
        where: the file (`path:line:column` where known), key, row or server it concerns.
        mend: what the user can do about it.
    """

    exit_code = 2
    ends_run = False
    """Whether it ends a whole run, rather than the one row in which it arose."""

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what, where, mend)
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.mend})" if self.mend else text


class InputError(CaiError):
    """A file, row, flag or recipe that the user gave is not what it has to be."""


class StoreError(CaiError):
    """A file of a run could not be read or written (full disk, torn line in the middle, wrong schema)."""

    ends_run = True


class RunError(CaiError):
    """A run folder cannot be used as asked: another process holds it, or its inputs have changed."""

    ends_run = True


class MissingDependency(CaiError):
    """An optional package is not installed.

    Args:
        extra: of this package, the one that brings it; `mend` tells how to install it.
        mend: what else is to be known of that; where no extra brings it, all that can be done.
    """

    ends_run = True

    def __init__(self, what: str, *, extra: str = "", where: str = "", mend: str = "") -> None:
        # By its folder: of what a package index holds under this name, nothing is ours.
        install = f"pip install '.[{extra}]' in the folder of cai's source" if extra else ""
        super().__init__(what, where=where, mend=", ".join(part for part in (install, mend) if part))


class BackendError(CaiError):
    """A backend could not answer a request.

    Args:
        retryable: asking again may help (429, 5xx, a dropped connection, an unreadable answer, a time-out).
        retry_after: seconds the server asked to wait, if it did.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        mend: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, where=where, mend=mend)
        self.retryable = retryable
        self.retry_after = retry_after


class PromptRefused(BackendError):
    """This prompt can't be answered, by a backend that lives: its row is given up, and it is no sign of an outage."""


class ContextOverflow(PromptRefused):
    """The prompt does not fit in the model's context beside the tokens it is asked to generate."""


class BackendDown(BackendError):
    """The backend answers nothing at all any more; the run stops, resumable, instead of quarantining every row."""

    ends_run = True
