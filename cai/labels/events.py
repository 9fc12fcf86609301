"""The log of label events of a run: appended, never changed.

A correction is a new event that names the one it supersedes. What counts now is a pure function of the events.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cai.records import HumanLabel, content_hash
from cai.store import Log, disk_error, read_rows


def label_id(comparison_id: str, axis: str, annotator: str, *told: Any) -> str:
    """Id of an event: equal for the same thing said again (an import repeated), different for a change of mind.

    Args:
        told: what else tells events of one person on one comparison apart: the verdict, the time, the source's own id.
    """
    return content_hash("label", comparison_id, axis, annotator, list(told))


def read_labels(path: Path) -> Iterator[HumanLabel]:
    """The events of a log, in the order in which they were appended; nothing where there is no log.

    Raises:
        StoreError, InputError: a line is not an event.
    """
    if path.is_file():
        for number, row in enumerate(read_rows(path), start=1):
            yield HumanLabel.from_row(row, where=f"{path}:{number}")


def append_labels(path: Path, labels: Iterable[HumanLabel]) -> int:
    """Append those events whose ids the log does not have, on disk when this returns; how many that were.

    Raises:
        StoreError: the log cannot be read or written.
    """
    added = 0
    with _alone(path), Log(path) as log:
        for label in labels:
            if label.id not in log:
                log.append(label.row())
                added += 1
        log.sync()
    return added


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process appends: an import, and the page's verdicts, may come at the same moment."""
    beside = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise disk_error(error, beside) from error


def effective(events: Iterable[HumanLabel]) -> list[HumanLabel]:
    """What counts: of each person, comparison and axis the last event, if it was submitted.

    The last is the one that none supersedes; where a source does not say which supersedes which, the later `ts`, then
    the later in the log. An event that is discarded or skipped takes back what was said before.
    """
    last: dict[tuple[str, str, str], tuple[tuple[str, int], HumanLabel]] = {}
    known = list(events)
    replaced = {label.supersedes for label in known if label.supersedes}
    for number, label in enumerate(known):
        if label.id in replaced:
            continue
        key, rank = (label.annotator, label.comparison_id, label.axis), (label.ts, number)
        if key not in last or rank >= last[key][0]:
            last[key] = (rank, label)
    return [label for _, label in last.values() if label.status == "submitted"]
