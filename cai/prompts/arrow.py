"""Rows of Arrow tables, shared by the formats that are tables on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.prompts import shapes
from cai.prompts.rows import BadRow, ReadOptions, Row

_SLICE = 256
"""Rows that are Python objects at one time."""


def rows(batches: Iterable[Any], path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Rows of record batches; a place is the row's number, from 1. What cannot be read further is a `BadRow`."""
    number = 0
    try:
        for batch in batches:
            for start in range(0, batch.num_rows, _SLICE):
                for value in batch.slice(start, _SLICE).to_pylist():
                    number += 1
                    where = f"{path}:{number}"
                    try:
                        yield shapes.conversation(value, where, options)
                    except InputError as error:
                        yield BadRow(where, error.what)
    except (OSError, ValueError) as error:  # pyarrow's errors
        yield unreadable(f"{path}:{number + 1}", error)


def unreadable(where: str, error: Exception) -> BadRow:
    """A table, or the rest of one, that pyarrow cannot read."""
    return BadRow(
        where, f"torn or corrupt, nothing after can be read ({' '.join(str(error).split())[:200]})", torn=True
    )
