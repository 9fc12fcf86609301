"""Plain text: one prompt a line, or with `paragraphs` one a paragraph (blank lines between, line breaks kept)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cai.errors import InputError
from cai.prompts.files import MAX_LINE, text_lines
from cai.prompts.rows import FIELD, FORMAT, BadRow, ReadOptions, Row, Tick
from cai.records import Message


def read(path: Path, options: ReadOptions, tick: Tick | None = None) -> Iterator[Row | BadRow]:
    """White space around a prompt is layout and not kept; blank lines are no rows.

    Raises:
        InputError: `fields` are asked for, which text does not have.
    """
    if options.fields:
        mend = f"leave {FIELD} out, or give another {FORMAT}"
        raise InputError("plain text has no fields", where=str(path), mend=mend)
    return _paragraphs(path, tick) if options.paragraphs else _lines(path, tick)


def _lines(path: Path, tick: Tick | None) -> Iterator[Row | BadRow]:
    for line in text_lines(path, tick):
        if isinstance(line, BadRow):
            yield line
        elif text := line[1].strip():
            yield Row(f"{path}:{line[0]}", (Message("user", text),))


def _paragraphs(path: Path, tick: Tick | None) -> Iterator[Row | BadRow]:
    start, held, size = 0, list[str](), 0
    broken: BadRow | None = None  # a paragraph with a broken line is broken, not shorter

    def ended() -> Iterator[Row | BadRow]:
        if broken:
            yield broken
        elif held:
            yield Row(f"{path}:{start}", (Message("user", "\n".join(held).strip()),))

    for line in text_lines(path, tick):
        if isinstance(line, BadRow):
            broken = broken or line
            held, size = [], 0
        elif not line[1].strip():
            yield from ended()
            held, size, broken = [], 0, None
        elif not broken:
            start = start if held else line[0]
            held.append(line[1])
            size += len(line[1])
            if size > MAX_LINE:
                broken = BadRow(f"{path}:{start}", f"the paragraph is longer than {MAX_LINE >> 20} MiB")
                held, size = [], 0
    yield from ended()
