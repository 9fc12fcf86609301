"""HH-RLHF red-team attempts: JSON Lines with `transcript`, `rating` (0..4) and `tags`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cai.prompts import jsonlines, shapes
from cai.prompts.rows import BadRow, ReadOptions, Row, Tick


def read(path: Path, options: ReadOptions, tick: Tick | None = None) -> Iterator[Row | BadRow]:
    """One row a line: its first user turn, or with `turns="all"` everything up to its last one."""
    return jsonlines.read(path, options, tick, jsonlines.objects(shapes.red_team))
