"""What the tests of the scheduler work with: a backend that does as it is told, and a loop that never hangs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from cai.engine import Completion, Engine, Generate, Request, RetryPolicy, Sampling
from cai.errors import BackendError
from cai.scheduler import Done, run_rows

T = TypeVar("T")


QUICK = RetryPolicy(attempts=3, first=0.001, longest=0.002, give_up_after=5)


FLAKY = BackendError("busy", where="here", retryable=True)


BROKEN = BackendError("broken", where="here")


def run(main: Coroutine[Any, Any, T], seconds: float = 20) -> T:
    """Run to the end, but not for ever; no task may be left over."""

    async def limited() -> T:
        try:
            async with asyncio.timeout(seconds):
                return await main
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"left over: {left}"

    return asyncio.run(limited())


def ask(text: str = "a", **changes: Any) -> Request:
    return dataclasses.replace(Request(text, Sampling(max_tokens=8), seed=1), **changes)


class Fake:
    """A backend that does what `act` says, after a turn of the loop."""

    def __init__(
        self, act: Callable[[Request, int], Completion | Exception | None] = lambda request, n: None, name: str = "fake"
    ) -> None:
        self.fingerprint, self.context, self.seats = name, 100, 4
        self.asked: list[Request] = []
        self.cancelled = 0
        self.closed = 0
        self.gate: asyncio.Event | None = None
        self._act = act

    async def generate(self, request: Request) -> Completion:
        self.asked.append(request)
        number = len(self.asked)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        found = self._act(request, number)
        if isinstance(found, Exception):
            raise found
        return found or Completion(f"answer to {request.prompt}", "stop", 3, 2, cached_tokens=1, model=self.fingerprint)

    async def close(self) -> None:
        self.closed += 1


async def collect(ends: AsyncIterator[Done]) -> list[Done]:
    return [end async for end in ends]


def rows_of(
    items: Any, method: Callable[[Any, Generate], Awaitable[Any]], engine: Engine, in_flight: int = 4
) -> list[Done]:
    return run(collect(run_rows(items, method, engine.generate, in_flight=in_flight)))


async def once(item: Any, generate: Generate) -> str:
    return (await generate(ask(str(item)))).text
