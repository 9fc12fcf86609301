"""Votes as columns: what statistics over people are computed on, from label events or from a file of votes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai.errors import InputError, MissingDependency
from cai.records import HumanLabel

Codes = NDArray[np.int64]
COLUMNS = ("task", "worker", "label")
SAID = {"a": "a", "b": "b", "tie": "tie", "both_bad": "tie"}
"""Verdicts as the values that are counted: both bad is a tie. An abstention is no vote."""


@dataclass(frozen=True)
class VoteTable:
    """Votes in columns, each a code into a list of names.

    Attributes:
        task, worker, label: shape (votes,).
        tasks, workers, labels: what the codes mean.
        repeated: votes of one worker on one task that a later one replaced.
        unordered: why the labels have no order, so that ordinal agreement has no meaning; "" where they have.
    """

    task: Codes
    worker: Codes
    label: Codes
    tasks: tuple[str, ...]
    workers: tuple[str, ...]
    labels: tuple[str, ...]
    repeated: int = 0
    unordered: str = ""

    def __len__(self) -> int:
        return len(self.task)

    @classmethod
    def of(
        cls, tasks: Sequence[Any], workers: Sequence[Any], labels: Sequence[Any], *, order: Sequence[str] = ()
    ) -> VoteTable:
        """A table of three columns of equal length; the last vote of a worker on a task counts.

        Args:
            order: labels in their natural order (for ordinal agreement); others follow by name. By default numbers in
                theirs, and verdicts from a to b with the tie between.

        Raises:
            InputError: no votes.
        """
        if len(tasks) == 0:
            raise InputError("there are no votes", mend="the columns are task, worker and label")
        task_names, task = _codes(tasks)
        worker_names, worker = _codes(workers)
        label_names, label = _codes(labels)
        order, unordered = _order(label_names, order)
        wanted = [*(name for name in order if name in label_names), *(n for n in label_names if n not in order)]
        place = np.array([wanted.index(name) for name in label_names], dtype=np.int64)
        # The last of equal (task, worker) pairs: unique finds the first, so look from behind.
        pair = task * len(worker_names) + worker
        _, last = np.unique(pair[::-1], return_index=True)
        kept = np.sort(len(pair) - 1 - last)
        return cls(
            task[kept],
            worker[kept],
            place[label[kept]],
            task_names,
            worker_names,
            tuple(wanted),
            repeated=len(pair) - len(kept),
            unordered=unordered,
        )

    def counts(self) -> NDArray[np.float64]:
        """Votes by task and label, shape (tasks, labels)."""
        size = len(self.tasks), len(self.labels)
        flat = np.bincount(self.task * size[1] + self.label, minlength=size[0] * size[1])
        return flat.reshape(size).astype(np.float64)

    def only(self, kept: NDArray[np.bool_]) -> VoteTable:
        """The votes at which `kept` is true; names keep their codes."""
        return replace(self, task=self.task[kept], worker=self.worker[kept], label=self.label[kept], repeated=0)


VERDICTS = (("a", "tie", "b"), ("left", "tie", "right"), ("model_a", "tie", "model_b"))
"""Verdicts in their order; the middle one may be missing."""


def _order(names: Sequence[str], told: Sequence[str]) -> tuple[Sequence[str], str]:
    """The labels in their order, and why that is none; two labels have one, whichever comes first."""
    if told:
        missing = [name for name in names if name not in told]
        return told, f"the order leaves out {', '.join(missing[:5])}" if missing else ""
    try:
        return sorted(names, key=lambda name: (_number(name), name)), ""
    except ValueError:
        pass
    for verdicts in VERDICTS:
        if set(names) <= set(verdicts):
            return verdicts, ""
    return names, "" if len(names) < 3 else "the labels have no known order; --order a,tie,b says which"


def _number(name: str) -> float:
    found = float(name)
    if found != found:
        raise ValueError("not a number")
    return found


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingDependency("pandas is not installed", extra="label") from error
    return pd


def _codes(values: Sequence[Any]) -> tuple[tuple[str, ...], Codes]:
    """Names in order, and each value's place among them."""
    codes, names = _pandas().factorize(np.asarray(values, dtype=object), sort=True)
    return tuple(str(name) for name in names), np.asarray(codes, dtype=np.int64)


def votes_of(labels: Iterable[HumanLabel], *, axis: str = "") -> VoteTable:
    """The votes of effective labels on one axis; abstentions are missing.

    Raises:
        InputError: there are none.
    """
    kept = [label for label in labels if label.axis == axis and label.verdict in SAID]
    if not kept:
        raise InputError(f"there are no votes on the axis {axis!r}" if axis else "there are no votes")
    return VoteTable.of(
        [label.comparison_id for label in kept],
        [label.annotator for label in kept],
        [SAID[label.verdict] for label in kept],
        order=("a", "tie", "b"),
    )


def read_votes(path: Path, *, order: Sequence[str] = ()) -> VoteTable:
    """A file of votes with the columns task, worker and label: CSV, JSONL or Parquet, also gzipped.

    Raises:
        InputError: no such file, a column is missing, or a cell of one is empty.
    """
    pd = _pandas()
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            frame = pd.read_parquet(path)
        elif name.endswith((".jsonl", ".ndjson", ".json")):
            frame = pd.read_json(path, lines=not name.endswith(".json"), dtype=False)
        else:
            frame = pd.read_csv(path, sep="\t" if name.endswith(".tsv") else ",", dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path), mend="CSV, JSONL or Parquet") from error
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise InputError(
            f"has no column {', '.join(missing)}",
            where=str(path),
            mend=f"the columns are {', '.join(COLUMNS)}; it has {', '.join(map(str, frame.columns))}",
        )
    for column in COLUMNS:
        empty = frame[column].isna() | (frame[column].astype(str) == "")
        if bool(empty.any()):
            row = int(empty.to_numpy().argmax()) + (2 if name.endswith((".csv", ".tsv")) else 1)
            raise InputError(f"the {column} is empty", where=f"{path}:{row}", mend="fill it in or remove the row")
    return VoteTable.of(
        frame["task"].astype(str).to_numpy(),
        frame["worker"].astype(str).to_numpy(),
        frame["label"].astype(str).to_numpy(),
        order=order,
    )
