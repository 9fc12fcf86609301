"""The log of label events of a run: appended, never changed.

A correction is a new event that names the one it supersedes. What counts now is a pure function of the events.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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


def folded(name: str) -> str:
    """What is the same for all spellings of a person's name: capitals and spaces make no other person."""
    return " ".join(name.split()).casefold()


def read_labels(path: Path) -> Iterator[HumanLabel]:
    """The events of a log, in the order in which they were appended; nothing where there is no log.

    A person has one name in all of them, the first under which they were met, wherever they came from.

    Raises:
        StoreError, InputError: a line is not an event.
    """
    if path.is_file():
        spelling: dict[str, str] = {}
        for number, row in enumerate(read_rows(path), start=1):
            label = HumanLabel.from_row(row, where=f"{path}:{number}")
            known = spelling.setdefault(folded(label.annotator), label.annotator)
            yield label if known == label.annotator else replace(label, annotator=known)


def append_labels(path: Path, labels: Iterable[HumanLabel]) -> int:
    """Append those events whose ids the log does not have, on disk when this returns; how many that were.

    Raises:
        StoreError: the log cannot be read or written.
    """
    with _alone(path):
        return _append(path, labels)


def append_said(path: Path, labels: Sequence[HumanLabel]) -> int:
    """Append what an import says that the log does not know yet (`news`); how many events that were.

    Raises:
        StoreError, InputError: the log cannot be read or written, or a line of it is not an event.
    """
    with _alone(path):
        return _append(path, news(list(read_labels(path)), labels))


def _append(path: Path, labels: Iterable[HumanLabel]) -> int:
    added = 0
    with Log(path) as log:
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


Key = tuple[str, str, str]


def key_of(label: HumanLabel) -> Key:
    """Of events of which only the last counts: one person, comparison and axis."""
    return label.annotator, label.comparison_id, label.axis


def latest(events: Iterable[HumanLabel]) -> dict[Key, HumanLabel]:
    """The last event of each person, comparison and axis, whatever its status.

    The last is the one that none supersedes; where a source does not say which supersedes which, the later `ts`, then
    the later in the log. An event is never earlier than the one that it supersedes.
    """
    known = list(events)
    replaced = {label.supersedes for label in known if label.supersedes}
    times: dict[str, str] = {}
    last: dict[Key, tuple[tuple[str, int], HumanLabel]] = {}
    for number, label in enumerate(known):
        times[label.id] = max(label.ts, times.get(label.supersedes or "", ""))
        if label.id in replaced:
            continue
        key, rank = key_of(label), (times[label.id], number)
        if key not in last or rank >= last[key][0]:
            last[key] = (rank, label)
    return {key: label for key, (_, label) in last.items()}


def effective(events: Iterable[HumanLabel]) -> list[HumanLabel]:
    """What counts: the `latest` events, if they were submitted.

    An event that is discarded or skipped takes back what was said before.
    """
    return [label for label in latest(events).values() if label.status == "submitted"]


def news(log: Sequence[HumanLabel], said: Sequence[HumanLabel]) -> list[HumanLabel]:
    """What of an import is to be appended: nothing where the log's last word is the file's, else events that end in it.

    So the same file again adds nothing; and where something else was said in between, an import without times is the
    later word, while one with times is as late as it says. A word that was said before and taken back since becomes an
    event of its own, which supersedes the one that it corrects.
    """
    ids = {label.id for label in log}
    before, final = latest(log), latest(said)
    kept: list[HumanLabel] = []
    for label in said:
        last, now = final[key_of(label)], before.get(key_of(label))
        if now is not None and _adds_nothing(last, now):
            continue
        new = label
        if label.id == last.id and now is not None and not (label.ts and label.ts < now.ts):
            again = content_hash("again", label.id, now.id)
            new = replace(label, id=label.id if label.id not in ids else again, supersedes=now.id)
        if new.id not in ids:
            ids.add(new.id)
            kept.append(new)
    return kept


def _adds_nothing(label: HumanLabel, known: HumanLabel) -> bool:
    """Whether an event says the same as another of the same texts, or less: not every format carries everything."""
    if "" not in (label.text_hash, known.text_hash) and label.text_hash != known.text_hash:
        return False
    return (label.status, label.verdict) == (known.status, known.verdict) and all(
        getattr(label, name) in (empty, getattr(known, name))
        for name, empty in (("strength", None), ("edit", ""), ("note", ""), ("ts", ""))
    )
