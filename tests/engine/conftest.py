"""An open request log, and an engine that does not sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cai.store import Log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "requests.jsonl", key="key") as opened:
        yield opened


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the engine would have slept; it does not."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float, result: Any = None) -> Any:
        if seconds:
            asked.append(seconds)
        return await sleep(0)

    monkeypatch.setattr("cai.engine.asyncio.sleep", note)
    return asked
