"""Rows of JSON, JSONL and CSV files of any tool, each with its line, so that a broken one can be named and skipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cai.errors import InputError

LONGEST_CELL = 2**31 - 1
"""Characters of a CSV cell; Python's own limit of 131,072 is less than two long answers have."""


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | InputError]]:
    """The rows of a JSON array, JSONL or CSV file (.gz too), with the line (JSON array: the number) of each.

    A line that is not a row comes as its error.

    Raises:
        InputError: no such file, or it cannot be read as what its name says.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    name = path.name.removesuffix(".gz")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path), mend="save it as UTF-8") from error
    if name.endswith((".csv", ".tsv")):
        yield from _csv(text, path, "\t" if name.endswith(".tsv") else ",")
    elif text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}", where=str(path), mend="is the file cut off?") from error
        for number, row in enumerate(found, start=1):
            yield number, row if isinstance(row, Mapping) else InputError("not an object", where=f"{path}:{number}")
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, InputError(f"not JSON: {error}", where=f"{path}:{number}")
                continue
            yield number, row if isinstance(row, Mapping) else InputError("not an object", where=f"{path}:{number}")


def _csv(text: str, path: Path, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any] | InputError]]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        if not reader.fieldnames:
            raise InputError("the file is empty", where=str(path))
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", where=f"{path}:1") from error
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, InputError(f"not CSV: {error}", where=where)
            continue
        if row is None:
            return
        if None in row or None in row.values():
            yield reader.line_num, InputError("has another number of cells than the first line", where=where)
        else:
            yield reader.line_num, row
