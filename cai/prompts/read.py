"""Prompts from a file: the one way in, for the commands and for the pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from cai.errors import InputError
from cai.prompts import formats
from cai.prompts.detect import detect
from cai.prompts.rows import DEFAULT_OPTIONS, BadRow, ReadOptions, Row, Tick, finish
from cai.records import Prompt


def read_rows(
    path: Path,
    format: str = "auto",
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    tags: tuple[str, ...] = (),
    notes: Counter[str] | None = None,
    tick: Tick | None = None,
) -> Iterator[Prompt | BadRow]:
    """The prompts of `path` in its order, and a `BadRow` in place of each row that cannot be read. Streams.

    Args:
        format: the name of a format, or `auto`.
        tags: added to each prompt's own.
        notes: counts, when given, what was left out of conversations (see `cai.prompts.rows`).
        tick: told how many bytes have been read.

    Raises:
        InputError: at once: there is no such file or format. Later: nothing of the file can be read.
    """
    if not path.exists():
        raise InputError("no such file or folder", where=str(path))
    reader = formats.get(detect(path) if format == "auto" else format)
    return _finished(reader(path, options, tick), tags, notes)


def _finished(
    rows: Iterator[Row | BadRow], tags: tuple[str, ...], notes: Counter[str] | None
) -> Iterator[Prompt | BadRow]:
    for row in rows:
        done = row if isinstance(row, BadRow) else finish(row, tags)
        if isinstance(done, BadRow):
            yield done
            continue
        prompt, found = done
        if notes is not None:
            notes.update(found)
        yield prompt


def read_prompts(
    path: Path,
    format: str = "auto",
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    tags: tuple[str, ...] = (),
    notes: Counter[str] | None = None,
    on_bad: Callable[[BadRow], None] | None = None,
) -> Iterator[Prompt]:
    """The prompts of `path`. A row that cannot be read is given to `on_bad`, so none is skipped without its knowing.

    Raises:
        InputError: as `read_rows`; and, without `on_bad`, at the first row that cannot be read.
    """
    return _good(read_rows(path, format, options=options, tags=tags, notes=notes), on_bad)


def _good(rows: Iterator[Prompt | BadRow], on_bad: Callable[[BadRow], None] | None) -> Iterator[Prompt]:
    for row in rows:
        if not isinstance(row, BadRow):
            yield row
        elif on_bad is None:
            raise row.error()
        else:
            on_bad(row)
