"""Preferences to files: JSONL for every format, Parquet beside it where the format says so."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jsonlines

from cai.errors import InputError
from cai.preferences import formats
from cai.preferences.base import CannotCarry, Column, Row
from cai.stages.export import SPLITS, Split, dumps, mended_text
from cai.stages.select import Choice
from cai.store import disk_error, replacing


@dataclass(frozen=True)
class PreferenceCounts:
    """What `write_preferences` wrote; every mapping counts preferences, in the order of its keys, unless it says else.

    Attributes:
        format: its name.
        rows: rows in the files; a format can take several a preference.
        prompts, groups: prompts and groups by split.
        by_principle, by_tag: a preference can count for several.
        longer: those whose chosen answer is the `longer`, the `shorter` or of `equal` length, in characters.
        left_out: preferences that the format cannot carry, by reason.
        lost: fields of a preference that the format does not carry.
        mended: preferences with a lone surrogate, which UTF-8 cannot carry, replaced by U+FFFD.
    """

    format: str
    rows: int
    preferences: int
    prompts: Mapping[str, int]
    groups: Mapping[str, int]
    by_split: Mapping[str, int]
    by_axis: Mapping[str, int]
    by_status: Mapping[str, int]
    by_source: Mapping[str, int]
    by_principle: Mapping[str, int]
    by_tag: Mapping[str, int]
    longer: Mapping[str, int]
    left_out: Mapping[str, int]
    lost: tuple[str, ...]
    mended: int

    def row(self) -> dict[str, Any]:
        """JSON object."""
        return {**dataclasses.asdict(self), "lost": list(self.lost)}


def write_preferences(
    folder: Path,
    choices: Iterable[Choice],
    format: str = "trl",
    *,
    rename: Mapping[str, str] | None = None,
    row_group: int = 2_000,
) -> PreferenceCounts:
    """Write `train` and `test` as `.jsonl`, and as `.parquet` with the same rows where the format says so.

    Equal rows give equal bytes. Rows stream; memory holds at most `row_group` of each split. A file is replaced as a
    whole once all were drawn, so an error among them leaves the old ones. A split without rows has no files (old ones
    are removed): `datasets` cannot load an empty one.

    Args:
        choices: those that are rows, as `select` gives them, a prompt's together (they are counted by where the next
            begins); any other is an error.
        format: a name from `cai.preferences.formats`.
        rename: names of columns to write instead of the format's, by those (OpenRLHF's `--chosen_key`, ...).
        row_group: rows in a Parquet row group.

    Raises:
        InputError: no such format or column, two columns of one name, or a choice that is not a row.
        StoreError: the disk is full or the folder cannot be written.
    """
    chosen = formats.load(format)
    columns = renamed(chosen.COLUMNS, rename or {})
    tally = {f.name: Counter[str]() for f in dataclasses.fields(PreferenceCounts) if f.type == "Mapping[str, int]"}
    rows = mended = 0
    last = {"prompts": "", "groups": ""}
    with contextlib.ExitStack() as stack:
        writers: dict[Split, _SplitWriter] = {}
        for choice in choices:
            preference, split = choice.preference, choice.split
            if split is None:
                raise InputError(f"not a row: {choice.reason}", where=f"preference {preference.id}")
            try:
                given = chosen.write_rows(preference, split)
            except CannotCarry as error:
                tally["left_out"][error.reason] += 1
                continue
            sound: tuple[Row, ...] = tuple(mended_text(row) for row in given)
            mended += sound != given
            made = [{(rename or {}).get(name, name): value for name, value in row.items()} for row in sound]
            if split not in writers:
                table = columns if chosen.PARQUET else None
                writers[split] = stack.enter_context(_split_writer(folder, split, table, row_group))
            for row in made:
                writers[split].write(row)
            rows += len(made)
            for name, key in (("prompts", preference.prompt_id), ("groups", preference.group_id)):
                if key != last[name]:
                    tally[name][split] += 1
                    last[name] = key
            difference = len(preference.chosen) - len(preference.rejected)
            tally["longer"]["longer" if difference > 0 else "shorter" if difference else "equal"] += 1
            tally["by_split"][split] += 1
            tally["by_axis"][preference.axis] += 1
            tally["by_status"][preference.status] += 1
            tally["by_source"][preference.source] += 1
            tally["by_principle"].update(set(preference.principle_ids))
            tally["by_tag"].update(set(preference.tags))
    _remove_others(folder, [*writers], parquet=chosen.PARQUET)
    by = {name: dict(sorted(counter.items())) for name, counter in tally.items()}
    total = sum(by["by_split"].values())
    return PreferenceCounts(format=format, rows=rows, preferences=total, lost=chosen.LOST, mended=mended, **by)


def renamed(columns: Sequence[Column], rename: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns with their new names.

    Raises:
        InputError: there is no such column, or two would have one name.
    """
    known = [column.name for column in columns]
    for name in rename:
        if name not in known:
            raise InputError(f"no column {name!r} to rename", mend=f"one of: {', '.join(known)}")
    found = tuple(column._replace(name=rename.get(column.name, column.name)) for column in columns)
    if len({column.name for column in found}) < len(found):
        raise InputError("two columns would have the same name", where="rename")
    return found


