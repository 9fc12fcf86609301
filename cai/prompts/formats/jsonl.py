"""JSON Lines: `Prompt.row()`, `messages`, `prompt`, `conversations` (ShareGPT), `turns` (MT-Bench) or plain strings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cai.prompts import jsonlines, shapes
from cai.prompts.rows import BadRow, ReadOptions, Row, Tick


def read(path: Path, options: ReadOptions, tick: Tick | None = None) -> Iterator[Row | BadRow]:
    """One row a line; a plain JSON string is a prompt by itself."""
    return jsonlines.read(path, options, tick, shapes.conversation)
