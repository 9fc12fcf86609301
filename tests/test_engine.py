"""The scheduler: rows in flight, retries, the request log, and that nothing ever hangs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cai.engine import Completion, Done, Engine, Generate, Request, RetryPolicy, Sampling, Usage, run_rows
from cai.errors import BackendDown, BackendError, CaiError, ContextOverflow, InputError, StoreError
from cai.records import Message
from cai.store import Log, read_rows

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


async def collect(ends: AsyncIterator[Done]) -> list[Done]:
    return [end async for end in ends]


def rows_of(
    items: Any, method: Callable[[Any, Generate], Awaitable[Any]], engine: Engine, in_flight: int = 4
) -> list[Done]:
    return run(collect(run_rows(items, method, engine.generate, in_flight=in_flight)))


async def once(item: Any, generate: Generate) -> str:
    return (await generate(ask(str(item)))).text


# --- rows in flight --------------------------------------------------------------------------------------------------


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


# --- the request log -------------------------------------------------------------------------------------------------


def test_a_request_is_generated_once_and_then_taken_from_the_log(log: Log) -> None:
    backend = Fake()
    engine = Engine({"policy": backend}, log)
    first, second = run(engine.generate(ask())), run(engine.generate(ask()))
    assert first == second
    assert len(backend.asked) == 1
    again = Engine({"policy": Fake()}, log)
    assert run(again.generate(ask())) == first
    assert again.usage == Usage(reused_requests=1, reused_completion_tokens=2)


def test_the_completion_is_logged_before_the_method_sees_it(log: Log) -> None:
    engine = Engine({"policy": Fake()}, log)

    async def method(item: int, generate: Generate) -> None:
        await generate(ask())
        assert list(read_rows(log.path))
        raise BROKEN

    (end,) = rows_of([1], method, engine)
    assert end.error is BROKEN
    (row,) = read_rows(log.path)
    assert row == {
        "key": engine.key(ask()),
        "text": "answer to a",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "cached_tokens": 1,
        "model": "fake",
    }


def test_rows_that_ask_the_same_at_the_same_moment_share_one_answer(log: Log) -> None:
    backend = Fake()
    engine = Engine({"policy": backend}, log)
    ends = rows_of(range(6), lambda item, generate: once("same", generate), engine, in_flight=6)
    assert [end.result for end in ends] == ["answer to same"] * 6
    assert len(backend.asked) == 1
    assert len(list(read_rows(log.path))) == 1
    assert (engine.usage.fresh_requests, engine.usage.reused_requests) == (1, 5)


def test_rows_that_ask_the_same_share_one_failure_too() -> None:
    backend = Fake(lambda request, number: BROKEN)
    engine = Engine({"policy": backend}, retry=QUICK)
    ends = rows_of(range(6), lambda item, generate: once("same", generate), engine, in_flight=6)
    assert [end.error for end in ends] == [BROKEN] * 6
    assert len(backend.asked) == engine.usage.errors == 1


def test_when_the_row_that_asked_is_cancelled_another_asks_in_its_place() -> None:
    backend = Fake()

    async def main() -> Completion:
        backend.gate = asyncio.Event()
        engine = Engine({"policy": backend})
        first = asyncio.create_task(engine.generate(ask()))
        second = asyncio.create_task(engine.generate(ask()))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        backend.gate.set()
        return await second

    assert run(main()).text == "answer to a"
    assert (backend.cancelled, len(backend.asked)) == (1, 2)


def test_a_row_that_waits_for_anothers_answer_can_be_cancelled_alone() -> None:
    backend = Fake()

    async def main() -> Completion:
        backend.gate = asyncio.Event()
        engine = Engine({"policy": backend})
        first = asyncio.create_task(engine.generate(ask()))
        second = asyncio.create_task(engine.generate(ask()))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0.01)
        backend.gate.set()
        assert second.cancelled()
        return await first

    assert run(main()).text == "answer to a"
    assert (backend.cancelled, len(backend.asked)) == (0, 1)


def test_earlier_runs_are_looked_in_and_what_they_had_is_kept_in_this_one(log: Log, tmp_path: Path) -> None:
    with Log(tmp_path / "earlier.jsonl", key="key") as earlier:
        run(Engine({"policy": Fake()}, earlier).generate(ask()))
        before = earlier.path.read_bytes()
        backend = Fake()
        engine = Engine({"policy": backend}, log, reuse=(earlier,))
        assert run(engine.generate(ask())).text == "answer to a"
        run(engine.generate(ask("b")))
    assert [request.prompt for request in backend.asked] == ["b"]
    assert earlier.path.read_bytes() == before
    assert (engine.usage.fresh_requests, engine.usage.reused_requests) == (1, 1)
    assert len(log) == 2


def test_another_models_answers_are_not_taken(log: Log) -> None:
    run(Engine({"policy": Fake(name="one")}, log).generate(ask()))
    other = Fake(name="two")
    run(Engine({"policy": other}, log).generate(ask()))
    assert len(other.asked) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "b"},
        {"prompt": (Message("user", "a"),)},
        {"seed": 2},
        {"sampling": Sampling(max_tokens=9)},
        {"sampling": Sampling(max_tokens=8, temperature=0.5)},
        {"sampling": Sampling(max_tokens=8, top_p=0.5)},
        {"sampling": Sampling(max_tokens=8, top_k=5)},
        {"sampling": Sampling(max_tokens=8, stop=("x",))},
    ],
    ids=str,
)
def test_the_key_depends_on_all_that_is_asked(changes: dict[str, Any]) -> None:
    engine = Engine({"policy": Fake()})
    assert engine.key(ask()) != engine.key(ask(**changes))


def test_the_key_does_not_depend_on_the_role_when_the_model_is_the_same() -> None:
    engine = Engine({"policy": Fake(), "critic": Fake()})
    assert engine.key(ask()) == engine.key(ask(model="critic"))


def test_the_key_of_a_request_never_changes() -> None:
    """If it did, no run begun with an earlier version could be resumed."""
    request = Request((Message("user", "ä\ud800"),), Sampling(stop=("x",)), seed=5)
    assert Engine({"policy": Fake()}).key(request) == "c25eaec41e93131d5833ea16"


def test_a_logged_row_that_is_no_completion_is_an_error(log: Log) -> None:
    engine = Engine({"policy": Fake()}, log)
    log.append({"key": engine.key(ask()), "text": "half a row"})
    with pytest.raises(StoreError, match=r"requests\.jsonl: the row .* is not a completion"):
        run(engine.generate(ask()))


def test_a_completion_that_cannot_be_logged_ends_the_run(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(row: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(log, "append", full)
    with pytest.raises(StoreError, match="the disk is full"):
        rows_of(range(9), once, Engine({"policy": Fake()}, log))


def test_usage_counts_what_was_generated_and_what_was_reused(log: Log) -> None:
    backend = Fake(lambda request, number: FLAKY if number == 1 else BROKEN if request.prompt == "2" else None)
    engine = Engine({"policy": backend}, log, retry=QUICK)
    rows_of([0, 1, 2, 3], once, engine, in_flight=1)
    rows_of([0, 1], once, engine, in_flight=1)
    assert engine.usage.row() == {
        "fresh_requests": 3,
        "fresh_prompt_tokens": 9,
        "fresh_completion_tokens": 6,
        "cached_prompt_tokens": 3,
        "reused_requests": 2,
        "reused_completion_tokens": 4,
        "retries": 1,
        "errors": 1,
    }


# --- retries ---------------------------------------------------------------------------------------------------------


def test_a_passing_failure_is_asked_again(waits: list[float]) -> None:
    backend = Fake(lambda request, number: FLAKY if number < 3 else None)
    engine = Engine({"policy": backend})
    assert run(engine.generate(ask())).text == "answer to a"
    assert len(backend.asked) == 3
    assert (engine.usage.retries, engine.usage.errors) == (2, 0)
    assert not engine.failing


def test_waits_grow_with_jitter_up_to_the_longest(waits: list[float]) -> None:
    policy = RetryPolicy(attempts=8, first=1.0, longest=10.0)
    with pytest.raises(BackendError, match="busy"):
        run(Engine({"policy": Fake(lambda request, number: FLAKY)}, retry=policy).generate(ask()))
    assert len(waits) == 7
    for number, wait in enumerate(waits):
        assert min(10.0, 0.5 * 2**number) <= wait <= min(10.0, 2.0**number)
    assert len(set(waits[:4])) == 4
    first = list(waits)
    waits.clear()
    with pytest.raises(BackendError, match="busy"):
        run(Engine({"policy": Fake(lambda request, number: FLAKY)}, retry=policy).generate(ask()))
    assert waits == first, "no result may depend on chance"


@pytest.mark.parametrize(("asked", "longest", "waited"), [(7.0, 30.0, 7.0), (3600.0, 30.0, 30.0)])
def test_a_servers_own_wish_to_wait_is_obeyed_within_reason(
    waits: list[float], asked: float, longest: float, waited: float
) -> None:
    busy = BackendError("busy", retryable=True, retry_after=asked)
    backend = Fake(lambda request, number: busy if number == 1 else None)
    run(Engine({"policy": backend}, retry=RetryPolicy(longest=longest)).generate(ask()))
    assert waits == [waited]


@pytest.mark.parametrize("error", [BROKEN, ContextOverflow("too long")])
def test_what_asking_again_cannot_help_is_asked_once(waits: list[float], error: BackendError) -> None:
    backend = Fake(lambda request, number: error)
    with pytest.raises(type(error)) as caught:
        run(Engine({"policy": backend}).generate(ask()))
    assert caught.value is error
    assert len(backend.asked) == 1
    assert waits == []


@pytest.mark.parametrize("error", [BROKEN, FLAKY])
def test_a_backend_that_answers_nothing_any_more_ends_the_run(error: BackendError) -> None:
    backend = Fake(lambda request, number: None if number <= 7 else error)
    engine = Engine({"policy": backend}, retry=QUICK)
    with pytest.raises(BackendDown) as caught:
        rows_of(range(1000), once, engine, in_flight=3)
    assert str(caught.value) == (
        f"here: the last 5 requests all failed; the last said: {error.what} "
        "(start the server again; then run the same command to go on)"
    )
    assert caught.value.exit_code == 2
    assert len(backend.asked) < 50


def test_the_error_says_how_to_mend_it_when_the_backend_knows() -> None:
    error = BackendError("HTTP 401", where="here", mend="set KEY")
    with pytest.raises(BackendDown, match=r"\(set KEY; then run the same command to go on\)$"):
        rows_of(range(100), once, Engine({"policy": Fake(lambda request, number: error)}, retry=QUICK))


def test_one_answer_and_the_backend_is_not_taken_for_dead() -> None:
    backend = Fake(lambda request, number: None if number % 5 == 0 else BROKEN)
    ends = rows_of(range(100), once, Engine({"policy": backend}, retry=QUICK), in_flight=1)
    assert sum(end.error is None for end in ends) == 20


def test_an_answer_that_was_on_its_way_when_a_failure_came_is_no_sign_of_life() -> None:
    async def main() -> list[bool]:
        told = []
        slow = asyncio.Event()

        class Dying(Fake):
            async def generate(self, request: Request) -> Completion:
                if request.prompt == "old":
                    await slow.wait()
                if request.prompt == "failing":
                    raise BROKEN
                return await super().generate(request)

        engine = Engine({"policy": Dying()}, retry=QUICK)
        old = asyncio.create_task(engine.generate(ask("old")))
        await asyncio.sleep(0)
        with pytest.raises(BackendError, match="broken"):
            await engine.generate(ask("failing"))
        told.append(engine.failing)
        slow.set()
        await old
        told.append(engine.failing)
        await engine.generate(ask("new"))
        told.append(engine.failing)
        return told

    assert run(main()) == [True, True, False]


def test_prompts_that_do_not_fit_are_no_sign_of_death() -> None:
    backend = Fake(lambda request, number: ContextOverflow("too long"))
    engine = Engine({"policy": backend}, retry=QUICK)
    assert len(rows_of(range(100), once, engine)) == 100
    assert not engine.failing


def test_a_bug_of_a_backend_is_not_asked_again() -> None:
    backend = Fake(lambda request, number: ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        rows_of(range(9), once, Engine({"policy": backend}, retry=QUICK), in_flight=1)
    assert len(backend.asked) == 1


def test_a_row_waiting_to_ask_again_can_be_cancelled() -> None:
    engine = Engine({"policy": Fake(lambda request, number: FLAKY)}, retry=RetryPolicy(first=60, longest=60))

    async def main() -> None:
        task = asyncio.create_task(collect(run_rows(range(3), once, engine.generate, in_flight=3)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main(), seconds=5)


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
