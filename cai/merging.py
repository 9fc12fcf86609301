"""People's labels merged into a run's preferences: what `cai merge` writes, and what of it training takes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai import runs
from cai.config import load_recipe
from cai.constitution.load import load_constitution
from cai.errors import InputError
from cai.labels.merge import WHY_NOT, Merged, flips, merge
from cai.labels.policy import load_policy
from cai.people import events_of, judged
from cai.pipeline import Job, prepare
from cai.pipeline.compared import to_write
from cai.preferences import formats, write_preferences
from cai.records import Preference, content_hash
from cai.runs import RunFolder
from cai.stages.select import select
from cai.stages.why import is_named
from cai.store import Lock, encode, read_rows, replacing, write_json

TRAINED_ON = "trl"
"""The format of a run's own preferences that training reads."""


def merged(run: Path, policy: str) -> Merged:
    """What a policy makes of a run's labels and judge; writes nothing."""
    place = runs.open_run(run)
    return _merged(place, policy, _job(place), judged(place))


def _merged(place: RunFolder, policy: str, job: Job, rows: Sequence[Preference]) -> Merged:
    name, rule = load_policy(policy)
    return merge(name, rule, events_of(place), rows, tie_band=job.loaded.recipe.preferences.tie_band)


def merge_run(run: Path, policy: str) -> dict[str, Any]:
    """Merge a run's labels into its preferences and write all that comes of it; the report.

    Writes `merged.jsonl`, `merge-explained.jsonl`, `merge-quarantine.jsonl`, `merge.json`, and the recipe's formats
    under `preferences-merged/`, besides `trl`, which training reads; those of earlier merges anew. Equal inputs give
    equal bytes.

    Raises:
        InputError: no such run or policy, or nothing has been judged.
        RunError: another process works on the run.
    """
    place = runs.open_run(run)
    with Lock(place.path):
        job, rows = _job(place), judged(place)
        found = _merged(place, policy, job, rows)
        place.merge_report.unlink(missing_ok=True)  # says that all is there, so it goes first and comes last
        _write(place.merged, (row.row() for row in found.preferences))
        _write(place.merge_explained, found.explained)
        _write(place.merge_quarantine, (row.row() for row in found.quarantined))
        left_out: dict[str, int] = {}
        written = {}
        asked = (TRAINED_ON, *job.loaded.recipe.preferences.formats)
        for name in to_write(asked, formats.names(), place.merged_data.joinpath):
            left_out.clear()
            choices = select(lambda: iter(found.preferences), job.select, left_out=left_out)
            written[name] = write_preferences(place.merged_data / name, choices, name).row()
        report = found.report | {
            "made_of": _made_of(job, rows),
            "warnings": list(found.warnings),
            "left_out": dict(sorted(left_out.items())),
            "formats": written,
        }
        write_json(place.merge_report, report)
        return report


def training_data(place: RunFolder, say: Callable[[str], None]) -> Path:
    """The preferences of a run as training reads them: merged with people's labels where `cai merge` was run.

    Args:
        say: is told where people have said more since.

    Raises:
        InputError: there are none, none in the format that training reads, or the merged ones were not made of the
            run's present preferences and options.
    """
    if place.merged.is_file():
        found = place.merged_data / TRAINED_ON
        told: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(place.merge_report.read_text("utf-8"))
        policy = told.get("policy", "POLICY")
        again = f"run `cai merge {place.path} --policy {policy}` again (a policy of yours by its file)"
        if "made_of" not in told:
            raise InputError("it is not known of what people's labels were merged into", where=str(found), mend=again)
        if told["made_of"] != _made_of(_job(place), judged(place)):
            raise InputError(
                "people's labels were merged into other preferences, or by other options, than the run has now",
                where=str(found),
                mend=again,
            )
        if not found.is_dir():
            if told["formats"][TRAINED_ON]["rows"]:
                raise InputError("the merged preferences are gone", where=str(found), mend=again)
            why = ", ".join(f"{count} {reason}" for reason, count in told["left_out"].items())
            raise InputError(
                f"merging by {policy} left no preference to train on ({why or 'there was none'})",
                where=str(place.merge_report),
                mend="have people label more, or merge by another policy",
            )
        more = len(events_of(place)) - told["events"]
        if more > 0:
            say(f"{more} labels came after `cai merge` and play no part; {again}")
        return found
    found = place.preference_data / TRAINED_ON
    if not found.is_dir():
        judged(place)  # says so where nothing was
        raise InputError(
            f"the run's preferences were not written in the format {TRAINED_ON}, which training reads",
            where=str(place.preference_data),
            mend=f"put {TRAINED_ON} among preferences.formats and run `cai export RECIPE --preferences`",
        )
    return found


def _job(place: RunFolder) -> Job:
    """The run's own recipe and constitution: the files may have been edited since."""
    return prepare(load_recipe(place.recipe), models=False, constitution=load_constitution(place.path))


def _made_of(job: Job, rows: Iterable[Preference]) -> str:
    """Digest of the judge's preferences of a run, and of what of them and of people's becomes a row."""
    options = job.select
    given = dataclasses.asdict(options) | {"axes": sorted(options.axes) if options.axes is not None else None}
    return content_hash(given, job.loaded.recipe.preferences.tie_band, [row.row() for row in rows])


def differ(run: Path, policy: str, other: str) -> list[dict[str, Any]]:
    """The pairs that a change from `policy` to `other` would flip."""
    return flips(merged(run, policy), merged(run, other))


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(path) as file:
        for row in rows:
            file.write(encode(row))


def told(row: Mapping[str, Any]) -> Iterator[str]:
    """A merged preference's story in lines: each vote with its part, the judge's, and what they came to."""
    axis = f", axis {row['axis']}" if row["axis"] else ""
    yield f"merged preference {row['id']}{axis} by the policy {row['policy']} (parts: {row['parts_are']})"
    for part in row["people"]:
        yield f"  {part['annotator']} said {part['verdict']}: {part['part']:+.3g}"
    for part in row["not_counted"]:
        yield f"  {part['annotator']} said {part['verdict']}: not counted"
    if row["ai"]["p_a"] is not None:
        yield f"  the AI judge said p(a) = {row['ai']['p_a']:.3f}: {row['ai']['part']:+.3g}"
    if row["set_aside"]:
        yield f"  set aside: {WHY_NOT[row['set_aside']]}"
    elif row["p_a"] is not None:
        yield f"  together p(a) = {row['p_a']:.3f}, chosen: {row['chosen']}"


def explained(place: RunFolder, id: str) -> list[dict[str, Any]]:
    """What each vote contributed to the merged preferences that `id` names, by their own or their comparison's id.

    Raises:
        InputError: several comparisons are named so.
    """
    there = read_rows(place.merge_explained) if place.merge_explained.is_file() else ()
    found = [row for row in there if any(is_named(id, row[key]) for key in ("id", "comparison_id"))]
    compared = list(dict.fromkeys(row["comparison_id"] for row in found))
    if len(compared) > 1:
        raise InputError(
            f"{len(compared)} comparisons have an id that starts so",
            where=id,
            mend=f"give more characters of one of: {', '.join(compared[:4])}",
        )
    return found
