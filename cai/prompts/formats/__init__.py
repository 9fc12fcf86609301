"""Formats that prompts come in. Name = file: `formats/<name>.py`, dashes in the name being underscores in the file.

A format's module exposes one function, `read(path, options, tick) -> Iterator[Row | BadRow]`: rows in the file's
order, a `BadRow` for each that cannot be read, in constant memory. It raises `InputError` only where nothing of the
file can be read (it cannot be opened, it has no column of the name asked for). To add a format, add a file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cai.errors import InputError
from cai.prompts.rows import FORMAT, BadRow, ReadOptions, Row, Tick

Reader = Callable[[Path, ReadOptions, Tick | None], Iterator[Row | BadRow]]


def names() -> tuple[str, ...]:
    """Every format there is, by its name on the command line."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return tuple(sorted(file.stem.replace("_", "-") for file in files))


def get(name: str) -> Reader:
    """The reader of the format `name`.

    Raises:
        InputError: there is none; lists those there are.
    """
    if name not in names():
        raise InputError(f"no format {name!r}", where=FORMAT, mend=f"one of: auto, {', '.join(names())}")
    reader: Reader = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").read
    return reader
