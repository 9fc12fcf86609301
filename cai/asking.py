"""A judge outside a run: its settings checked, its model built, its verdicts on labelled pairs collected."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cai import plugins, yamlfile
from cai.constitution.load import load_constitution
from cai.engine import Engine, Generate, Usage
from cai.errors import BackendDown, BackendError, CaiError, ContextOverflow, InputError
from cai.evals import judge as judging
from cai.evals.calibration import keeps_sides
from cai.evals.judge import Outcome
from cai.evals.pairs import LabelledPair
from cai.judging import TOO_LONG, Judge, Question, members, unanswered
from cai.progress import Reporter
from cai.records import Group
from cai.scheduler import Done, run_rows
from cai.stages.judge import Plan, questions
from cai.stages.judge import asked as asked_of
from cai.stages.prefer import Rule
from cai.store import Log
from cai.yamlfile import Document, StrictModel

Principles = Literal["drawn", "all", "none"]


@dataclass(frozen=True)
class Setting:
    """Who judges, by which method, and what is asked.

    Attributes:
        backend: name; `backend_options` those of its `Config`.
        method: a file of `cai/judges`; `options` those of its `Config`.
        constitution: name or path; "" for the judge's own general question.
    """

    backend: str
    backend_options: Mapping[str, Any]
    method: str = "logprob"
    options: Mapping[str, Any] = field(default_factory=dict)
    constitution: str = ""
    principles: Principles = "none"
    seed: int = 0


@dataclass(frozen=True)
class Bench:
    """A setting with its files read and checked, but no model loaded."""

    setting: Setting
    backend: StrictModel
    judge: Judge
    fingerprint: str
    roles: tuple[str, ...]
    ask: Callable[[Group], tuple[Question, ...]]
    questions: dict[str, Any]
    """What is asked, for the report and for calibrations, see `cai.stages.judge.asked`."""
    rule: Rule
    keeps_sides: bool
    """See `cai.evals.calibration.keeps_sides`."""

    def row(self) -> dict[str, Any]:
        """What the figures depend on, for the report."""
        return {
            "method": self.setting.method,
            "options": dict(self.setting.options),
            "id": self.judge.id,
            "backend": self.setting.backend,
            "model": self.fingerprint,
            **self.questions,
        }


@dataclass
class Work:
    """What a pass over the pairs cost; `seconds` from the moment the model was there.

    Attributes:
        judged: pairs brought to their end in this pass, those found in the request log included.
    """

    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    load_seconds: float = 0.0
    judged: int = 0

    def row(self) -> dict[str, Any]:
        """JSON object. Speed counts only pairs that the model was asked about: those whose share of requests was not
        in the log; None where all were."""
        asked = self.usage.fresh_requests
        share = asked / max(1, asked + self.usage.reused_requests)
        return {
            "pairs_per_second": self.judged * share / max(self.seconds, 1e-9) if asked else None,
            "seconds": round(self.seconds, 3),
            "load_seconds": round(self.load_seconds, 3),
            "usage": self.usage.row(),
        }


# --- what is given on the command line --------------------------------------------------------------------------------


def options_of(texts: Sequence[str], option: str) -> dict[str, Any]:
    """A mapping from texts `key=value`; keys may be dotted, values are YAML.

    Raises:
        InputError: a text of another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        *parents, last = key.strip().split(".")
        if not equals or not key.strip():
            raise InputError(f"not of the form key=value: {text!r}", where=option)
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"{parent!r} is not below a mapping", where=f"{option} {key.strip()}")
        place[last] = yamlfile.parse(value, f"{option} {key.strip()}").data
    return found


