"""Retries: what is asked again, after how long, and when a backend is taken for dead."""

from __future__ import annotations

import asyncio

import pytest

from cai.engine import Completion, Engine, Generate, Request, RetryPolicy, Sampling
from cai.errors import BackendDown, BackendError, CaiError, ContextOverflow, PromptRefused
from cai.records import Message
from cai.scheduler import run_rows
from tests.engine.fake import BROKEN, FLAKY, QUICK, Fake, ask, collect, once, rows_of, run


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
        "here: the last 5 requests all failed, and even a plain prompt is not answered; "
        f"the last said: {error.what} (start the server again; then run the same command to go on)"
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


def test_a_dead_backend_is_told_beside_one_that_lives() -> None:
    """The other one's answers say nothing of it."""
    dead = Fake(lambda request, number: BROKEN)
    engine = Engine({"policy": Fake(), "reviser": dead}, retry=QUICK)

    async def both(item: int, generate: Generate) -> None:
        await generate(ask(str(item)))
        await generate(ask(str(item), model="reviser"))

    with pytest.raises(BackendDown, match="the last 5 requests all failed"):
        rows_of(range(100), both, engine, in_flight=1)
    assert len(dead.asked) == 5 + 3, "and a plain prompt three times"
    assert engine.failing


def test_prompts_that_are_refused_are_no_outage_however_many() -> None:
    refused = PromptRefused("no system turns", where="m")
    backend = Fake(lambda request, number: refused if "x" in str(request.prompt) else None)
    engine = Engine({"policy": backend}, retry=QUICK)

    async def one(item: int, generate: Generate) -> None:
        await generate(ask(f"{item} x" if item % 2 or item > 40 else str(item)))

    ended = rows_of(range(100), one, engine, in_flight=10)
    assert sum(end.error is refused for end in ended) == 79
    assert not engine.failing
    assert run(engine.silence()) is None


@pytest.mark.parametrize(("in_flight", "most"), [(1, 100 / 5), (10, 100 / 5), (100, 1)])
def test_requests_that_a_living_backend_fails_on_are_no_outage_however_many(in_flight: int, most: float) -> None:
    backend = Fake(lambda request, number: BROKEN if request.prompt != "Hello" else None)
    engine = Engine({"policy": backend}, retry=QUICK)
    ended = rows_of(range(100), once, engine, in_flight=in_flight)
    assert [end.error for end in ended] == [BROKEN] * 100
    assert 1 <= sum(request.prompt == "Hello" for request in backend.asked) <= most, "one row asks for all that wait"
    assert run(engine.silence()) is None
    assert not engine.failing


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_a_backend_that_refuses_every_system_turn_or_reply_begun_for_the_model_is_as_good_as_dead(role: str) -> None:
    backend = Fake(lambda request, number: BROKEN if role in str(request.prompt) else None)
    turns = (Message("system", "Judge."), Message("user", "A or B?"), Message("assistant", "It is"))

    async def one(item: int, generate: Generate) -> None:
        await generate(Request(turns, Sampling(max_tokens=8), seed=item))

    with pytest.raises(BackendDown, match="even a plain prompt is not answered"):
        rows_of(range(100), one, Engine({"policy": backend}, retry=QUICK))
    assert backend.asked[-1].prompt == (turns[0], Message("user", "Hello"), Message("assistant", "Hello"))


@pytest.mark.parametrize("choices", [(), ("A", "B")])
def test_a_failing_backend_that_answers_a_plain_prompt_lives(choices: tuple[str, ...]) -> None:
    down = [9]

    def act(request: Request, number: int) -> BackendError | None:
        down[0] -= 1
        return BROKEN if "x" in str(request.prompt) or down[0] >= 0 else None

    backend = Fake(act)
    engine = Engine({"policy": Fake(), "reviser": backend}, retry=QUICK)

    async def main() -> list[CaiError | None]:
        told = [await engine.silence()]
        with pytest.raises(BackendError):
            await engine.generate(ask("x", model="reviser", choices=choices))
        told.append(await engine.silence())
        down[0] = 2  # what fails by chance is no sign of death
        told.append(await engine.silence())
        return told

    assert run(main()) == [None, BROKEN, None]
    assert {(request.choices, request.sampling) for request in backend.asked} == {(choices, Sampling(max_tokens=8))}
    assert (engine.usage.errors, engine.usage.fresh_requests) == (1, 0)


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
