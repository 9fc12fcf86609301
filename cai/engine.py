"""What methods ask and backends answer; and the engine between them, with its retries and the request log.

Every completion is logged under the hash of its request before the method sees it; the same request is never generated
twice, which makes resume, and "what does this edit change?", one mechanism.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from cai.errors import BackendDown, BackendError, CaiError, PromptRefused, StoreError
from cai.records import Message, Messages, content_hash
from cai.store import Log


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_p` 1 and `top_k` 0 switch those filters off."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One generation.

    Attributes:
        prompt: chat messages, to which the model's chat template is applied; or raw text, for base models.
        sampling: how tokens are drawn.
        seed: drawn from the run's seed and what is asked, so that equal rows of equal runs ask the same.
        model: the role (`policy`, `critic`, `reviser`, ...) that answers; the engine maps roles to backends.
        choices: instead of generating, give the log-probability of each of these short texts as the next token (one
            forward pass; the sampling plays no part). Where the last message of `prompt` is the assistant's, the
            answer continues it.
    """

    prompt: Messages | str
    sampling: Sampling
    seed: int
    model: str = "policy"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend answered.

    Attributes:
        text: generated text, without special tokens and stop strings.
        finish_reason: `stop` or `length`.
        prompt_tokens, completion_tokens: counts by the backend's tokenizer.
        cached_tokens: prompt tokens that the backend's prefix cache held already.
        model: fingerprint of the model that answered.
        choice_logprobs: natural log-probability of each of the request's choices among all tokens, with and without a
            blank before it; at least `LOWEST`, and below it where a server did not tell (`cai.backends.unseen`). Empty
            where none were asked.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    model: str = ""
    choice_logprobs: tuple[float, ...] = ()


LOWEST = -100.0
"""What stands for the log-probability of a token that the model rules out, so that every file stays valid JSON."""


def choice_logprob(variants: Iterable[float]) -> float:
    """Log of the summed probability of the tokens that spell one choice (log-sum-exp), at least `LOWEST`."""
    finite = [value for value in variants if value > LOWEST]
    if not finite:
        return LOWEST
    top = max(finite)
    return top + math.log(sum(math.exp(value - top) for value in finite))


Generate = Callable[[Request], Awaitable[Completion]]


