"""What a run would cost, before any model loads: the method itself runs, and a stand-in answers by rule of thumb.

So the number of requests and the length of their prompts are those of the real loop, whatever its options; only the
lengths of the answers are guessed. Completions that the run's request log already holds are found and counted as free.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cai.engine import Completion, Engine, Generate, Request
from cai.errors import CaiError, ContextOverflow
from cai.records import Prompt
from cai.store import Log

SAMPLE = 1_000
"""Prompts that are played through; of a longer list, so many drawn evenly, and the counts scaled up."""

CHARACTERS_PER_TOKEN = 4.0
ANSWER_SHARE = 0.6
"""Of the tokens that a step may use, the share it is guessed to use."""


@dataclass(frozen=True)
class Estimate:
    """Counts for the whole run; `seconds` is None where no speed is known.

    Attributes:
        requests: generations to be made; `reused` more are in the log.
        new_tokens: tokens to generate, guessed.
        prompt_tokens: tokens to read, before prefix caching.
        sampled: prompts that were played through.
        speed_from: where `tokens_per_second` comes from, for people.
        too_long: prompts of which some request seems not to fit into the model's context, guessed.
        unreadable: rows of the prompts' files that are no prompt.
        warnings: what seems mistyped in the prompts or the recipe.
    """

    prompts: int
    requests: int
    reused: int
    prompt_tokens: int
    new_tokens: int
    sampled: int
    tokens_per_second: float | None
    seconds: float | None
    speed_from: str
    too_long: int = 0
    unreadable: int = 0
    warnings: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        return asdict(self)


class _StandIn:
    """Answers with filler of about the length that a model would use."""

    seats = 1

    def __init__(self, fingerprint: str, context: int) -> None:
        self.fingerprint = fingerprint
        self.context = context

    async def generate(self, request: Request) -> Completion:
        length = 1 if request.choices else max(1, round(request.sampling.max_tokens * ANSWER_SHARE))
        if isinstance(request.prompt, str):
            characters = len(request.prompt)
        else:
            characters = sum(len(message.content) + 16 for message in request.prompt)
        read = round(characters / CHARACTERS_PER_TOKEN)
        if read + (1 if request.choices else request.sampling.max_tokens) > self.context:
            raise ContextOverflow(f"about {read} prompt tokens do not fit in {self.context}", where=self.fingerprint)
        even = tuple(-math.log(len(request.choices)) for _ in request.choices)
        # Different each time, so that no detector of faults has the step asked again.
        text = " ".join(f"filler{request.seed % 9973}x{index}" for index in range(max(1, length // 3)))
        return Completion(text, "stop", read, length, model=self.fingerprint, choice_logprobs=even)

    async def close(self) -> None:
        return None


def _sample(prompts: Iterable[Prompt]) -> tuple[list[Prompt], int]:
    """At most `SAMPLE` prompts, each with the same chance (the first may all be finished), and how many there are."""
    kept: list[Prompt] = []
    total = 0
    rng = random.Random(0)
    for total, prompt in enumerate(prompts, start=1):
        if len(kept) < SAMPLE:
            kept.append(prompt)
        elif (place := rng.randrange(total)) < SAMPLE:
            kept[place] = prompt
    return kept, total


def estimate(
    prompts: Iterable[Prompt],
    method: Callable[[Prompt, Generate], Awaitable[Any]],
    *,
    models: Mapping[str, str],
    logs: Sequence[Path],
    past: Sequence[float],
    guess: float | None = None,
    contexts: Mapping[str, int] | None = None,
) -> Estimate:
    """Play `method` through for at most `SAMPLE` of the prompts and scale up.

    Args:
        models: fingerprints by role.
        logs: request logs whose completions are free: of the run, if it has begun, and of runs that it reuses.
        past: tokens per second of earlier attempts with the same model.
        guess: the same by the backend's rule of thumb, for a model that never ran here.
        contexts: tokens that prompt and answer may have together, by role; endless where not known.
    """
    sample, total = _sample(prompts)
    roles = {role: _StandIn(name, (contexts or {}).get(role, 1 << 40)) for role, name in models.items()}
    too_long: set[str] = set()

    async def play(engine: Engine) -> None:
        for prompt in sample:

            async def generate(request: Request, asked: str = prompt.id) -> Completion:
                try:
                    return await engine.generate(request)
                except ContextOverflow:
                    too_long.add(asked)
                    raise

            try:
                await method(prompt, generate)
            except CaiError:
                continue  # the run itself will say what is wrong with this row

    with contextlib.ExitStack() as stack:
        reuse = tuple(stack.enter_context(Log(path, key="key", read_only=True)) for path in logs)
        engine = Engine(roles, reuse=reuse)
        asyncio.run(play(engine))
    scale = total / len(sample) if sample else 0.0
    usage = engine.usage
    new_tokens = round(usage.fresh_completion_tokens * scale)
    if past:
        speed: float | None = float(median(past))
        origin = f"{len(past)} earlier attempt(s) with this model"
    elif guess:
        speed, origin = guess, "a rule of thumb; no earlier attempt with this model to go by"
    else:
        speed, origin = None, "no earlier attempt with this model to go by"
    return Estimate(
        prompts=total,
        requests=round(usage.fresh_requests * scale),
        reused=round(usage.reused_requests * scale),
        prompt_tokens=round(usage.fresh_prompt_tokens * scale),
        new_tokens=new_tokens,
        sampled=len(sample),
        tokens_per_second=speed,
        seconds=round(new_tokens / speed, 1) if speed else None,
        speed_from=origin,
        too_long=round(len(too_long) * scale),
    )
