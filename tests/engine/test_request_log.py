"""The request log: what was asked once is not asked again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cai.engine import Completion, Engine, Generate, Request, Sampling, Usage
from cai.errors import StoreError
from cai.records import Message
from cai.store import Log, read_rows
from tests.engine.fake import BROKEN, FLAKY, QUICK, Fake, ask, once, rows_of, run


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


@pytest.mark.parametrize(
    ("leaves", "cancelled", "asked"), [(0, 1, 2), (1, 0, 1)], ids=["another asks in its place", "the other goes on"]
)
def test_of_two_rows_that_ask_the_same_one_can_be_cancelled_alone(leaves: int, cancelled: int, asked: int) -> None:
    backend = Fake()

    async def main() -> Completion:
        backend.gate = asyncio.Event()
        engine = Engine({"policy": backend})
        rows = [asyncio.create_task(engine.generate(ask())) for _ in range(2)]
        await asyncio.sleep(0.01)
        rows[leaves].cancel()
        await asyncio.sleep(0.01)
        backend.gate.set()
        assert rows[leaves].cancelled()
        return await rows[1 - leaves]

    assert run(main()).text == "answer to a"
    assert (backend.cancelled, len(backend.asked)) == (cancelled, asked)


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
