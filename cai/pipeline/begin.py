"""The folder of a run: made anew, found again, or set aside; and the prompts it works on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cai import runs
from cai.constitution.writing import dump
from cai.errors import InputError, RunError
from cai.labels.page.store import said_in
from cai.pipeline.job import Job, inputs
from cai.pipeline.reading import recount, snapshot, tell
from cai.progress import Reporter
from cai.records import Prompt
from cai.runs import RunFolder
from cai.store import read_rows, write_json, write_text
from cai.yamlfile import nearest

ANEW = "give another --run-dir, or --update to make it anew from the requests that have not changed"


def begin(job: Job, place: RunFolder, report: Reporter, *, update: bool, mend: str = ANEW) -> None:
    """Make the folder of a new run, or check that the one there is this run.

    Args:
        mend: what to do where it is not.

    Raises:
        InputError: see `check_axes`; or a source of prompts cannot be read.
        RunError: the run that is there was made from other inputs, or there is not one prompt.
    """
    check_axes(job, place)
    before = place.read_manifest()
    now, differing = changes(job, place, before)
    about = {
        "inputs": now,
        "fingerprints": dict(job.fingerprints),
        "sources": [source.label for source in job.loaded.recipe.prompts],
    }
    if before is not None:
        if differing and not update:
            raise RunError(
                f"this run was made from other inputs; what differs: {', '.join(differing)}",
                where=str(place.path),
                mend=mend,
            )
        if not differing and before.get("prompts") is not None:
            # What does not touch the rows (the export's options) may change between attempts.
            if before.get("sources", about["sources"]) != about["sources"]:
                snapshot(job, place, once_read=lambda: None)  # the same prompts, whose rows name their source
            write_text(place.recipe, dump(job.loaded.resolved()))
            if any(before.get(key) != value for key, value in about.items()):
                runs.write_manifest(place, {**before, **about})
            unreadable = recount(before).get("unreadable", 0)
            if unreadable:
                report.say(f"{unreadable} rows of the prompts' files could not be read; all are in {place.unreadable}")
            return

    def set_aside() -> None:
        if differing:
            report.say(f"inputs changed ({', '.join(differing)}); the old results are kept in {place.archive()}")

    place.path.mkdir(parents=True, exist_ok=True)
    found = snapshot(job, place, once_read=set_aside)
    tell(found, job, place, report)
    write_json(place.constitution, job.constitution.row())
    write_text(place.recipe, dump(job.loaded.resolved()))
    manifest = {
        "name": job.loaded.recipe.name,
        "prompts": found.prompts,
        "rows": found.row(),
        **about,
        **runs.environment(),
    }
    runs.write_manifest(place, manifest)  # last: a folder with a manifest is a run that has begun


def check_axes(job: Job, place: RunFolder) -> None:
    """Refuse an axis of `preferences` on which there can be no preference, before all is generated and judged in vain.

    Raises:
        InputError: neither is the judge asked about it, nor has anybody labelled the run's pairs on it.
    """
    if job.judge is None:
        return
    judged = job.judge.axes
    unknown = [axis for axis in job.loaded.recipe.preferences.axes if axis not in judged]
    labelled = {label.axis for label in said_in(place.label_page, place.labels)} if unknown else set()
    for axis in unknown:
        if axis not in labelled:
            raise InputError(
                f"the judge is not asked about the axis {axis!r}{nearest(axis, [*judged, *sorted(labelled)])}",
                where="preferences.axes",
                mend=f"judge.axes: {', '.join(judged) or 'none, so its verdicts have no axis'}; an axis that only "
                "people label can be named once they have",
            )


def changes(job: Job, place: RunFolder, before: dict[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """The inputs of a run as they are now, and the names of those that differ from what it was made from.

    Args:
        before: its manifest; None of a run that has not begun.
    """
    old = (before or {}).get("inputs", {})
    now = inputs(job, old)
    if before is None:
        return now, []
    now = {**({"judge": old["judge"]} if "judge" in old else {}), **now}  # a recipe may leave it out for once
    return now, runs.differences(_current(place, old, now), now)


def _current(place: RunFolder, old: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """`old` without what may change freely: the inputs of a stage that has not begun."""
    begun = {"sample": runs.begun(place.sampled), "judge": runs.begun(place.judged)}
    return {**old, **{stage: now[stage] for stage in begun if stage in now and not (begun[stage] and stage in old)}}


def read_prompts(place: RunFolder) -> Iterator[Prompt]:
    """The prompts of a run, in its order."""
    for number, row in enumerate(read_rows(place.prompts), start=1):
        yield Prompt.from_row(row, where=f"{place.prompts}:{number}")
