"""The folder of a run: made anew, found again, or set aside; and the prompts it works on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cai import prompts, runs
from cai.errors import RunError
from cai.pipeline.job import Job, inputs
from cai.progress import Reporter
from cai.recipe import PromptSource
from cai.records import Prompt
from cai.runs import RunFolder
from cai.store import encode, read_rows, replacing, write_json, write_text


def begin(job: Job, place: RunFolder, report: Reporter, *, update: bool) -> None:
    """Make the folder of a new run, or check that the one there is this run."""
    for source in job.loaded.recipe.prompts:
        path = job.loaded.resolve(source.path)
        if not path.exists():
            raise RunError("no such file or folder", where=f"prompts: {path}", mend="check `path` in the recipe")
    now, before = inputs(job), place.read_manifest()
    if before is not None:
        old = before.get("inputs", {})
        now = {**({"judge": old["judge"]} if "judge" in old else {}), **now}  # a recipe may leave it out for once
        differing = runs.differences(_current(place, old, now), now)
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
            if before.get("inputs") != now:
                runs.write_manifest(place, {**before, "inputs": now})
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


def _current(place: RunFolder, old: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """`old` without what may change freely: the inputs of a stage that has not begun."""
    begun = {"sample": runs.begun(place.sampled), "judge": runs.begun(place.judged)}
    return {**old, **{stage: now[stage] for stage in begun if stage in now and not (begun[stage] and stage in old)}}


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


def source_prompts(job: Job) -> Iterator[Prompt]:
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


def _told(where: str, path: Path, source: PromptSource) -> str:
    """A place in `path` as the recipe names it, so that no path of this machine enters the data."""
    return source.label + where.removeprefix(str(path)) if where.startswith(str(path)) else where


def read_prompts(place: RunFolder) -> Iterator[Prompt]:
    """The prompts of a run, in its order."""
    for number, row in enumerate(read_rows(place.prompts), start=1):
        yield Prompt.from_row(row, where=f"{place.prompts}:{number}")