class Backend(Protocol):
    """What turns requests into completions. One file in `cai.backends` each.

    `fingerprint` names the model (weights and tokenizer, not the machine); equal fingerprints share cached completions.
    """

    fingerprint: str
    context: int
    """Tokens that prompt and completion may have together."""
    seats: int
    """Requests that it works on at once; more than these wait in its queue."""

    async def generate(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            ContextOverflow: prompt and `max_tokens` do not fit.
            BackendError: anything else; `retryable` says whether asking again may help.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, for errors that say they are retryable.

    A server's own Retry-After is obeyed up to `longest`. After `give_up_after` requests in a row to one backend have
    failed for good, across all rows, it is asked a plain prompt; unless it answers that, it is taken for dead and the
    run stops, resumable.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0
    give_up_after: int = 20


@dataclass(slots=True)
class Usage:
    """What a run has asked for so far; `fresh` counts what was generated, `reused` what the request log held."""

    fresh_requests: int = 0
    fresh_prompt_tokens: int = 0
    fresh_completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    reused_requests: int = 0
    reused_completion_tokens: int = 0
    retries: int = 0
    errors: int = 0

    def row(self) -> dict[str, int]:
        return asdict(self)


@dataclass(slots=True)
class _Health:
    """What one backend's failures for good say of it.

    Attributes:
        in_a_row: failures since its last answer.
        failures: all of them.
        outlived: of those, how many came before a request was begun that has been answered.
        last: the request that failed last.
        asking: held by the one that asks whether it lives.
    """

    in_a_row: int = 0
    failures: int = 0
    outlived: int = 0
    last: Request | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def failing(self) -> bool:
        return self.failures > self.outlived

    def failed(self, request: Request) -> None:
        self.in_a_row += 1
        self.failures += 1
        self.last = request

    def answered(self, before: int) -> None:
        """A request that was begun after so many failures has been answered."""
        self.in_a_row = 0
        self.outlived = max(self.outlived, before)


class Engine:
    """Answers requests from the log or a backend.

    Args:
        backends: by role; the same object may serve several roles.
        log: completions by request hash (`key`); None keeps nothing (previews).
        reuse: more logs to look in, read only (earlier runs).
        retry: how failures are asked again.
        usage: counted up here, where the caller wants to see it even after a failure.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        log: Log | None = None,
        *,
        reuse: tuple[Log, ...] = (),
        retry: RetryPolicy | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.backends = dict(backends)
        self.usage = usage if usage is not None else Usage()
        self._log = log
        self._reuse = reuse
        self._retry = retry or RetryPolicy()
        self._health = {id(backend): _Health() for backend in self.backends.values()}
        self._asking: dict[str, asyncio.Future[Completion]] = {}
        self._jitter = random.Random(0)  # spreads retries; no result depends on it

    @property
    def seats(self) -> int:
        """Requests that all backends together work on at once."""
        return sum(backend.seats for backend in {id(b): b for b in self.backends.values()}.values())

    @property
    def failing(self) -> bool:
        """Whether a backend may be dying: none of its requests begun after its last failure has been answered yet.

        An answer to an older request says nothing; it may have been on its way when the backend died.
        """
        return any(health.failing for health in self._health.values())

    async def silence(self) -> CaiError | None:
        """What a failing backend says to the plainest prompt, asked a few times; None where each answers it once.

        Then they live, and their failures lay in what was asked.
        """
        for health in self._health.values():
            if health.failing and (told := await self._silence(health)) is not None:
                return told
        return None

    async def _silence(self, health: _Health) -> CaiError | None:
        last = health.last
        assert last is not None
        plain: Messages | str = "Hello"
        if not isinstance(last.prompt, str):
            # Some servers refuse every system turn, or every reply that was begun for the model.
            system = last.prompt[:1] if last.prompt[0].role == "system" else ()
            begun = (Message("assistant", "Hello"),) if last.prompt[-1].role == "assistant" else ()
            plain = (*system, Message("user", "Hello"), *begun)
        told: CaiError | None = None
        for seed in range(3):
            if told is not None:
                await self._pause(seed, told)
            before = health.failures
            try:
                await self.backends[last.model].generate(replace(last, prompt=plain, seed=seed))
            except CaiError as error:
                told = error
            else:
                health.answered(before)
                return None
        return told

    def key(self, request: Request) -> str:
        """The hash under which a request's completion is logged: the model's fingerprint and all that was asked."""
        prompt = request.prompt if isinstance(request.prompt, str) else [[m.role, m.content] for m in request.prompt]
        fingerprint = self.backends[request.model].fingerprint
        if request.choices:
            return content_hash(fingerprint, prompt, list(request.choices))
        return content_hash(fingerprint, prompt, asdict(request.sampling), request.seed)

    async def generate(self, request: Request) -> Completion:
        """The completion of `request`, from the log if it was ever generated; rows that ask the same at the same moment
        share one answer (and one failure).

        Raises:
            ContextOverflow: it does not fit.
            BackendError: the backend failed and retrying did not help.
            BackendDown: nothing has been answered for so long that the backend must be dead.
            StoreError: the completion could not be logged.
        """
        key = self.key(request)
        while True:
            completion = self._logged(key)
            other = self._asking.get(key)
            if completion is None and other is not None:
                await asyncio.wait((other,))
                if other.cancelled():  # its row was; this one is not
                    continue
                completion = other.result()
            if completion is None:
                return await self._fresh(key, request)
            self.usage.reused_requests += 1
            self.usage.reused_completion_tokens += completion.completion_tokens
            return completion

    def _logged(self, key: str) -> Completion | None:
        for log in (self._log, *self._reuse):
            row = log.get(key) if log is not None else None
            if log is None or row is None:
                continue
            try:
                completion = _completion(row)
            except TypeError as error:
                raise StoreError(f"the row {key} is not a completion", where=str(log.path), mend="delete it") from error
            if log is not self._log and self._log is not None:
                self._log.append(row)
            return completion
        return None

    async def _fresh(self, key: str, request: Request) -> Completion:
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            completion = await self._ask(request)
            if self._log is not None:
                self._log.append({"key": key, **_row(completion)})
        except Exception as error:
            asking.set_exception(error)
            asking.exception()  # nobody may be waiting for it
            raise
        else:
            asking.set_result(completion)
        finally:
            asking.cancel()  # unless it has ended
            del self._asking[key]
        self.usage.fresh_requests += 1
        self.usage.fresh_prompt_tokens += completion.prompt_tokens
        self.usage.fresh_completion_tokens += completion.completion_tokens
        self.usage.cached_prompt_tokens += completion.cached_tokens
        return completion

    async def _ask(self, request: Request) -> Completion:
        backend = self.backends[request.model]
        policy, health = self._retry, self._health[id(backend)]
        for attempt in range(1, policy.attempts + 1):
            before = health.failures
            try:
                completion = await backend.generate(request)
            except PromptRefused:
                raise
            except BackendError as error:
                if not error.retryable or attempt == policy.attempts:
                    self.usage.errors += 1
                    health.failed(request)
                    await self._check(health)
                    raise
                self.usage.retries += 1
                await self._pause(attempt, error)
            else:
                health.answered(before)
                return completion
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _check(self, health: _Health) -> None:
        """Raise `BackendDown` if too many requests in a row have failed and a plain prompt does too.

        A backend that answers it lives, and refuses what it is asked. Of all rows that come here at once, one asks.
        """
        if health.in_a_row < self._retry.give_up_after:
            return
        async with health.asking:
            failed = health.in_a_row
            if failed < self._retry.give_up_after:  # another row has asked
                return
            told = await self._silence(health)
        if told is not None:
            raise gone(f"the last {failed} requests all failed", told) from told

    async def _pause(self, attempt: int, error: CaiError) -> None:
        """Wait behind the attempt of that number, from 1, which failed with `error`."""
        wait = self._retry.first * 2 ** (attempt - 1) * self._jitter.uniform(0.5, 1.0)
        await asyncio.sleep(min(max(wait, getattr(error, "retry_after", None) or 0.0), self._retry.longest))

    async def close(self) -> None:
        distinct = {id(b): b for b in self.backends.values()}.values()
        for problem in await asyncio.gather(*(backend.close() for backend in distinct), return_exceptions=True):
            if problem is not None:
                raise problem


def gone(failed: str, told: CaiError) -> BackendDown:
    """The end of a run whose backend leaves even a plain prompt unanswered.

    Args:
        failed: what failed before that was asked.
        told: what the plain prompt came to, see `Engine.silence`.
    """
    return BackendDown(
        f"{failed}, and even a plain prompt is not answered; the last said: {told.what}",
        where=told.where,
        mend=f"{told.mend or 'start the server again'}; then run the same command to go on",
    )


def _row(completion: Completion) -> dict[str, Any]:
    row = asdict(completion)
    if not completion.choice_logprobs:
        del row["choice_logprobs"]
    return row


def _completion(row: Mapping[str, Any]) -> Completion:
    values = {name: row[name] for name in Completion.__slots__ if name in row}
    values["choice_logprobs"] = tuple(values.get("choice_logprobs", ()))
    return Completion(**values)
