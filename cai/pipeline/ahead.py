"""What a run would cost, told before any model loads."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

from cai import plugins
from cai.engine import Generate
from cai.errors import CaiError
from cai.estimate import Estimate, estimate
from cai.pipeline.begin import changes, check_axes
from cai.pipeline.job import Job
from cai.pipeline.reading import Found, check_any, source_rows, warnings
from cai.pipeline.stages import Answers, judge_stage, revise_stage, sample_stage
from cai.pipeline.work import reused_logs
from cai.records import Prompt
from cai.runs import JOURNALS, RunFolder
from cai.stages import revise, sample
from cai.store import Log, read_rows


def dry_run(job: Job, folder: Path, *, update: bool = False, retry_failed: bool = False) -> Estimate:
    """What a run would ask for, before any model loads; counts what its request log already holds as free.

    Args:
        update: the inputs of a run that is there have changed on purpose; else it is told that it would be refused.
        retry_failed: rows that were given up are asked for again, as in `cai.pipeline.run`.

    Raises:
        CaiError: the run that is there, or one that it reuses, cannot be read; or see `check_axes` and `check_any`.
    """
    place = RunFolder(folder)
    check_axes(job, place)
    own = [place.requests] if place.requests.is_file() else []
    backend, config = job.loaded.models["policy"]
    files = Found()
    _, differing = changes(job, place, place.read_manifest())
    # What was made from other inputs is set aside before it is made anew.
    journals = {} if differing else {stage: place.path / name for stage, name in JOURNALS.items()}
    with contextlib.ExitStack() as stack:
        kept = {
            stage: stack.enter_context(Log(path, read_only=True)) for stage, path in journals.items() if path.is_file()
        }
        found = estimate(
            (row for row in source_rows(job, files) if isinstance(row, Prompt)),
            _all_stages(job, place, kept, retry_failed=retry_failed),
            models=job.fingerprints,
            logs=own + reused_logs(job),
            past=past_speeds(folder.parent, job.fingerprints["policy"]),
            guess=plugins.load("cai.backends", backend).expected_speed(config),
            contexts={
                role: given.context for role, (_, given) in job.loaded.models.items() if hasattr(given, "context")
            },
        )
    check_any(files)
    told = [f"a row of the prompts' files could not be read: {row}" for row in files.first]
    told += [f"{label} holds no prompt" for label in files.empty] + warnings(files, job)
    if differing and not update:
        told.append(
            f"{folder} was made from other inputs: refused without --update; what differs: {', '.join(differing)}"
        )
    return dataclasses.replace(found, unreadable=files.unreadable, warnings=tuple(told))


def _all_stages(
    job: Job, place: RunFolder, kept: Mapping[str, Log], *, retry_failed: bool
) -> Callable[[Prompt, Generate], Awaitable[Any]]:
    """Every stage of the recipe for one prompt, one after another.

    Args:
        kept: the run's journals by stage; what is finished in them is not asked for again.
    """
    rows: dict[str, dict[str, dict[str, Any]]] = {stage: {} for stage in JOURNALS}
    # Of a journal, answers ask nothing but the row of a prompt.
    answers = Answers(job, cast(Log, rows[sample.STAGE]), cast(Log, rows[revise.STAGE]))
    stages = [revise_stage(job, place)]
    if job.judge:
        stages += [sample_stage(job, place), judge_stage(job, place, answers)]

    async def play(prompt: Prompt, generate: Generate) -> None:
        for stage in stages:
            row = kept[stage.name].get(prompt.id) if stage.name in kept else None
            if row is None or not stage.leaves(prompt, row, retry_failed=retry_failed):
                row = stage.row(await stage.method(stage.item(prompt), generate))
            rows[stage.name][prompt.id] = row

    return play


def past_speeds(folder: Path, fingerprint: str) -> list[float]:
    """Tokens per second of earlier attempts with the same model, in the runs beside this one that can be read."""
    speeds: list[float] = []
    for path in sorted(folder.glob("*/manifest.json")):
        run = RunFolder(path.parent)
        with contextlib.suppress(CaiError):  # what is wrong with another run is no reason not to tell of this one
            manifest = run.read_manifest() or {}
            if manifest.get("inputs", {}).get("models", {}).get("policy") == fingerprint and run.attempts.is_file():
                speeds += [
                    row["tokens_per_second"]
                    for row in read_rows(run.attempts)
                    if row.get("tokens_per_second", 0) > 0 and row.get("stage", "revise") != "judge"
                ]
    return speeds
