"""Which format a path is in: by its first bytes and rows, and by its name only where those leave it open."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from cai.errors import InputError
from cai.prompts import formats
from cai.prompts.files import text_lines
from cai.prompts.rows import FORMAT, BadRow

_COMPRESSED = {".gz", ".xz", ".bz2", ".zst"}
_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
    ".parquet": "parquet",
    ".arrow": "dataset",
}
_LOOK_AT = 20
"""Lines looked at: enough to get past a broken first row."""


def detect(path: Path) -> str:
    """The name of the format of `path`.

    Raises:
        InputError: there is nothing at `path`, or its format cannot be told.
    """
    if path.is_dir():
        return "dataset"
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", where=str(path)) from error
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "dataset"
    suffixes = [suffix for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    named = _BY_SUFFIX.get(suffixes[-1].lower()) if suffixes else None
    if named in (None, "jsonl") or (named == "text" and _all_objects(path)):
        named = _by_rows(path) or named
    if named is None:
        raise InputError(
            "cannot tell the format of this file",
            where=str(path),
            mend=f"{FORMAT}, one of: {', '.join(formats.names())}",
        )
    return named


def _all_objects(path: Path) -> bool:
    """Whether a text's first lines all begin as a JSON object does: as prompts they would be its raw JSON."""
    lines = [line[1] for line in itertools.islice(text_lines(path), _LOOK_AT) if not isinstance(line, BadRow)]
    said = [line for line in lines if line.strip()]
    return bool(said) and all(line.startswith("{") for line in said)


def _by_rows(path: Path) -> str | None:
    for line in itertools.islice(text_lines(path), _LOOK_AT):
        if isinstance(line, BadRow) or line[1][:1] not in ("{", '"'):
            continue
        try:
            row = json.loads(line[1])
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and not {"messages", "prompt"} & row.keys():
            if isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str):
                return "hh"
            if isinstance(row.get("transcript"), str):
                return "red-team"
        return "jsonl"
    return None
