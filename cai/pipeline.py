"""The whole story of a run, in order; the only place that builds backends and turns configuration into parameters.

recipe -> prompts -> revise -> responses, quarantine -> SFT data, card, metrics
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cai import plugins, prompts, runs
from cai.config import LoadedRecipe, PromptSource, SamplingConfig, load_recipe
from cai.constitution.load import Constitution, load_constitution
from cai.engine import Backend, Done, Engine, RetryPolicy, Sampling, Usage, run_rows
from cai.errors import BackendDown, BackendError, CaiError, ContextOverflow, InputError, RunError
from cai.estimate import Estimate, estimate
from cai.metrics import ReviseMetrics
from cai.progress import Reporter
from cai.records import Prompt, Quarantined, Response, content_hash
from cai.runs import ResponsesOf, RunFolder
from cai.stages import revise, why
from cai.stages.card import CardInfo, ModelUsed, dataset_card
from cai.stages.export import SftOptions, sft_rows, write_sft
from cai.stages.transcript import Transcript
from cai.stages.why import Explanation
from cai.store import Lock, Log, encode, read_rows, replacing, write_json, write_text


@dataclass(frozen=True)
class Job:
    """A recipe with everything it names loaded, but no model."""

    loaded: LoadedRecipe
    constitution: Constitution
    plan: revise.Plan
    sft: SftOptions
    fingerprints: Mapping[str, str]
    """By role."""


def prepare(loaded: LoadedRecipe, *, models: bool = True, constitution: Constitution | None = None) -> Job:
    """Load the constitution and look at the models' files, so that what is wrong is said before any model loads.

    Args:
        models: false where none will be asked; then they need not be there.
        constitution: instead of the one that the recipe names.

    Raises:
        CaiError: anything that the recipe names is missing or wrong.
    """
    recipe = loaded.recipe
    name = recipe.constitution
    if constitution is None:
        constitution = load_constitution(loaded.resolve(name) if name.endswith((".yaml", ".yml")) else name)
    options = recipe.revise
    if options.rounds and not constitution.revising:
        raise InputError(
            "none of its principles has a critique request and a weight above 0",
            where=f"constitution {constitution.name}",
            mend="give one of them `critique` and `revision`, or set revise.rounds to 0",
        )
    transcript = Transcript(constitution, style=options.style, few_shot=options.few_shot, critique=options.critique)
    plan = revise.Plan(
        constitution=constitution,
        transcript=transcript,
        seed=recipe.seed,
        rounds=options.rounds,
        principles_per_critique=options.principles_per_critique,
        critique=options.critique,
        unrevised_tags=frozenset(options.unrevised_tags),
        unrevised_samples=options.unrevised_samples,
        retries=options.retries,
        draft=_sampling(options.draft),
        critic=_sampling(options.critic),
        revision=_sampling(options.revision),
    )
    sft = SftOptions(
        seed=recipe.seed,
        revisions=recipe.sft.revisions,
        include_unrevised=recipe.sft.include_unrevised,
        unrevised_tags=plan.unrevised_tags if plan.rounds else None,
        test_fraction=recipe.sft.test_fraction,
        system_prompt=constitution.system_prompt.strip() if recipe.sft.system_prompt else "",
    )
    fingerprints = {
        role: plugins.load("cai.backends", backend).fingerprint(config)
        for role, (backend, config) in loaded.models.items()
        if models
    }
    return Job(loaded, constitution, plan, sft, fingerprints)


def _sampling(config: SamplingConfig) -> Sampling:
    return Sampling(**config.model_dump())


# --- the run ----------------------------------------------------------------------------------------------------------


def run(
    job: Job, folder: Path, report: Reporter, *, update: bool = False, retry_failed: bool = False
) -> dict[str, Any]:
    """All stages of a recipe; on a folder that holds part of the same run, what is left of them.

    Args:
        update: the inputs have changed on purpose: set the old results aside and make them anew; requests that have not
            changed are taken from the log.
        retry_failed: ask again for rows that were quarantined because a backend failed.

    Returns:
        The content of `metrics.json`.

    Raises:
        RunError: another process works on the folder, or the inputs have changed; names what differs.
        CaiError: the run could not be finished. What was finished is kept; the same command goes on.
    """
    with Lock(folder):
        place = RunFolder(folder)
        begin(job, place, report, update=update)
        revise_rows(job, place, report, retry_failed=retry_failed)
        return export(job, place, report)


def inputs(job: Job) -> dict[str, Any]:
    """Digests of all that the results depend on; two runs with equal inputs are the same run."""
    recipe = job.loaded.recipe
    return {
        "seed": recipe.seed,
        "constitution": job.constitution.hash,
        "models": dict(sorted(job.fingerprints.items())),
        "prompts": [
            {
                **source.model_dump(mode="json", exclude={"path", "source"}),
                "sha256": _digest(job.loaded.resolve(source.path)),
            }
            for source in recipe.prompts
        ],
        "revise": recipe.revise.model_dump(mode="json"),
    }


def _digest(path: Path) -> str:
    import hashlib

    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:24]


def begin(job: Job, place: RunFolder, report: Reporter, *, update: bool) -> None:
    """Make the folder of a new run, or check that the one there is this run."""
    for source in job.loaded.recipe.prompts:
        path = job.loaded.resolve(source.path)
        if not path.exists():
            raise RunError("no such file or folder", where=f"prompts: {path}", mend="check `path` in the recipe")
    now, before = inputs(job), place.read_manifest()
    if before is not None:
        differing = runs.differences(before.get("inputs", {}), now)
        if differing and not update:
            raise RunError(
                f"this run was made from other inputs; what differs: {', '.join(differing)}",
                where=str(place.path),
                mend="give another --run-dir, or --update to make it anew from the requests that have not changed",
            )
        if differing:
            report.say(f"inputs changed ({', '.join(differing)}); the old results are kept in {place.archive()}")
        elif before.get("prompts") is not None:
            # What does not touch the rows (the export's options) may change between attempts.
            write_text(place.recipe, yaml.safe_dump(job.loaded.resolved(), sort_keys=False, allow_unicode=True))
            return
    place.path.mkdir(parents=True, exist_ok=True)
    count, bad = _snapshot_prompts(job, place.prompts)
    constitution = {
        "name": job.constitution.name,
        "hash": job.constitution.hash,
        "file": job.constitution.file.model_dump(mode="json"),
        "principles": {b.id: b.principle.model_dump(mode="json") for b in job.constitution.principles},
    }
    write_json(place.constitution, constitution)
    write_text(place.recipe, yaml.safe_dump(job.loaded.resolved(), sort_keys=False, allow_unicode=True))
    manifest = {
        "name": job.loaded.recipe.name,
        "prompts": count,
        "bad_prompts": bad,
        "inputs": now,
        **runs.environment(),
    }
    runs.write_manifest(place, manifest)  # last: a folder with a manifest is a run that has begun


def _snapshot_prompts(job: Job, target: Path) -> tuple[int, list[dict[str, str]]]:
    """Write the prompts as they are read; returns how many, and the rows that could not be read."""
    seen: set[str] = set()
    bad: list[dict[str, str]] = []
    repeated = 0
    with replacing(target) as file:
        for source in job.loaded.recipe.prompts:
            taken = 0
            options = prompts.ReadOptions(fields=source.fields, turns=source.turns)
            path = job.loaded.resolve(source.path)
            rows = prompts.read_rows(path, source.format, options=options, tags=tuple(source.tags))
            for row in rows:
                if isinstance(row, prompts.BadRow):
                    bad.append({"where": _told(row.where, path, source), "reason": row.reason})
                    continue
                if source.limit is not None and taken >= source.limit:
                    break
                taken += 1
                if row.id in seen:
                    repeated += 1
                    continue
                seen.add(row.id)
                file.write(encode(dataclasses.replace(row, source=_told(row.source, path, source)).row()))
    if repeated:
        bad.append({"where": "prompts", "reason": f"{repeated} exact duplicates left out"})
    if not seen:
        detail = f"; the first row that could not be read: {bad[0]['where']}: {bad[0]['reason']}" if bad else ""
        raise RunError(f"there is not one prompt to work on{detail}", where="prompts")
    return len(seen), bad


def _told(where: str, path: Path, source: PromptSource) -> str:
    """A place in `path` as the recipe names it, so that no path of this machine enters the data."""
    return source.label + where.removeprefix(str(path)) if where.startswith(str(path)) else where


def read_prompts(place: RunFolder) -> Iterator[Prompt]:
    """The prompts of a run, in its order."""
    for number, row in enumerate(read_rows(place.prompts), start=1):
        yield Prompt.from_row(row, where=f"{place.prompts}:{number}")


def _reused_logs(job: Job) -> list[Path]:
    """The request logs of the earlier runs that the recipe names; refuses a run that is not there."""
    reused = [runs.open_run(job.loaded.resolve(other)) for other in job.loaded.recipe.reuse]
    return [run.requests for run in reused if run.requests.is_file()]


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
        reuse = tuple(stack.enter_context(Log(path, key="key", read_only=True)) for path in _reused_logs(job))
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
    quarantined = 0
    report.start(total, done)
    started.append(time.time())

    def keep(end: Done) -> None:
        nonlocal done, quarantined
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


# --- results ----------------------------------------------------------------------------------------------------------


def export(job: Job, place: RunFolder, report: Reporter) -> dict[str, Any]:
    """Write the results of a run whose rows are finished: a pure function of the journal, in prompt order."""
    metrics = ReviseMetrics()
    reasons: Counter[str] = Counter()
    left_out: dict[str, int] = {}
    with Log(place.journal) as journal:
        with replacing(place.responses) as responses, replacing(place.quarantine) as quarantine:
            for prompt in read_prompts(place):
                row = journal.get(prompt.id)
                if row is None:
                    raise RunError(
                        f"the row {prompt.id} is not finished", where=str(place.path), mend="run `cai run` on it first"
                    )
                for response in row["responses"]:
                    responses.write(encode(response))
                metrics.add(Response.from_row(response) for response in row["responses"])
                if row["quarantined"]:
                    quarantine.write(encode(row["quarantined"]))
                    reasons[row["quarantined"]["reason"]] += 1
        rows = sft_rows(read_prompts(place), ResponsesOf(journal), job.sft, left_out=left_out)
        counts = write_sft(place.sft, rows)
    told = metrics.row()
    card = _card(job, counts, dict(sorted(reasons.items())), told, left_out)
    write_text(place.sft / "README.md", dataset_card(card))
    result = {
        "revise": {**told, "quarantined": dict(sorted(reasons.items()))},
        "sft": counts.row(),
        "left_out": left_out,
    }
    write_json(place.metrics, result)
    report.say(f"{counts.rows} SFT rows in {place.sft}")
    return result


def _card(
    job: Job, counts: Any, quarantined: Mapping[str, int], told: Mapping[str, Any], left_out: Mapping[str, int]
) -> CardInfo:
    recipe, options = job.loaded.recipe, job.loaded.recipe.revise
    models: dict[str, ModelUsed] = {}
    for role, print_ in job.fingerprints.items():
        known = models.get(print_)
        roles = f"{known.role}, {role}" if known else role
        models[print_] = ModelUsed(roles, print_.split("@")[0], print_)
    flags: Counter[str] = Counter()
    for number in told["rounds"].values():
        flags.update(number["flags"])
    return CardInfo(
        name=recipe.sft.title or recipe.name,
        counts=counts,
        constitution=job.constitution,
        models=tuple(models.values()),
        recipe={
            "rounds": options.rounds,
            "principles per critique": options.principles_per_critique,
            "critiques": "yes" if options.critique else "no",
            "prompt style": options.style,
            "revisions trained on": recipe.sft.revisions,
            "temperature": options.revision.temperature,
            "seed": recipe.seed,
        },
        license=recipe.sft.license,
        prompt_licenses=recipe.sft.prompt_licenses,
        language=recipe.sft.language,
        quarantined=quarantined,
        flags=dict(sorted(flags.items())),
        left_out=left_out,
    )


def dry_run(job: Job, folder: Path) -> Estimate:
    """What a run would ask for, before any model loads; counts what its request log already holds as free."""
    place = RunFolder(folder)
    own = [place.requests] if place.requests.is_file() else []
    return estimate(
        _source_prompts(job),
        revise.method(job.plan),
        models=job.fingerprints,
        logs=own + _reused_logs(job),
        past=past_speeds(folder.parent, job.fingerprints["policy"]),
    )


def _source_prompts(job: Job) -> Iterator[Prompt]:
    seen: set[str] = set()
    for source in job.loaded.recipe.prompts:
        options = prompts.ReadOptions(fields=source.fields, turns=source.turns)
        rows = prompts.read_prompts(
            job.loaded.resolve(source.path),
            source.format,
            options=options,
            tags=tuple(source.tags),
            on_bad=lambda row: None,
        )
        for number, prompt in enumerate(rows):
            if source.limit is not None and number >= source.limit:
                break
            if prompt.id not in seen:
                seen.add(prompt.id)
                yield prompt


def past_speeds(folder: Path, fingerprint: str) -> list[float]:
    """Tokens per second of earlier attempts with the same model, in the runs beside this one."""
    speeds = []
    for path in sorted(folder.glob("*/manifest.json")):
        run = RunFolder(path.parent)
        manifest = run.read_manifest() or {}
        if manifest.get("inputs", {}).get("models", {}).get("policy") == fingerprint and run.attempts.is_file():
            speeds += [
                row["tokens_per_second"] for row in read_rows(run.attempts) if row.get("tokens_per_second", 0) > 0
            ]
    return speeds


def explain(folder: Path, id: str) -> Explanation:
    """The story of one prompt, response or training row of a run.

    Raises:
        InputError: no such run, or no such id in it.
    """
    place = runs.open_run(folder)
    # The run's own copy: the constitution may have been edited since.
    job = prepare(load_recipe(place.recipe), models=False, constitution=load_constitution(place.path))
    if not place.journal.is_file():
        raise InputError("no row of this run is finished yet", where=str(folder))
    with Log(place.journal, read_only=True) as journal:
        ids = [prompt.id for prompt in read_prompts(place)]
        rows = (journal.get(prompt_id) for prompt_id in ids)
        quarantined = [Quarantined.from_row(row["quarantined"]) for row in rows if row and row["quarantined"]]
        titles = {bound.id: bound.principle.title for bound in job.constitution.principles}
        responses = ResponsesOf(journal, [prompt_id for prompt_id in ids if prompt_id in journal])
        return why.explain(id, read_prompts(place), responses, quarantined, options=job.sft, titles=titles)
