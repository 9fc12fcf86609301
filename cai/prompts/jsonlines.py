"""JSON Lines, one value a line, shared by the formats that are JSONL with different keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.prompts.files import decoded, lines
from cai.prompts.rows import BadRow, ReadOptions, Row, Tick

Shape = Callable[[Any, str, ReadOptions], Row]


def read(path: Path, options: ReadOptions, tick: Tick | None, shape: Shape) -> Iterator[Row | BadRow]:
    """The rows of a JSONL file, made by `shape`; blank lines are skipped.

    A last line that begins a row and that nothing ends is where a copy of the file broke off.
    """
    for found in lines(path, tick):
        line = found if isinstance(found, BadRow) else decoded(path, *found)
        if isinstance(line, BadRow):
            yield line
            continue
        number, text = line
        if not text.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield shape(json.loads(text), where, options)
        except json.JSONDecodeError as error:
            begun = number > 1 and text.lstrip().startswith("{")  # no row ends in the "]" of one long document
            broken_off = begun and isinstance(found, tuple) and not found[1].endswith(b"\n")
            yield BadRow(where, _reason(error, text, number), torn=broken_off)
        except RecursionError:
            yield BadRow(where, "nested too deeply")
        except InputError as error:
            yield BadRow(where, error.what)
        except ValueError as error:  # a number of thousands of digits
            yield BadRow(where, f"not JSON: {error}")


def objects(shape: Callable[[Mapping[str, Any], str, ReadOptions], Row]) -> Shape:
    """`shape`, for files whose rows have to be objects."""

    def checked(value: Any, where: str, options: ReadOptions) -> Row:
        if not isinstance(value, Mapping):
            raise InputError("a row must be an object")
        return shape(value, where, options)

    return checked


def _reason(error: json.JSONDecodeError, text: str, number: int) -> str:
    if number == 1 and text.strip() in ("[", "{"):
        return "not JSON Lines: one JSON document over many lines (convert an array with: jq -c '.[]')"
    torn = " (a torn line?)" if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg else ""
    return f"not JSON: {error.msg} at column {error.colno}{torn}"