def backend_of(backend: str, *, model: str, url: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the backend that `--backend`, `--model` and `--url` mean.

    Raises:
        InputError: no model is named, or `--url` does not fit the backend.
    """
    name = backend or ("openai" if url else "vllm")
    given = {**({"model": model} if model else {}), **({"url": url} if url else {}), **options}
    if url and name != "openai":
        raise InputError(f"--url is for the backend openai, not {name}", where="--url")
    if name == "scripted":
        if model:
            raise InputError("the scripted backend has no model", where="--model", mend="leave it out")
        return name, given
    if not given.get("model") or (name == "openai" and not given.get("url")):
        raise InputError(
            "there is no model to ask",
            where="--model",
            mend="give --model FOLDER; or --url URL with --model NAME; or --backend scripted to see the steps",
        )
    return name, given


def prepare(setting: Setting) -> Bench:
    """Check everything that can be checked before a model loads.

    Raises:
        InvalidFile, InputError: an unknown backend, method or option; no such constitution or model.
    """
    module = plugins.load("cai.backends", setting.backend)
    backend = yamlfile.validate(Document("--backend-set", dict(setting.backend_options), {}, {}), module.Config)
    method = plugins.load("cai.judges", setting.method)
    config = yamlfile.validate(Document("--set", dict(setting.options), {}, {}), method.Config)
    roles = tuple(dict.fromkeys(("judge", *members.roles(config))))
    fingerprint = module.fingerprint(backend)
    judge: Judge = method.build(config, models=dict.fromkeys(roles, fingerprint), seed=setting.seed)
    rule = Rule(panel=getattr(judge, "rule", "mean"))
    ask, said = _questions(setting, judge, rule)
    return Bench(setting, backend, judge, fingerprint, roles, ask, said, rule, keeps_sides(config))


def _questions(
    setting: Setting, judge: Judge, rule: Rule
) -> tuple[Callable[[Group], tuple[Question, ...]], dict[str, Any]]:
    if setting.principles == "none" or not setting.constitution:
        return lambda group: (Question(),), asked_of(judge, None, "none", (), rule)
    constitution = load_constitution(setting.constitution)
    if not constitution.judging:
        raise InputError(
            "none of its principles has a judge's question and a weight above 0",
            where=f"constitution {constitution.name}",
            mend="give one of them `judge`, or leave --constitution out",
        )
    plan = Plan(constitution, judge, setting.principles, (), setting.seed)

    def ask(group: Group) -> tuple[Question, ...]:
        key = group.comparisons()[0].id if judge.unit == "pair" else group.id
        return questions(plan, group.prompt, key)

    return ask, asked_of(judge, constitution, setting.principles, (), rule)


# --- judging ----------------------------------------------------------------------------------------------------------

Asked = tuple[LabelledPair, tuple[Question, ...]]
"""A pair, and what the judge is asked about it."""


def judged(
    bench: Bench, asked: Sequence[Asked], work: Work, report: Reporter, *, log: Path | None = None
) -> list[Outcome]:
    """The outcomes of all that is asked, in its order; closes the backend.

    Args:
        work: counted up here, also when it ends early.
        log: file of completions, so that the same call goes on where it was stopped.

    Raises:
        KeyboardInterrupt: stopped; what was answered is in the log.
        BackendDown: the backend answers nothing.
        InputError: every pair failed, and not by the backend.
    """
    try:
        with contextlib.ExitStack() as stack:
            requests = stack.enter_context(Log(log, key="key")) if log else None
            return asyncio.run(_judge(bench, asked, work, report, requests))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _judge(
    bench: Bench, asked: Sequence[Asked], work: Work, report: Reporter, requests: Log | None
) -> list[Outcome]:
    begun = time.monotonic()
    report.say(f"loading {bench.fingerprint} ({bench.setting.backend})")
    module = plugins.load("cai.backends", bench.setting.backend)
    backend = module.build(bench.backend, seed=bench.setting.seed, expected_tokens=0)
    engine = Engine(dict.fromkeys(bench.roles, backend), requests, usage=work.usage)
    started = time.monotonic()
    work.load_seconds = started - begun
    # vLLM's step holds the loop; a handler of the loop's own is called between two steps. Ctrl-C asyncio does itself.
    task = asyncio.current_task()
    with contextlib.suppress(NotImplementedError, RuntimeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # type: ignore[union-attr]
    groups = [pair.group() for pair, _ in asked]

    async def one(index: int, generate: Generate) -> Outcome:
        pair, put = asked[index]
        votes = await judging.ask(bench.judge, groups[index], put, generate)
        return judging.outcome(pair, groups[index], votes, bench.rule)

    found: dict[int, Outcome] = {}
    failed: dict[int, CaiError] = {}
    report.start(len(asked), 0, what="judge")
    try:
        rows = run_rows(range(len(asked)), one, engine.generate, in_flight=2 * engine.seats)
        async with contextlib.aclosing(rows) as ends:
            async for end in ends:
                if end.error is not None:
                    failed[end.item] = end.error
                found[end.item] = end.result or _failed(end, asked, groups)
                work.judged = len(found)
                work.seconds = time.monotonic() - started
                read = work.usage.fresh_prompt_tokens + work.usage.fresh_completion_tokens
                report.update(len(found), tokens=read, quarantined=len(failed))
    finally:
        report.finish()
        await engine.close()
    if failed and len(failed) == len(asked):
        raise _not_one(list(failed.values()))
    said = [(found[index].error, str(error)) for index, error in failed.items()]
    said += [each for outcome in found.values() for each in unanswered(outcome.votes)]
    counts = Counter(reason for reason, _ in said)
    for reason, first in dict(reversed(said)).items():
        report.say(f"no verdict ({reason}) {counts[reason]} times; the first: {first}")
    return [found[index] for index in range(len(asked))]


def _not_one(failed: Sequence[CaiError]) -> CaiError:
    """The end where every pair failed: it is not the pairs' fault."""
    last = failed[-1]
    if all(isinstance(error, BackendError) for error in failed):
        return BackendDown(f"not one pair was judged; the last said: {last.what}", where=last.where)
    return InputError(f"not one pair was judged; the last: {last.what}", where=last.where, mend=last.mend)


def _failed(end: Done, asked: Sequence[Asked], groups: Sequence[Group]) -> Outcome:
    reason = "invalid"
    if isinstance(end.error, ContextOverflow):
        reason = TOO_LONG
    elif isinstance(end.error, BackendError):
        reason = "backend"
    return Outcome(asked[end.item][0], groups[end.item], (), error=reason)
