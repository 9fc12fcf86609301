"""Preferences from files, in any of the formats, told by their columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.preferences import formats
from cai.preferences.formats import Format
from cai.prompts.files import is_parquet, parquet_rows, text_lines
from cai.prompts.rows import BadRow
from cai.records import Preference

Broken = Callable[[InputError], None]


def read_preferences(
    path: Path,
    format: str = "auto",
    *,
    rename: Mapping[str, str] | None = None,
    broken: Broken | None = None,
) -> Iterator[Preference]:
    """The preferences of a file, streaming, in its order.

    Args:
        path: JSONL (compressed too), Parquet, or a folder of such files: its Parquet files, or else its JSONL files,
            `train` first.
        format: a name from `cai.preferences.formats`; `auto` tells it by the columns of the first row.
        rename: the names of the format's columns, by the format's own, as they were written.
        broken: receives the error of each row that cannot be read, and reading goes on. Without, the first one ends it.

    Raises:
        InputError: nothing at `path`, an unknown format, a file that is torn or corrupt (nobody knows how many rows are
            lost), or (without `broken`) a row that is not what it has to be, with file and line.
    """
    back = {new: old for old, new in (rename or {}).items()}
    chosen = None if format == "auto" else formats.load(format)
    for file in _files(path):
        yield from _file(file, chosen, back, broken or _stop)


def _stop(error: InputError) -> None:
    raise error


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for pattern in ("*.parquet", "*.jsonl*"):
        if found := [file for file in path.glob(pattern) if not file.name.startswith(".")]:
            return sorted(found, key=lambda file: (not file.name.startswith("train"), file.name))
    raise InputError("no Parquet or JSONL files in the folder", where=str(path))


def _file(path: Path, chosen: Format | None, back: Mapping[str, str], broken: Broken) -> Iterator[Preference]:
    waiting: list[tuple[str, Mapping[str, Any]]] = []
    for where, found in _rows(path):
        if isinstance(found, InputError):
            broken(found)
            continue
        row = {back.get(name, name): value for name, value in found.items()}
        chosen = chosen or formats.detect(row, where=where)
        waiting.append((where, row))
        if len(waiting) < chosen.ROWS:
            continue
        try:
            preference = chosen.read_rows([row for _, row in waiting], where=waiting[0][0])
        except InputError as error:
            broken(error if error.where else InputError(error.what, where=waiting[0][0], mend=error.mend))
            del waiting[0]  # the next row may begin a preference of its own
        else:
            waiting.clear()
            yield preference
    for where, _ in waiting:
        broken(InputError("has no partner: the file ends", where=where))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | InputError]]:
    """The rows with `file:line` (Parquet: the row's number), or the error in place of one that cannot be read."""
    if is_parquet(path):
        yield from parquet_rows(path)
        return
    for line in text_lines(path):
        if isinstance(line, BadRow):
            if line.torn:
                raise line.error()
            yield line.where, InputError(line.reason, where=line.where)
            continue
        number, text = line
        if not text.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "no value"
            yield where, InputError(f"not JSON: {what}", where=where)
            continue
        yield where, row if isinstance(row, dict) else InputError("a row must be an object", where=where)
