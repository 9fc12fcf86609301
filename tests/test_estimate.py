"""`--dry-run`: the requests of the real loop, lengths by rule of thumb, logged completions for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cai import estimate as module
from cai.backends import scripted
from cai.engine import Engine, Generate, Request, Sampling
from cai.errors import InputError
from cai.estimate import ANSWER_SHARE, estimate
from cai.records import Prompt
from cai.store import Log

MODELS = {"policy": "m@1", "critic": "m@1", "reviser": "m@1"}
Method = Callable[[Prompt, Generate], Awaitable[Any]]


def prompts(count: int) -> list[Prompt]:
    return [Prompt.make(f"Question number {n}?") for n in range(count)]


async def two_steps(prompt: Prompt, generate: Generate) -> None:
    first = await generate(Request(prompt.messages, Sampling(max_tokens=100), seed=1))
    await generate(Request(first.text, Sampling(max_tokens=50), seed=2, model="critic"))


def test_requests_and_tokens_are_those_of_the_method() -> None:
    found = estimate(prompts(10), two_steps, models=MODELS, logs=[], past=[])
    assert (found.prompts, found.sampled, found.requests, found.reused) == (10, 10, 20, 0)
    assert found.new_tokens == 10 * round(150 * ANSWER_SHARE)
    assert found.prompt_tokens > found.new_tokens / 2
    assert found.seconds is None
    assert "no earlier attempt" in found.speed_from


def test_the_time_is_by_the_median_of_earlier_speeds() -> None:
    found = estimate(prompts(10), two_steps, models=MODELS, logs=[], past=[90.0, 1.0, 100.0])
    assert found.seconds == 10.0
    assert found.tokens_per_second == 90.0


def test_no_prompts() -> None:
    found = estimate([], two_steps, models=MODELS, logs=[], past=[10.0])
    assert (found.prompts, found.requests, found.new_tokens, found.seconds) == (0, 0, 0, 0.0)


def test_a_row_that_fails_is_passed_over() -> None:
    async def fails(prompt: Prompt, generate: Generate) -> None:
        await two_steps(prompt, generate)
        raise InputError("no")

    assert estimate(prompts(3), fails, models=MODELS, logs=[], past=[]).requests == 6


@pytest.mark.parametrize("finished", ["first", "last"])
def test_a_long_list_is_sampled_evenly_and_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: str
) -> None:
    monkeypatch.setattr(module, "SAMPLE", 100)
    every = prompts(1000)
    log = tmp_path / "requests.jsonl"
    backend = scripted.build(scripted.Config(), seed=0)
    models = dict.fromkeys(MODELS, backend.fingerprint)

    async def one_step(prompt: Prompt, generate: Generate) -> None:
        await generate(Request(prompt.messages, Sampling(max_tokens=100), seed=1))

    async def work() -> None:
        with Log(log, key="key") as requests:
            engine = Engine({"policy": backend}, requests)
            for prompt in every[:500] if finished == "first" else every[500:]:
                await one_step(prompt, engine.generate)

    asyncio.run(work())
    before = log.read_bytes()
    found = estimate(every, one_step, models=models, logs=[log], past=[])
    assert (found.prompts, found.sampled) == (1000, 100)
    assert found.requests + found.reused == 1000
    assert 350 < found.reused < 650
    assert log.read_bytes() == before


def test_the_log_is_only_read_even_when_its_last_line_is_torn(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    log.write_bytes(b'{"key": "torn')
    estimate(prompts(2), two_steps, models=MODELS, logs=[log], past=[])
    assert log.read_bytes() == b'{"key": "torn'
    assert [path.name for path in tmp_path.iterdir()] == ["requests.jsonl"]
