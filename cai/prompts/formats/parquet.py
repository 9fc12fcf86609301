"""Parquet, read batch by batch; columns as in JSON Lines (`prompt`, `messages`, ...)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.prompts import arrow, shapes
from cai.prompts.rows import BadRow, ReadOptions, Row, Tick

_BATCH = 1024


def read(path: Path, options: ReadOptions, tick: Tick | None = None) -> Iterator[Row | BadRow]:
    """One row a row; only the columns that can matter are decoded.

    Raises:
        InputError: the file cannot be opened, or no column holds a prompt.
    """
    import pyarrow.parquet

    try:
        raw = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", where=str(path)) from error
    with raw:
        try:
            file = pyarrow.parquet.ParquetFile(raw)
        except (OSError, ValueError) as error:
            yield arrow.unreadable(str(path), error)
            return
        shapes.check_columns(file.schema_arrow.names, path, options)
        columns = shapes.wanted(file.schema_arrow.names, options)
        yield from arrow.rows(_batches(file, columns, path.stat().st_size, tick), path, options)


def _batches(file: Any, columns: list[str], size: int, tick: Tick | None) -> Iterator[Any]:
    done, total = 0, max(file.metadata.num_rows, 1)
    for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
        yield batch
        done += batch.num_rows
        if tick:
            tick(size * done // total)
