"""The long part: backends built, every row of a stage brought to its end, whatever stops it on the way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cai import plugins, runs
from cai.engine import Backend, Engine, Generate, RetryPolicy, Usage, gone
from cai.errors import BackendError, CaiError, ContextOverflow, InputError, PromptRefused
from cai.pipeline.job import Job
from cai.processor import resolved_dtype
from cai.progress import Reporter
from cai.records import Prompt, Quarantined, content_hash
from cai.runs import RunFolder
from cai.scheduler import Done, rows_in_flight, run_rows
from cai.store import Log


@dataclass(frozen=True)
class Stage:
    """What one stage does to each prompt of a run.

    Attributes:
        name: of the stage, and of its rows in the journal, in quarantine and in the progress bar.
        roles: the models that it asks.
        journal: where its finished rows go, as they finish.
        item: what the method is given for a prompt.
        method: the coroutine; its result goes through `row`.
        row: what is written of a result; `quarantined` in it says why there is none.
        empty: what is written of a prompt that an error ended, beside `quarantined`.
        incomplete: whether a finished row lacks a part that did not fit into the context, or was refused.
        unanswered: of each vote of a finished row that a backend did not take: the reason and what it said.
        stale: whether a finished row was made from something that has changed since (a row before it was retried).
        expected_tokens: about how many a row will generate.
        requests_at_once: how many requests one row has in flight.
    """

    name: str
    roles: tuple[str, ...]
    journal: Path
    item: Callable[[Prompt], Any]
    method: Callable[[Any, Generate], Awaitable[Any]]
    row: Callable[[Any], dict[str, Any]]
    empty: dict[str, Any]
    expected_tokens: int
    requests_at_once: int = 1
    incomplete: Callable[[dict[str, Any]], bool] = lambda row: False
    unanswered: Callable[[dict[str, Any]], Iterable[tuple[str, str]]] = lambda row: ()
    stale: Callable[[Prompt, dict[str, Any]], bool] = lambda prompt, row: False

    def leaves(self, prompt: Prompt, row: dict[str, Any], *, retry_failed: bool) -> bool:
        """Whether the row that the journal has of a prompt stays as it is."""
        again = retry_failed and (given_up_for(row) in RETRIED or self.incomplete(row))
        return not again and not self.stale(prompt, row)


class Workshop:
    """One event loop and the backends in it, for all stages of a run: a model that two stages ask is loaded once.

    Backends that the next stage does not ask are closed where that stage builds another, so that a GPU is free. All of
    their kind are closed with them and those still asked built anew: vLLM, ending in this process, takes down what its
    other engines in it stand on (its process groups).
    """

    def __init__(self, job: Job, report: Reporter) -> None:
        self._job = job
        self._report = report
        self._runner = asyncio.Runner()
        self._built: dict[str, tuple[str, Backend]] = {}  # by content of the configuration: kind and backend

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close(set())
        finally:
            self._runner.close()

    def run(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine function in the loop."""
        return self._runner.run(work())

    def backends(self, roles: Iterable[str], *, expected_tokens: int) -> dict[str, Backend]:
        """The backends by role; roles with equal configuration share one. Called outside the loop.

        Raises:
            CaiError: a model cannot be loaded, or a server's key cannot be sent.
        """
        models = self._job.loaded.models
        keys = {role: content_hash(models[role][0], models[role][1].model_dump(mode="json")) for role in roles}
        if not set(keys.values()) <= set(self._built):
            self._close(set(keys.values()))
        for role, key in keys.items():
            if key not in self._built:
                name, config = models[role]
                self._report.say(f"loading {self._job.fingerprints[role]} ({name})")
                begun = time.monotonic()
                module = plugins.load("cai.backends", name)
                seed = self._job.loaded.recipe.seed
                self._built[key] = name, module.build(config, seed=seed, expected_tokens=expected_tokens)
                self._report.say(f"loaded in {time.monotonic() - begun:.0f} s")
        return {role: self._built[key][1] for role, key in keys.items()}

    def _close(self, keep: set[str]) -> None:
        kinds = {kind for key, (kind, _) in self._built.items() if key not in keep}
        closing = [self._built.pop(key)[1] for key, (kind, _) in list(self._built.items()) if kind in kinds]

        async def close() -> None:
            for problem in await asyncio.gather(*(b.close() for b in closing), return_exceptions=True):
                if problem is not None:
                    raise problem

        if closing:
            self._runner.run(close())


