"""The scheduler: methods are plain coroutines that await `generate`, and many of them are kept in flight.

There is no barrier between the steps of a method: each row asks its next request the moment its last one is answered,
so the backend's batch stays full and a critique is asked while its draft is still in the prefix cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from cai.engine import Generate
from cai.errors import CaiError

Item = TypeVar("Item")
Result = TypeVar("Result")


def rows_in_flight(seats: int, requests_at_once: int = 1) -> int:
    """How many rows keep `seats` seats of the backends busy.

    A row that asks one request after another finds its last one in the prefix cache only if it need not queue behind
    the first requests of many others: so little more rows than seats, just enough that one which ends leaves no seat
    empty. On six rows a seat a quarter fewer prompt tokens are computed than with twice the seats; that more is
    generated a second was not shown (`benchmarks/rows_in_flight.py`), on a machine whose speed moved by more. Rows that
    ask many at once share a prefix within the row, and not all ask as many: twice the seats.

    Args:
        seats: requests that the backends work on at once, together.
        requests_at_once: of one row.
    """
    if requests_at_once <= 1:
        return max(2, seats + -(-seats // 8))  # sampling nothing anew asks nothing
    return max(2, -(-2 * seats // requests_at_once))


async def together(asked: Iterable[Awaitable[Result]]) -> list[Result]:
    """Await several requests of one row at once; the first failure cancels the others and is raised."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


@dataclass(frozen=True, slots=True)
class Done:
    """A row that came to its end: `result`, or the `error` that ended it."""

    item: Any
    result: Any = None
    error: CaiError | None = None


async def run_rows(
    items: Iterable[Item],
    method: Callable[[Item, Generate], Awaitable[Result]],
    generate: Generate,
    *,
    in_flight: int,
) -> AsyncGenerator[Done, None]:
    """Run `method` over `items`, `in_flight` at a time, and yield each as it ends, in the order in which they end.

    `items` is drawn from only as rows end, so memory does not grow with its length. A row's own failure
    (`BackendError`, `InputError`, ...) is yielded; `BackendDown` and `StoreError` end the whole run. When the consumer
    stops early, the rows in flight are cancelled.
    """
    source = iter(items)
    ended: asyncio.Queue[Done] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()

    async def one(item: Item) -> None:
        try:
            ended.put_nowait(Done(item, result=await method(item, generate)))
        except CaiError as error:
            ended.put_nowait(Done(item, error=error))

    def crashed(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        problem = RuntimeError("a row was cancelled by none of ours") if task.cancelled() else task.exception()
        if problem is not None:
            crashes.append(problem)  # a bug: let it end the run instead of hanging it
            ended.put_nowait(Done(None))

    crashes: list[BaseException] = []
    waiting = 0
    try:
        while True:
            while waiting < in_flight:
                try:
                    item = next(source)
                except StopIteration:
                    break
                task = asyncio.create_task(one(item))
                task.add_done_callback(crashed)
                tasks.add(task)
                waiting += 1
            if waiting == 0:
                return
            done = await ended.get()
            if crashes:
                raise crashes[0]
            if done.error is not None and done.error.ends_run:
                raise done.error
            waiting -= 1
            yield done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
