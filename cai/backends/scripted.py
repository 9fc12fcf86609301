"""A backend without a model: deterministic answers, for trying recipes, for tests and for documentation.

It obeys the contract of every backend (context limit, token counts, finish reasons, errors, delays), so a whole run can
be rehearsed on any machine in a second. Its answers are a pure function of the request; what it writes means nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cai.engine import Completion, Request, choice_logprob
from cai.errors import BackendError, ContextOverflow
from cai.records import content_hash
from cai.yamlfile import StrictModel

WORDS = """
care clear plain fair steady open useful honest small careful true kind simple answer reason way help point step
question person thing case part example choice advice note result plan safe better first next often also always could
would should might while because though where when with from into about over after before between
""".split()


class Rule(StrictModel):
    """Answer with `reply` when the last turn matches the regular expression `match`."""

    match: str
    reply: str

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class Config(StrictModel):
    """Options of the scripted backend."""

    name: str = Field("scripted", description="Two names answer differently.")
    context: int = Field(4096, ge=16, description="Tokens (words) of prompt and answer together.")
    seats: int = Field(64, ge=1)
    delay: float = Field(0.0, ge=0, description="Seconds an answer takes.")
    words: int = Field(24, ge=1, description="Mean length of an answer.")
    rules: tuple[Rule, ...] = Field((), description="Tried in order before an answer is made up.")
    fail: dict[Literal["empty", "long", "error", "broken"], Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict,
        description="Share of requests that go wrong: empty, long, error (asking again helps), broken (it does not).",
    )


def fingerprint(config: Config) -> str:
    """Everything that changes an answer; not the delay or the seats, nor how much fits."""
    said = {**config.model_dump(mode="json", exclude={"delay", "seats"}), "context": 4096}
    return f"{config.name}@{content_hash(said, length=12)}"


def expected_speed(config: Config) -> float | None:
    """None: it answers as fast as it is asked."""
    return None


class Backend:
    """See `cai.engine.Backend`."""

    def __init__(self, config: Config) -> None:
        self.fingerprint = fingerprint(config)
        self.context = config.context
        self.seats = config.seats
        self._config = config
        self._rules = [(re.compile(rule.match, re.DOTALL), rule.reply) for rule in config.rules]
        self._asked: dict[int, int] = {}

    async def generate(self, request: Request) -> Completion:
        prompt = request.prompt if isinstance(request.prompt, str) else "\n".join(m.content for m in request.prompt)
        length = len(prompt.split())
        if length + request.sampling.max_tokens > self.context:
            raise ContextOverflow(
                f"{length} prompt tokens and {request.sampling.max_tokens} new ones do not fit in {self.context}",
                where=self.fingerprint,
            )
        if self._config.delay:
            await asyncio.sleep(self._config.delay)
        said = (self.fingerprint, prompt, request.seed, request.sampling.temperature, *request.choices)
        rng = random.Random(hashlib.sha256(repr(said).encode("utf-8", "backslashreplace")).digest())
        kind = self._fault(rng, self._config.fail)
        if kind == "broken":
            raise BackendError("scripted failure", where=self.fingerprint)
        if kind == "error":
            asked = self._asked[request.seed] = self._asked.get(request.seed, 0) + 1
            if asked == 1:
                raise BackendError("scripted failure that passes", where=self.fingerprint, retryable=True)
        if request.choices:
            return self._scored(request, rng, length, kind)
        words = self._words(request, rng, kind)
        cut = words[: request.sampling.max_tokens]
        return Completion(
            text=" ".join(cut),
            finish_reason="length" if len(cut) < len(words) else "stop",
            prompt_tokens=length,
            completion_tokens=len(cut),
            model=self.fingerprint,
        )

    def _scored(self, request: Request, rng: random.Random, length: int, kind: str | None) -> Completion:
        """Drawn probabilities, nearly all for a choice that a rule names; the fault `empty` leaves next to no mass."""
        last = request.prompt if isinstance(request.prompt, str) else "\n".join(m.content for m in request.prompt)
        named = next((reply for pattern, reply in self._rules if pattern.search(last)), "")
        shares = [100.0 if choice == named else rng.random() for choice in request.choices]
        mass = 0.001 if kind == "empty" else 0.9
        logprobs = tuple(choice_logprob([math.log(mass * share / sum(shares))]) for share in shares)
        best = request.choices[shares.index(max(shares))]
        return Completion(best, "length", length, 1, model=self.fingerprint, choice_logprobs=logprobs)

    def _words(self, request: Request, rng: random.Random, kind: str | None) -> list[str]:
        if kind == "empty":
            return []
        last = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        for pattern, reply in self._rules:
            if pattern.search(last):
                return reply.split(" ")
        count = request.sampling.max_tokens + 1 if kind == "long" else max(3, round(rng.gauss(self._config.words, 4)))
        words = rng.choices(WORDS, k=count)
        return [words[0].capitalize(), *words[1:-1], words[-1] + "."]

    @staticmethod
    def _fault(rng: random.Random, shares: Mapping[Any, float]) -> str | None:
        draw = rng.random()
        for kind, share in sorted(shares.items()):
            draw -= share
            if draw < 0:
                return str(kind)
        return None

    async def close(self) -> None:
        return None


def build(config: Config, *, seed: int, expected_tokens: int = 0) -> Backend:
    """The backend; nothing is loaded, and the seed of each request decides, not `seed`."""
    return Backend(config)