@dataclass
class _Attempt:
    """One time that a stage was started: what `attempts.jsonl` will say of it."""

    usage: Usage = field(default_factory=Usage)
    begun: float = field(default_factory=time.time)
    started: float | None = None

    def row(self, ended: str) -> dict[str, Any]:
        started = self.started or self.begun
        seconds = time.time() - started
        return {
            "ended": ended,
            "load_seconds": round((self.started or time.time()) - self.begun, 2),
            "seconds": round(seconds, 2),
            "tokens_per_second": round(self.usage.fresh_completion_tokens / max(seconds, 1e-9), 1),
            "usage": self.usage.row(),
        }


def finish_rows(
    stage: Stage,
    prompts: Callable[[], Iterable[Prompt]],
    job: Job,
    place: RunFolder,
    report: Reporter,
    workshop: Workshop,
    *,
    retry_failed: bool = False,
) -> None:
    """Bring every prompt of the run to its end in one stage: a row, or quarantine with the reason.

    Raises:
        BackendDown, StoreError: the stage cannot go on; what was finished is kept.
        InputError: every row that could be asked about fails alike, so that it is the run that is wrong; they are not
            kept.
        KeyboardInterrupt: it was stopped, between two steps of the model.
    """
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Log(stage.journal))
        requests = stack.enter_context(Log(place.requests, key="key"))
        attempts = stack.enter_context(Log(place.attempts, key="attempt"))

        def finished(prompt: Prompt) -> bool:
            row = journal.get(prompt.id)
            return row is not None and stage.leaves(prompt, row, retry_failed=retry_failed)

        manifest = place.read_manifest() or {}
        total = int(manifest["prompts"])
        done = sum(finished(prompt) for prompt in prompts()) if len(journal) else 0
        if done:
            report.say(f"{stage.name}: {done} of {total} rows were finished before")
        if done == total:
            return
        reuse = tuple(stack.enter_context(Log(path, key="key", read_only=True)) for path in reused_logs(job))
        attempt = _Attempt()
        told: dict[str, Any] = {
            "attempt": str(len(attempts) + 1),
            "stage": stage.name,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(attempt.begun)),
            "rows_before": done,
            # A run may go on with other versions, or on another machine, than it was begun with.
            **runs.environment(),
            "dtype": {
                role: resolved_dtype(config.dtype)
                for role, (_, config) in job.loaded.models.items()
                if role in stage.roles and hasattr(config, "dtype")
            },
        }
        ended = "failed"
        try:
            left = (prompt for prompt in prompts() if not finished(prompt))
            with terminable():  # the loop's own handlers are gone when it ends
                backends = workshop.backends(stage.roles, expected_tokens=(total - done) * stage.expected_tokens)
                retry = job.loaded.recipe.retry
                policy = RetryPolicy(retry.attempts, retry.first_seconds, retry.longest_seconds, retry.give_up_after)
                engine = Engine(backends, requests, reuse=reuse, retry=policy, usage=attempt.usage)
                in_flight = job.loaded.recipe.rows_in_flight or rows_in_flight(engine.seats, stage.requests_at_once)
                rows = _Rows(stage, total, done, journal, report, engine, in_flight)
                attempt.started = time.time()
                workshop.run(lambda: rows.finish(left))
            ended = "finished"
        except (KeyboardInterrupt, asyncio.CancelledError):
            ended = "interrupted"
            raise KeyboardInterrupt from None
        except CaiError as error:
            told["error"] = str(error)
            raise
        finally:
            with contextlib.suppress(CaiError):  # the error that ended the attempt matters more than its record
                attempts.append(told | attempt.row(ended))


