"""Formats of preference data. Name = file; to add one, add a file.

A module offers what `Format` says. `read_rows` raises `InputError` for a row that is not what the format has to be.
`write_rows` raises `CannotCarry` for a preference that the format has no way to say (a tie, where it knows none):
it is left out and counted. Fields that it never carries stand in `LOST`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from cai import plugins
from cai.errors import InputError
from cai.preferences.base import Column, Row
from cai.records import Preference
from cai.stages.export import Split


class Format(Protocol):
    """What a format's module offers.

    Attributes:
        NAME, DESCRIPTION: for people.
        COLUMNS: what its rows hold, in order.
        LOST: fields of a preference that its rows do not carry, read back as a label's defaults (`base.labelled`).
        ROWS: rows a preference takes, one after another.
        PARQUET: whether a Parquet file is written beside the JSONL.
    """

    NAME: str
    DESCRIPTION: str
    COLUMNS: tuple[Column, ...]
    LOST: tuple[str, ...]
    ROWS: int
    PARQUET: bool

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has this format's columns; no row fits two formats."""
        ...

    def write_rows(self, preference: Preference, split: Split) -> tuple[Row, ...]: ...

    def read_rows(self, rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference: ...


def names() -> list[str]:
    """Every format there is."""
    return plugins.names(__name__)


def load(name: str) -> Format:
    """The format `name`.

    Raises:
        InputError: there is none; says which there are and which is nearest.
    """
    return cast(Format, plugins.load(__name__, name))


def detect(row: Mapping[str, Any], *, where: str = "") -> Format:
    """The format of a row, by its columns.

    Raises:
        InputError: it fits none.
    """
    for name in names():
        if (found := load(name)).fits(row):
            return found
    columns = ", ".join(str(key)[:40] for key in list(row)[:12]) or "nothing"
    raise InputError(
        f"cannot tell the format of preferences with the columns {columns}",
        where=where,
        mend=f"name it, one of: {', '.join(names())}",
    )
