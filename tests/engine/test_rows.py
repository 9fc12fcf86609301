"""The scheduler: rows in flight over one backend or several, and that nothing ever hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from cai.engine import Engine, Generate
from cai.errors import BackendDown, CaiError, ContextOverflow, InputError, StoreError
from cai.scheduler import rows_in_flight, run_rows
from tests.engine.fake import BROKEN, Fake, ask, collect, once, rows_of, run

# --- rows in flight --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seats", "at_once", "rows"), [(128, 1, 144), (4, 1, 5), (1, 1, 2), (64, 12, 11), (4, 0, 5)])
def test_a_row_behind_another_keeps_its_place_in_the_cache(seats: int, at_once: int, rows: int) -> None:
    assert rows_in_flight(seats, at_once) == rows


@pytest.mark.parametrize("in_flight", [1, 3, 50])
def test_never_more_rows_in_flight_than_asked_and_items_are_drawn_as_rows_end(in_flight: int) -> None:
    working = most = drawn = ended = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for number in range(40):
            drawn += 1
            assert drawn <= ended + in_flight
            yield number

    async def method(item: int, generate: Generate) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        for _ in range(1 + item % 5):
            await asyncio.sleep(0)
        working -= 1
        return item

    async def main() -> set[int]:
        nonlocal ended
        found = set()
        async for end in run_rows(items(), method, Engine({}).generate, in_flight=in_flight):
            ended += 1
            found.add(end.result)
        return found

    assert run(main()) == set(range(40))
    assert most == min(in_flight, 40)


def test_rows_are_told_as_they_end_not_as_they_began() -> None:
    async def main() -> list[int]:
        gates = [asyncio.Event() for _ in range(4)]
        gates[3].set()

        async def method(item: int, generate: Generate) -> int:
            await gates[item].wait()
            return item

        found = []
        async for end in run_rows(range(4), method, Engine({}).generate, in_flight=4):
            found.append(end.result)
            gates[end.result - 1].set()  # told while the others still work
        return found

    assert run(main()) == [3, 2, 1, 0]


def test_there_is_no_barrier_between_the_steps_of_different_rows() -> None:
    """A row asks its second request while another's first is still in work."""
    order: list[str] = []

    async def main() -> None:
        gate = asyncio.Event()

        async def method(item: str, generate: Generate) -> None:
            for step in range(3):
                order.append(f"{item}{step}")
                await generate(ask(f"{item}{step}"))
                if item == "slow" and step == 0:
                    await gate.wait()
            gate.set()

        await collect(run_rows(["slow", "fast"], method, Engine({"policy": Fake()}).generate, in_flight=2))

    run(main())
    assert order == ["slow0", "fast0", "fast1", "fast2", "slow1", "slow2"]


def test_no_rows() -> None:
    assert rows_of([], once, Engine({})) == []


@pytest.mark.parametrize("error", [BROKEN, InputError("bad row"), ContextOverflow("too long")])
def test_a_rows_own_failure_is_told_and_the_others_go_on(error: CaiError) -> None:
    async def method(item: int, generate: Generate) -> int:
        await asyncio.sleep(0)
        if item == 2:
            raise error
        return item

    ends = rows_of(range(5), method, Engine({}))
    assert {end.item for end in ends} == set(range(5))
    assert [(end.item, end.result) for end in ends if end.error is error] == [(2, None)]


@pytest.mark.parametrize(
    "error", [BackendDown("gone"), StoreError("full"), ZeroDivisionError("a bug"), KeyError("a bug")]
)
def test_what_ends_a_run_ends_it_with_that_error_and_every_row_is_cancelled(error: Exception) -> None:
    ended = []

    async def method(item: int, generate: Generate) -> None:
        try:
            await asyncio.sleep(0.001)
            if item == 3:
                raise error
            await asyncio.sleep(60)
        finally:
            ended.append(item)

    with pytest.raises(type(error)) as caught:
        rows_of(range(100), method, Engine({}), in_flight=10)
    assert caught.value is error
    assert sorted(ended) == list(range(10))


def test_a_row_cancelled_by_somebody_else_does_not_hang_the_run() -> None:
    async def method(item: int, generate: Generate) -> None:
        await asyncio.sleep(0)
        if item == 1:
            raise asyncio.CancelledError  # as a library that leaks its own cancellation does

    with pytest.raises(RuntimeError, match="a row was cancelled"):
        rows_of(range(3), method, Engine({}), in_flight=2)


def test_a_source_that_fails_ends_the_run() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise StoreError("cannot read the prompts")

    with pytest.raises(StoreError, match="cannot read the prompts"):
        rows_of(items(), once, Engine({"policy": Fake()}), in_flight=2)


def test_a_consumer_that_stops_cancels_the_rows_in_flight_down_to_the_backend() -> None:
    backend = Fake()

    async def main() -> None:
        backend.gate = asyncio.Event()

        async def method(item: int, generate: Generate) -> None:
            if item:
                await generate(ask(str(item)))

        async with contextlib.aclosing(
            run_rows(range(9), method, Engine({"policy": backend}).generate, in_flight=4)
        ) as ends:
            async for end in ends:
                assert end.item == 0
                await asyncio.sleep(0.01)
                break

    run(main())
    assert backend.cancelled == len(backend.asked) == 3


def test_cancelling_the_run_reaches_the_backend() -> None:
    backend = Fake()

    async def main() -> None:
        backend.gate = asyncio.Event()
        task = asyncio.create_task(collect(run_rows(range(9), once, Engine({"policy": backend}).generate, in_flight=4)))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()

    run(main())
    assert backend.cancelled == 4


# --- several backends ------------------------------------------------------------------------------------------------


def test_roles_are_answered_by_their_backends_and_shared_ones_count_once() -> None:
    one, two = Fake(name="one"), Fake(name="two")
    engine = Engine({"policy": one, "critic": two, "reviser": one})
    assert engine.seats == 8
    assert run(engine.generate(ask(model="critic"))).model == "two"
    assert run(engine.generate(ask(model="reviser"))).model == "one"
    run(engine.close())
    assert (one.closed, two.closed) == (1, 1)


def test_every_backend_is_closed_even_if_one_cannot_be() -> None:
    one, two = Fake(name="one"), Fake(name="two")

    async def fail() -> None:
        raise OSError("stuck")

    one.close = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="stuck"):
        run(Engine({"policy": one, "critic": two}).close())
    assert two.closed == 1
