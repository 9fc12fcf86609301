"""HH-RLHF preferences: JSON Lines with `chosen` and `rejected`; the prompt is the conversation that both share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cai.prompts import jsonlines, shapes
from cai.prompts.rows import BadRow, ReadOptions, Row, Tick


def read(path: Path, options: ReadOptions, tick: Tick | None = None) -> Iterator[Row | BadRow]:
    """One row a line, every turn of the shared prefix kept up to its last user turn."""
    return jsonlines.read(path, options, tick, jsonlines.objects(shapes.hh))
