"""The backend without a model: deterministic, and wrong in the ways it is told to be."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pydantic
import pytest

from cai.backends.scripted import Backend, Config, Rule, build, fingerprint
from cai.engine import Completion, Engine, Request, RetryPolicy, Sampling
from cai.errors import BackendError, ContextOverflow
from cai.records import Message


def ask(text: str = "What is a kettle?", *, seed: int = 1, **sampling: Any) -> Request:
    return Request((Message("user", text),), Sampling(**sampling), seed)


def answer(request: Request, **options: Any) -> Completion:
    return asyncio.run(build(Config(**options), seed=0).generate(request))


def test_an_answer_is_a_pure_function_of_the_request() -> None:
    assert answer(ask()) == answer(ask())
    assert answer(ask()) == answer(ask(), delay=0.001, seats=3)
    texts = [
        answer(ask()),
        answer(ask(seed=2)),
        answer(ask("Other?")),
        answer(ask(temperature=0)),
        answer(ask(), name="x"),
    ]
    assert len({completion.text for completion in texts}) == 5


def test_it_counts_tokens_and_names_itself() -> None:
    found = answer(ask())
    assert found.finish_reason == "stop"
    assert found.prompt_tokens == 4
    assert found.completion_tokens == len(found.text.split())
    assert found.model == fingerprint(Config())
    assert found.text[0].isupper()
    assert found.text.endswith(".")


def test_max_tokens_cuts_off() -> None:
    found = answer(ask(max_tokens=2))
    assert (found.finish_reason, found.completion_tokens, len(found.text.split())) == ("length", 2, 2)


def test_a_prompt_that_does_not_fit() -> None:
    with pytest.raises(ContextOverflow, match="20 prompt tokens and 8 new ones do not fit in 27"):
        answer(ask("word " * 20, max_tokens=8), context=27)
    assert answer(ask("word " * 20, max_tokens=8), context=28)


def test_rules_are_tried_in_order_on_the_last_turn() -> None:
    rules = (Rule(match="kettle", reply="Boil it."), Rule(match=".", reply="Else."))
    assert answer(ask(), rules=rules).text == "Boil it."
    assert answer(ask("pot"), rules=rules).text == "Else."
    turns = (Message("user", "kettle"), Message("assistant", "yes"), Message("user", "pot"))
    assert answer(Request(turns, Sampling(), 1), rules=rules).text == "Else."
    assert answer(Request("raw kettle", Sampling(), 1), rules=rules).text == "Boil it."


def test_the_fingerprint_is_of_what_changes_answers() -> None:
    assert fingerprint(Config(delay=1, seats=2)) == fingerprint(Config())
    assert fingerprint(Config(words=5)) != fingerprint(Config())
    assert Backend(Config(words=5)).fingerprint == fingerprint(Config(words=5))


def test_faults_come_in_the_shares_asked_for() -> None:
    async def main() -> Counter[str]:
        backend = build(Config(fail={"empty": 0.2, "long": 0.2, "broken": 0.1, "error": 0.1}), seed=0)
        kinds: Counter[str] = Counter()
        for seed in range(600):
            try:
                found = await backend.generate(ask(seed=seed, max_tokens=60))
            except BackendError as error:
                kinds["error" if error.retryable else "broken"] += 1
            else:
                kinds["empty" if not found.text else "long" if found.finish_reason == "length" else "good"] += 1
        return kinds

    kinds = asyncio.run(main())
    for kind, share in {"empty": 0.2, "long": 0.2, "broken": 0.1, "error": 0.1, "good": 0.4}.items():
        assert abs(kinds[kind] / 600 - share) < 0.06, kinds


def test_an_error_passes_when_asked_again_and_a_broken_request_does_not() -> None:
    async def main() -> None:
        quick = RetryPolicy(attempts=2, first=0.001)
        engine = Engine({"policy": build(Config(fail={"error": 1.0}), seed=0)}, retry=quick)
        assert (await engine.generate(ask())).text
        assert engine.usage.retries == 1
        engine = Engine({"policy": build(Config(fail={"broken": 1.0}), seed=0)}, retry=quick)
        with pytest.raises(BackendError, match="scripted failure"):
            await engine.generate(ask())

    asyncio.run(main())


def test_an_error_that_passes_leaves_the_answer_that_another_attempt_gets() -> None:
    """So that a run killed between the error and the answer ends with the same bytes."""

    async def main(killed: bool) -> str:
        config = Config(fail={"error": 1.0})
        backend = build(config, seed=0)
        for _ in range(2):
            try:
                return (await backend.generate(ask())).text
            except BackendError:
                if killed:
                    backend = build(config, seed=0)
                    with pytest.raises(BackendError):
                        await backend.generate(ask())
        raise AssertionError

    assert asyncio.run(main(False)) == asyncio.run(main(True))


@pytest.mark.parametrize("text", ["ä", "\ud800", "", "a\0b"])
def test_any_text_is_answered(text: str) -> None:
    assert answer(ask(text)).text


@pytest.mark.parametrize(
    "options",
    [
        {"context": 1},
        {"seats": 0},
        {"delay": -1},
        {"words": 0},
        {"unknown": 1},
        {"fail": {"eror": 0.1}},
        {"fail": {"error": 2}},
        {"rules": [{"match": "(", "reply": ""}]},
    ],
    ids=str,
)
def test_settings_are_validated(options: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Config(**options)


def test_a_wait_can_be_cancelled() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(build(Config(delay=60), seed=0).generate(ask()), 0.01)

    asyncio.run(main())
