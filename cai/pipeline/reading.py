"""The prompts that a recipe's sources hold: read once; every row that is none is counted, written down and told."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai import prompts
from cai.constitution.model import Level
from cai.errors import InputError, RunError
from cai.pipeline.job import Job
from cai.progress import Reporter
from cai.prompts import BadRow
from cai.recipe import PromptSource
from cai.records import Prompt, Quarantined, content_hash
from cai.runs import RunFolder
from cai.store import encode, replacing
from cai.yamlfile import nearest

STAGE = "prompts"
SHOWN = 3
"""Of a kind of row that something is wrong with, so many are named one by one; all are in a file of the run."""

_WORDS = 1_000
"""Tags kept to say which is nearest to a mistyped one."""


@dataclass
class Found:
    """What reading the sources came to.

    Attributes:
        prompts: distinct ones.
        unreadable: rows that are no prompt; the rest of a torn file counts as one.
        repeated: exact duplicates of an earlier prompt, left out.
        first: the first so many of the unreadable rows.
        empty: sources without a single row.
        tags: of the prompts, the first so many.
        idle: overrides that set no principle of the constitution aside, counted, with the place of the first.
    """

    prompts: int = 0
    unreadable: int = 0
    repeated: int = 0
    first: list[BadRow] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    idle: Counter[str] = field(default_factory=Counter)
    idle_at: dict[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, int]:
        """JSON object: what came of the files' rows."""
        return {"read": self.prompts, "unreadable": self.unreadable, "repeated": self.repeated}


def source_rows(job: Job, found: Found) -> Iterator[Prompt | BadRow]:
    """The distinct prompts of all sources in order, and the rows that are none; `found` counts along.

    Raises:
        InputError: a source cannot be read, or is torn and may not be.
    """
    seen: set[str] = set()
    open_to = {word for word, levels in _levels(job).items() if any(level.overridable for level in levels)}
    for source in job.loaded.recipe.prompts:
        path = job.loaded.resolve(source.path)
        options = prompts.ReadOptions(fields=source.fields, turns=source.turns)
        rows = prompts.read_rows(path, source.format, options=options, tags=tuple(source.tags))
        taken = None
        for taken, row in enumerate(_limited(rows, source.limit), start=1):  # noqa: B007 (that there is one)
            if isinstance(row, BadRow):
                yield _broken(row, path, source, found)
                continue
            if row.id in seen:
                found.repeated += 1
                continue
            seen.add(row.id)
            found.prompts += 1
            prompt = dataclasses.replace(row, source=_told(row.source, path, source))
            if len(found.tags) < _WORDS:
                found.tags.update(prompt.tags)
            for word in prompt.overrides:
                if word not in open_to:
                    found.idle[word] += 1
                    found.idle_at.setdefault(word, prompt.source)
            yield prompt
        if taken is None:
            found.empty.append(source.label)


def _levels(job: Job) -> dict[str, list[Level]]:
    """By word that `overrides` can name, an id or a tag, the levels of the principles that it names."""
    found: dict[str, list[Level]] = {}
    for bound in job.constitution.principles:
        for word in dict.fromkeys((bound.id, *bound.principle.tags)):
            found.setdefault(word, []).append(bound.level)
    return found


def _limited(rows: Iterator[Prompt | BadRow], limit: int | None) -> Iterator[Prompt | BadRow]:
    """Up to the last prompt that `limit` lets in; what stands after it is not looked at."""
    taken = 0
    for row in rows:
        yield row
        taken += isinstance(row, Prompt)
        if taken == limit:
            return


def _broken(row: BadRow, path: Path, source: PromptSource, found: Found) -> BadRow:
    told = dataclasses.replace(row, where=_told(row.where, path, source))
    if row.torn and not source.allow_torn:
        raise InputError(
            told.reason,
            where=told.where,
            mend="mend the file, or set `allow_torn: true` beside its path in the recipe to take what can be read",
        )
    found.unreadable += 1
    if len(found.first) < SHOWN:
        found.first.append(told)
    return told


def _told(where: str, path: Path, source: PromptSource) -> str:
    """A place in `path` as the recipe names it, so that no path of this machine enters the data."""
    return source.label + where.removeprefix(str(path)) if where.startswith(str(path)) else where


def snapshot(job: Job, place: RunFolder, *, once_read: Callable[[], None]) -> Found:
    """Write the run's prompts as they are read, and beside them what could not be read, as quarantine will list it.

    Args:
        once_read: called when all could be read, before anything in the folder is replaced.

    Raises:
        InputError: see `source_rows`.
        RunError: see `check_any`.
    """
    found = Found()
    with replacing(place.prompts) as file, replacing(place.unreadable) as aside:
        for row in source_rows(job, found):
            file.write(encode(row.row())) if isinstance(row, Prompt) else aside.write(encode(_given_up(row).row()))
        check_any(found)
        once_read()
    if not found.unreadable:
        place.unreadable.unlink()
    return found


def check_any(found: Found) -> None:
    """Refuse sources, read to their end, without a prompt.

    Raises:
        RunError: there is not one; says why the first row is none.
    """
    if not found.prompts:
        first = f"; the first row that could not be read: {found.first[0]}" if found.first else ""
        raise RunError(f"there is not one prompt to work on{first}", where=STAGE)


def _given_up(row: BadRow) -> Quarantined:
    key = content_hash(STAGE, row.where, row.reason)
    return Quarantined(id=key, stage=STAGE, reason="unreadable", detail=str(row), input={"where": row.where})


def tell(found: Found, job: Job, place: RunFolder, report: Reporter) -> None:
    """Say what is wrong with the prompts."""
    if found.unreadable:
        report.say(f"{found.unreadable} rows of the prompts' files could not be read; all are in {place.unreadable}")
        for row in found.first:
            report.say(f"  {row}")
    if found.repeated:
        report.say(f"{found.repeated} exact duplicates among the prompts were left out")
    for label in found.empty:
        report.say(f"warning: {label} holds no prompt")
    for text in warnings(found, job):
        report.say(f"warning: {text}")


def warnings(found: Found, job: Job) -> list[str]:
    """Words in the recipe and in the prompts that are without effect, with the nearest one that would have some."""
    told = []
    revise = job.loaded.recipe.revise
    if "unrevised_tags" in revise.model_fields_set and len(found.tags) < _WORDS:
        tags = sorted(found.tags)
        for tag in revise.unrevised_tags:
            if tag not in found.tags:
                told.append(f"revise.unrevised_tags: no prompt has the tag {tag!r}{nearest(tag, tags)}")
    levels = _levels(job)
    open_to = sorted(word for word, given in levels.items() if any(level.overridable for level in given))
    for word, count in found.idle.most_common(SHOWN):
        more = f" (and {count - 1} more prompts)" if count > 1 else ""
        if word in levels:
            names = ", ".join(dict.fromkeys(repr(level.name) for level in levels[word]))
            what = f"names only principles of level {names}, which no prompt can set aside"
        else:
            what = f"is no principle or tag of the constitution {job.constitution.name!r}{nearest(word, open_to)}"
        told.append(f"{found.idle_at[word]}: overrides: {word!r} {what}{more}")
    if len(found.idle) > SHOWN:
        told.append(f"overrides: {len(found.idle) - SHOWN} more words that set no principle aside")
    return told


def recount(manifest: dict[str, Any]) -> dict[str, int]:
    """What a run's manifest says of its prompts' files; of a run made before that was counted, only how many."""
    return {"read": int(manifest.get("prompts", 0)), **manifest.get("rows", {})}
