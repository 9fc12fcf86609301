"""Our own records, as `Preference.row` gives them: nothing is lost, abstentions included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.preferences.base import FIELDS, Column, Row
from cai.records import Preference
from cai.stages.export import Split

NAME = "records"
DESCRIPTION = "Our own records, with nothing left out."
LOST: tuple[str, ...] = ()
ROWS = 1
PARQUET = False
COLUMNS = tuple(Column(name, "text", f"See `{name}` of `cai.records.Preference`.") for name in ("schema", *FIELDS))


def fits(row: Mapping[str, Any]) -> bool:
    return {"schema", "comparison_id", "chosen", "rejected"} <= row.keys()


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    return (preference.row(),)


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    (row,) = rows
    return Preference.from_row(row, where=where)