def arrow_schema(columns: Sequence[Column]) -> Any:
    """The `pyarrow.Schema` of a Parquet file with these columns."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types = {
        "text": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "texts": pa.list_(pa.string()),
        "messages": messages,
        "completions": pa.list_(pa.struct([("rank", pa.int64()), ("completion", messages)])),
    }
    return pa.schema([(column.name, types[column.kind]) for column in columns])


def _remove_others(folder: Path, written: Sequence[Split], *, parquet: bool) -> None:
    """Remove what an earlier writing left and this one did not replace."""
    for split in SPLITS:
        gone = [] if split in written else ["jsonl"]
        gone += [] if split in written and parquet else ["parquet"]
        for path in (folder / f"{split}.{kind}" for kind in gone):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(error, path) from error


class _SplitWriter:
    """The files of one split, open for writing; see `_split_writer`."""

    def __init__(self, jsonl: IO[bytes], parquet: IO[bytes] | None, columns: Sequence[Column], row_group: int) -> None:
        self._jsonl = jsonlines.Writer(jsonl, dumps=dumps)
        self._parquet: Any = None
        self._waiting: list[Row] = []
        self._row_group = row_group
        if parquet is not None:
            import pyarrow.parquet

            self._schema = arrow_schema(columns)
            # Nothing here may vary between two writings: no file-level metadata of ours, one codec.
            self._parquet = pyarrow.parquet.ParquetWriter(parquet, self._schema, compression="zstd")

    def write(self, row: Row) -> None:
        self._jsonl.write(row)
        if self._parquet is not None:
            self._waiting.append(row)
            if len(self._waiting) >= self._row_group:
                self.flush()

    def flush(self) -> None:
        if self._waiting:
            import pyarrow

            table = pyarrow.Table.from_pylist(self._waiting, schema=self._schema)
            self._parquet.write_table(table, row_group_size=self._row_group)
            self._waiting.clear()

    def close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._jsonl.close()


@contextlib.contextmanager
def _split_writer(
    folder: Path, split: Split, columns: Sequence[Column] | None, row_group: int
) -> Iterator[_SplitWriter]:
    with contextlib.ExitStack() as stack:
        jsonl = stack.enter_context(replacing(folder / f"{split}.jsonl"))
        parquet = None if columns is None else stack.enter_context(replacing(folder / f"{split}.parquet"))
        writer = stack.enter_context(contextlib.closing(_SplitWriter(jsonl, parquet, columns or (), row_group)))
        yield writer
        writer.flush()