class _Rows:
    """The rows of one attempt, on their way."""

    def __init__(
        self, stage: Stage, total: int, done: int, journal: Log, report: Reporter, engine: Engine, in_flight: int
    ) -> None:
        self._stage, self._total, self._done = stage, total, done
        self._journal, self._report, self._engine, self._in_flight = journal, report, engine, in_flight
        self._quarantined = self._unanswered = self._too_long = 0
        self._failed: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # of each kind of failure, what was said

    async def finish(self, left: Iterable[Prompt]) -> None:
        with _stoppable():
            self._report.start(self._total, self._done, what=self._stage.name)
            try:
                await self._finish(left)
            finally:
                self._report.finish()

    async def _finish(self, left: Iterable[Prompt]) -> None:
        async def method(prompt: Prompt, generate: Generate) -> Any:
            return await self._stage.method(self._stage.item(prompt), generate)

        failed: list[Done] = []  # not kept before the backend has answered again: of a dead one, no row is to blame
        alike: list[Done] = []  # nor, while none has been made, those that `wrong` ended: it may be wrong with the run
        wrong: InputError | None = None
        made = self._done > 0
        rows = run_rows(left, method, self._engine.generate, in_flight=self._in_flight)
        async with contextlib.aclosing(rows) as ends:
            async for end in ends:
                if not made and isinstance(end.error, InputError) and (wrong is None or wrong.what == end.error.what):
                    wrong = wrong or end.error
                    alike.append(end)
                    continue
                made = made or end.error is not None or self._stage.row(end.result)["quarantined"] is None
                while made and alike:
                    self._keep(alike.pop(0))
                if isinstance(end.error, BackendError) and not isinstance(end.error, PromptRefused):
                    failed.append(end)
                else:
                    self._keep(end)
                if not self._engine.failing:
                    while failed:
                        self._keep(failed.pop(0))
        if wrong is not None and not made:
            raise InputError(f"the same with every row: {wrong.what}", where=wrong.where, mend=wrong.mend)
        if failed:
            await self._blame(failed)
        for end in failed:
            self._keep(end)
        self._report.finish()
        for kind, first in self._first.items():
            self._report.say(f"{self._stage.name}: {self._failed[kind]} {kind}; the first: {first}")
        if self._unanswered:
            self._report.say(f"the backend failed on {self._unanswered} rows; `--retry-failed` asks for them again")
        if self._too_long:
            self._report.say(
                f"{self._too_long} rows did not fit into the context, or lack what the backend refused; once the "
                "model's `context` is larger, or it takes them, `--retry-failed` asks for them again"
            )

    async def _blame(self, failed: list[Done]) -> None:
        """Raise `BackendDown` unless the rows that failed last, after which nothing was answered, are to blame.

        Too few may have been left for the backend to be given up, and in a resumed run nothing else may be asked.
        """
        self._report.say(f"the last {len(failed)} rows failed; asks a plain prompt, to tell whose fault it is")
        found = await self._engine.silence()
        if found is not None:
            raise gone(f"the last {len(failed)} rows failed", found) from found

    def _keep(self, end: Done) -> None:
        if end.error is None:
            row = self._stage.row(end.result)
            for reason, said in self._stage.unanswered(row):
                self._count(f"votes without a verdict ({reason})", said)
        else:
            row = {**self._stage.empty, "quarantined": given_up(self._stage.name, end.item, end.error).row()}
            self._count(f"rows were given up ({given_up_for(row)})", str(end.error))
        self._unanswered += given_up_for(row) == "backend"
        kept = self._journal.get(end.item.id) if end.error is not None else None
        if kept is not None and given_up_for(kept) not in RETRIED and not self._stage.stale(end.item, kept):
            row = kept  # it lacks only a part, and what an error says of that is no reason to lose the rest
        else:
            self._journal.append({"id": end.item.id, **row})
        self._done += 1
        self._quarantined += row["quarantined"] is not None
        self._too_long += given_up_for(row) == "too_long" or self._stage.incomplete(row)
        self._report.update(
            self._done, tokens=self._engine.usage.fresh_completion_tokens, quarantined=self._quarantined
        )

    def _count(self, kind: str, said: str) -> None:
        self._failed[kind] += 1
        self._first.setdefault(kind, said)


RETRIED = ("backend", "too_long")
"""Why a prompt was given up where asking again can help: the server is back, or the context has grown."""


def given_up_for(row: Mapping[str, Any]) -> str:
    """Why a journal's row was given up; blank where it was not."""
    return str((row.get("quarantined") or {}).get("reason", ""))


def reused_logs(job: Job) -> list[Path]:
    """The request logs of the earlier runs that the recipe names; refuses a run that is not there."""
    reused = [runs.open_run(job.loaded.resolve(other)) for other in job.loaded.recipe.reuse]
    return [run.requests for run in reused if run.requests.is_file()]


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM is what Ctrl-C is, a `KeyboardInterrupt`; afterwards it is again what it was before."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM cancel the running task; afterwards they are again what they were before.

    vLLM's step holds the loop; a handler of the loop's own is called between two steps, and nothing is torn apart.
    """
    stop, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert stop is not None
    before: dict[signal.Signals, Any] = {}
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for name in (signal.SIGINT, signal.SIGTERM):
            old = signal.getsignal(name)
            loop.add_signal_handler(name, stop.cancel)
            before[name] = old
    try:
        yield
    finally:
        for name, old in before.items():
            loop.remove_signal_handler(name)
            signal.signal(name, old)


def given_up(stage: str, prompt: Prompt, error: CaiError) -> Quarantined:
    """The record of a prompt that an error ended."""
    if isinstance(error, ContextOverflow):
        reason = "too_long"
    elif isinstance(error, BackendError):
        reason = "backend"
    else:
        reason = "invalid"
    return Quarantined(id=prompt.id, stage=stage, reason=reason, detail=str(error), input=prompt.row())
