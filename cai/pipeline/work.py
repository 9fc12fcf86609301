"""The long part: backends built, every prompt brought to its end, whatever stops it on the way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cai import plugins, runs
from cai.engine import Backend, Done, Engine, RetryPolicy, Usage, run_rows
from cai.errors import BackendDown, BackendError, CaiError, ContextOverflow
from cai.pipeline.begin import read_prompts
from cai.pipeline.job import Job
from cai.progress import Reporter
from cai.records import Prompt, Quarantined, content_hash
from cai.runs import RunFolder
from cai.stages import revise
from cai.store import Log


def revise_rows(job: Job, place: RunFolder, report: Reporter, *, retry_failed: bool = False) -> None:
    """Bring every prompt of the run to its end: responses, or quarantine with the reason."""
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Log(place.journal))
        requests = stack.enter_context(Log(place.requests, key="key"))
        attempts = stack.enter_context(Log(place.attempts, key="attempt"))

        def finished(prompt: Prompt) -> bool:
            if prompt.id not in journal:
                return False
            if not retry_failed:
                return True
            row = journal.get(prompt.id) or {}
            return (row.get("quarantined") or {}).get("reason") != "backend"

        manifest = place.read_manifest() or {}
        total = int(manifest["prompts"])
        done = sum(finished(prompt) for prompt in read_prompts(place)) if len(journal) else 0
        if done:
            report.say(f"{done} of {total} rows were finished before")
        if done == total:
            return
        reuse = tuple(stack.enter_context(Log(path, key="key", read_only=True)) for path in reused_logs(job))
        begun = time.time()
        attempt: dict[str, Any] = {
            "attempt": str(len(attempts) + 1),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
            "rows_before": done,
        }
        usage = Usage()
        ended = "failed"
        started: list[float] = []
        try:
            left = (prompt for prompt in read_prompts(place) if not finished(prompt))
            with terminable():  # the loop's own handlers are gone when it ends
                asyncio.run(_revise(job, left, total, done, journal, requests, reuse, report, usage, started))
            ended = "finished"
        except (KeyboardInterrupt, asyncio.CancelledError):
            ended = "interrupted"
            raise KeyboardInterrupt from None
        except CaiError as error:
            attempt["error"] = str(error)
            raise
        finally:
            seconds = time.time() - (started[0] if started else begun)
            attempt |= {
                "ended": ended,
                "load_seconds": round((started[0] if started else time.time()) - begun, 2),
                "seconds": round(seconds, 2),
                "tokens_per_second": round(usage.fresh_completion_tokens / max(seconds, 1e-9), 1),
                "usage": usage.row(),
            }
            with contextlib.suppress(CaiError):  # the error that ended the attempt matters more than its record
                attempts.append(attempt)


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


async def _revise(
    job: Job,
    left: Iterable[Prompt],
    total: int,
    done: int,
    journal: Log,
    requests: Log,
    reuse: tuple[Log, ...],
    report: Reporter,
    usage: Usage,
    started: list[float],
) -> None:
    backends = build_backends(job, report, expected_tokens=_expected_tokens(job, total - done))
    retry = job.loaded.recipe.retry
    policy = RetryPolicy(retry.attempts, retry.first_seconds, retry.longest_seconds, retry.give_up_after)
    engine = Engine(backends, requests, reuse=reuse, retry=policy, usage=usage)
    stop = asyncio.current_task()
    loop = asyncio.get_running_loop()
    # vLLM's step holds the loop; a handler of the loop's own is called between two steps, and nothing is torn apart.
    with contextlib.suppress(NotImplementedError, RuntimeError):
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.cancel)  # type: ignore[union-attr]
    quarantined = unanswered = 0
    report.start(total, done)
    started.append(time.time())

    def keep(end: Done) -> None:
        nonlocal done, quarantined, unanswered
        chain = end.result if end.error is None else revise.Chain(end.item.id, (), _given_up(end.item, end.error))
        journal.append(
            {
                "id": chain.prompt_id,
                "responses": [response.row() for response in chain.responses],
                "quarantined": chain.quarantined.row() if chain.quarantined else None,
            }
        )
        done += 1
        quarantined += chain.quarantined is not None
        unanswered += chain.quarantined is not None and chain.quarantined.reason == "backend"
        report.update(done, tokens=engine.usage.fresh_completion_tokens, quarantined=quarantined)

    failed: list[Done] = []  # not kept before the backend has answered again: of a dead one, no row is to blame
    try:
        in_flight = job.loaded.recipe.rows_in_flight or rows_in_flight(engine)
        async with contextlib.aclosing(
            run_rows(left, revise.method(job.plan), engine.generate, in_flight=in_flight)
        ) as ends:
            async for end in ends:
                if isinstance(end.error, BackendError) and not isinstance(end.error, ContextOverflow):
                    failed.append(end)
                else:
                    keep(end)
                if not engine.failing:
                    while failed:
                        keep(failed.pop(0))
        if failed and not len(requests):
            error = failed[-1].error
            assert isinstance(error, BackendError)
            raise BackendDown(
                f"not one request of this run was answered; the last said: {error.what}",
                where=error.where,
                mend=f"{error.mend or 'is the server up?'}; then run the same command",
            ) from error
        for end in failed:
            keep(end)
        if unanswered:
            report.finish()
            report.say(f"the backend failed on {unanswered} rows; `--retry-failed` asks for them again")
    finally:
        report.finish()
        await engine.close()


def rows_in_flight(engine: Engine) -> int:
    """Twice the seats: enough rows that the backend's queue never runs dry while some of them wait for a turn."""
    return 2 * engine.seats


def _given_up(prompt: Prompt, error: CaiError) -> Quarantined:
    if isinstance(error, ContextOverflow):
        reason = "too_long"
    elif isinstance(error, BackendError):
        reason = "backend"
    else:
        reason = "invalid"
    return Quarantined(id=prompt.id, stage=revise.STAGE, reason=reason, detail=str(error), input=prompt.row())


def _expected_tokens(job: Job, rows: int) -> int:
    plan = job.plan
    steps = plan.draft.max_tokens + plan.rounds * (plan.revision.max_tokens + plan.critique * plan.critic.max_tokens)
    return rows * steps // 2


def build_backends(job: Job, report: Reporter, *, expected_tokens: int) -> dict[str, Backend]:
    """The backends by role; roles with equal configuration share one."""
    built: dict[str, Backend] = {}
    by_config: dict[str, Backend] = {}
    for role, (name, config) in job.loaded.models.items():
        key = content_hash(name, config.model_dump(mode="json"))
        if key not in by_config:
            report.say(f"loading {job.fingerprints[role]} ({name})")
            begun = time.monotonic()
            module = plugins.load("cai.backends", name)
            by_config[key] = module.build(config, seed=job.loaded.recipe.seed, expected_tokens=expected_tokens)
            report.say(f"loaded in {time.monotonic() - begun:.0f} s")
        built[role] = by_config[key]
    return built
