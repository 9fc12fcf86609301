"""CSV with a header: the column `prompt`, or those named by `fields`; `tags` and `overrides` are separated by `;`.

Comma, tab or semicolon, whichever the header line has most of.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.prompts import shapes
from cai.prompts.files import lines
from cai.prompts.rows import BadRow, ReadOptions, Row, Tick

_BROKEN = "\udcff"
"""Stands for a line that is reported already; a record of several lines that has it inside is broken too."""

MAX_FIELD = 4 << 20
"""Characters of the longest cell. It bounds what a quote that is never closed can swallow."""


def read(path: Path, options: ReadOptions, tick: Tick | None = None) -> Iterator[Row | BadRow]:
    """One row a record; where a record spans lines, its place is its first line.

    Raises:
        InputError: no header, or no column that holds a prompt.
    """
    csv.field_size_limit(max(MAX_FIELD, csv.field_size_limit()))
    torn: list[BadRow] = []
    text = _text(path, tick, torn)
    first = next(text, "")
    delimiter = max(",\t;", key=first.count)
    try:
        header = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise InputError(f"the header line is not CSV: {error}", where=f"{path}:1") from error
    if len(set(header)) != len(header) or not all(header):
        raise InputError("the header line must name every column, each once", where=f"{path}:1")
    shapes.check_columns(header, path, options)
    # strict: an unclosed quote is an error; the default silently takes the rest of the file as one cell.
    records = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        where = f"{path}:{records.line_num + 2}"  # the header is one line, and the next record starts after line_num
        try:
            record = next(records)
        except StopIteration:
            break
        except csv.Error as error:
            yield BadRow(where, f"not CSV, up to line {records.line_num + 1}: {error}")
            continue
        if record and record != [_BROKEN]:
            yield _row(header, record, where, options)
    yield from torn


def _row(header: list[str], record: list[str], where: str, options: ReadOptions) -> Row | BadRow:
    if len(record) != len(header):
        return BadRow(where, f"{len(record)} cells instead of {len(header)}")
    try:
        for cell in record:
            cell.encode()
    except UnicodeEncodeError:
        return BadRow(where, "not UTF-8 text, or a line of it is broken")
    value: dict[str, Any] = dict(zip(header, record, strict=True))
    for key in ("tags", "overrides"):
        if key in value:
            value[key] = [label.strip() for label in value[key].split(";") if label.strip()]
    try:
        return shapes.conversation(value, where, options)
    except InputError as error:
        return BadRow(where, error.what)


def _text(path: Path, tick: Tick | None, torn: list[BadRow]) -> Iterator[str]:
    # A record may span lines, so bytes that are not UTF-8 go through as surrogates and condemn their record only.
    for line in lines(path, tick):
        if isinstance(line, BadRow):
            torn.append(line)
            yield f"{_BROKEN}\n"
        else:
            yield line[1].decode(errors="surrogateescape")
